"""Real processes: workers that are killed, frozen and replaced, `revector backfill run`, and writers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from revector.core.database import Database
from tests.console.cli.program import plain_environment
from tests.faults.numbers import NUMBERS, SEED
from tests.faults.watch import wait_until

ROOT = Path(__file__).resolve().parents[2]

_PROGRAM = ("-c", "from revector.console.program import main; main()")


class Process:
    """A process of this revision of revector, in its own session, with its output in a file."""

    def __init__(self, folder: Path, name: str, *arguments: str, **environment: str) -> None:
        self.said = folder / f"{name}.log"
        # This tree's code, and of the settings of the machine nothing.
        environment = plain_environment(folder) | {"PYTHONPATH": str(ROOT)} | environment
        with self.said.open("w") as log:
            self._popen = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def kill(self) -> None:
        """kill -9, of this process alone."""
        self._popen.kill()
        self._popen.wait()

    def freeze(self) -> None:
        """Stop it where it stands, until `wake`; it stands when this returns."""
        self._popen.send_signal(signal.SIGSTOP)
        process = psutil.Process(self.pid)
        wait_until("the process stands still", lambda: process.status() == psutil.STATUS_STOPPED)

    def wake(self) -> None:
        self._popen.send_signal(signal.SIGCONT)

    def finish(self, status: int = 0, seconds: float = 2 * NUMBERS.patience_s) -> str:
        """Close its stdin, and return its output; fails unless it ends by itself with `status`."""
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._popen.stdin.close()
        try:
            ended = self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds:g} s; it said:\n{self.text()}") from None
        assert ended == status, f"ended with {ended}, not {status}; it said:\n{self.text()}"
        return self.text()

    def text(self) -> str:
        return self.said.read_text()[-4_000:]

    def end(self) -> None:
        """Kill what is left of it and of its children in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()


class Processes:
    """All processes that a test starts on one collection; ended with the test."""

    def __init__(self, database: Database, folder: Path, *, version_key: str = "v1", **settings: Any) -> None:
        self.database, self.folder, self._version_key = database, folder, version_key
        self._settings = {"batch_size": 64, "lease_s": 600.0} | settings
        self._started: list[Process] = []

    def _start(self, name: str, *arguments: str, **environment: str) -> Process:
        process = Process(self.folder, f"{name}-{len(self._started)}", *arguments, **environment)
        self._started.append(process)
        return process

    def worker(self, database: Database | None = None) -> Process:
        """A worker; on another way to the same database when one is given."""
        way = database or self.database
        given = json.dumps(self._settings)
        return self._start(
            "worker", "-m", "tests.faults.one_worker", way.dsn, way.schema, self._version_key, given
        )

    def workers(self, number: int, database: Database | None = None) -> list[Process]:
        return [self.worker(database) for _ in range(number)]

    def revector(self, *arguments: str) -> Process:
        """The program as a user starts it."""
        options = ("--dsn", self.database.dsn, "--schema", self.database.schema)
        return self._start("revector", *_PROGRAM, *options, *arguments)

    def run(self) -> Process:
        """`revector backfill run`, with the settings of these processes and without the index."""
        settings = [f"--{name.replace('_', '-')}={value}" for name, value in self._settings.items()]
        return self.revector("backfill", "run", self._version_key, "--no-index", *settings)

    def writers(self, number: int, last_chunk_id: int) -> list[Process]:
        """Applications that insert and delete chunks until `finish`."""
        return [
            self._start(
                "writer", "-m", "tests.faults.one_writer", self.database.dsn, self.database.schema,
                str(one), str(number), str(last_chunk_id), SEED,
            )
            for one in range(number)
        ]  # fmt: skip

    def close(self) -> None:
        for process in self._started:
            process.end()

    def last_words(self) -> Iterator[tuple[str, str]]:
        """The output of the processes, latest first."""
        for process in reversed(self._started):
            yield process.said.name, process.text()
