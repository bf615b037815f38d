"""The local engine: keeps as many worker processes at a job as its settings say, and replaces those that die.

The engine decides nothing about the job: it reads the job's row as every worker does. Several engines, on several
machines, may serve one job.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from psycopg import sql

from revector import core
from revector.core import errors, logs
from revector.core.backfill.job import job as jobs
from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.job.status import JobStatus, status
from revector.core.database import Connection, Database
from revector.core.errors import RefusedError, RevectorError, UnreachableError
from revector.core.registry import Version

log = logging.getLogger(__name__)

_POLL_S = 0.3
_MOST_DEATHS = 5
"""Of failed workers in a row, without a chunk stored in between."""
_LAST_LINES = 5
_PROVE_EVERY_S = 3600.0
"""With `stay`: new chunks may arrive every minute, and a proof reads an index of the whole collection."""


class LocalEngine:
    """Runs a version's backfill in worker processes on this machine."""

    def __init__(
        self,
        database: Database,
        version: Version,
        settings: JobSettings,
        changes: Mapping[str, object] | None = None,
        *,
        stay: bool = False,
        on_status: Callable[[JobStatus], None] | None = None,
        on_note: Callable[[str], None] | None = None,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        """`settings` apply to a new job; `changes` apply to an existing job as well.

        With `stay` the engine keeps running: it waits while the job is paused, and for new chunks when it is done
        (after calling `on_done`). `on_status` is called about three times a second, `on_note` with messages for
        people.
        """
        self._database, self._version = database, version
        self._settings, self._changes, self._stay = settings, dict(changes or {}), stay
        self._on_status = on_status or (lambda _status: None)
        self._on_note = on_note or (lambda _note: None)
        self._on_done = on_done or (lambda: None)
        self._children: list[_Child] = []
        self._leaving: str | None = None
        self._prove_every_s = _PROVE_EVERY_S if stay else 0.0
        self._wake = threading.Event()
        self._error: RevectorError | None = None
        self._deaths, self._done_at_death, self._restart_at = 0, -1, 0.0

    def leave(self, reason: str) -> None:
        """Let the workers finish their current batches and stop; `run` then returns. May be called from any
        thread."""
        self._leaving = reason
        self._wake.set()

    def run(self) -> JobStatus:
        """Run workers until the job is done, paused or ended; with `stay`, for as long as the job exists.

        Raises UnreachableError when the database or the encoder stays unreachable, EncoderError when the encoder
        is at fault, RevectorError when workers keep dying.
        """
        with self._database.session("backfill engine", own_session=True) as connection:
            job = self._open(connection)
        try:
            return self._serve(job)
        except KeyboardInterrupt:
            self._leaving = self._leaving or "stopped at the keyboard"
            raise
        finally:
            self._end_children()

    def _open(self, connection: Connection) -> jobs.Job:
        found = jobs.find_job(connection, self._version)
        if self._stay and found is not None and found.state == "paused":
            job = found  # only a person resumes a paused job: a restarted service must not
        else:
            job = jobs.open_job(connection, self._version, self._settings)
        if found is not None and self._changes:
            jobs.change_settings(connection, self._version, self._changes)
        return job

    def _serve(self, job: jobs.Job) -> JobStatus:
        lost_since = None
        while True:
            try:
                with self._database.session("backfill engine", own_session=True) as connection:
                    lost_since = None
                    log.info("engine of %s: connected, job %d", self._version.version_key, job.id)
                    for lock in (jobs.ENGINE_LOCK, *([jobs.STAY_LOCK] if self._stay else [])):
                        connection.execute(sql.SQL("SELECT pg_advisory_lock_shared({})").format(lock), [job.id])
                    return self._watch(connection, job)
            except UnreachableError as error:
                if lost_since is None:
                    log.warning("engine of %s: lost the database", self._version.version_key)
                    log.debug("lost the database: %s", error.problem)
                lost_since = lost_since or time.monotonic()
                if self._leaving or self._error or time.monotonic() - lost_since > self._settings.patience_s:
                    raise
            self._wake.wait(_POLL_S)

    def _watch(self, connection: Connection, job: jobs.Job) -> JobStatus:
        done_before = False
        while True:
            self._reap(connection)
            now, found = jobs.notice_interruption(connection, job), status(connection, self._version)
            if now is None or found is None:
                raise RefusedError(f"The backfill of {self._version.version_key} is gone: was it dropped?")
            self._on_status(found)
            if self._error is not None or self._leaving is not None:
                if self._ended():
                    if self._error is not None:
                        raise self._error
                    return found
            elif now.state in ("running", "proving", "interrupted"):
                done_before = False
                self._keep(jobs.job_settings(connection, job).workers)
            elif not self._children and now.state not in jobs.AT_WORK:
                if not self._stay or now.state == "cancelled":
                    return found
                if now.state == "done" and not done_before:
                    done_before = True
                    self._on_done()
                if now.state in ("done", "failed") and found.waiting:
                    jobs.open_job(connection, self._version)
            self._wake.wait(_POLL_S)

    # -- children -----------------------------------------------------------------------------------------

    def _keep(self, wanted: int) -> None:
        for child in self._children[wanted:]:
            child.ask_to_leave("fewer workers are needed")
        if len(self._children) < wanted and time.monotonic() >= self._restart_at:
            missing = wanted - len(self._children)
            self._children += [_Child(self._database, self._version, self._prove_every_s) for _ in range(missing)]

    def _reap(self, connection: Connection) -> None:
        for child in [child for child in self._children if child.process.poll() is not None]:
            self._children.remove(child)
            end = child.end()
            if isinstance(end, RevectorError):
                self._error = self._error or end
            elif end is not None:
                self._died(connection, end)

    def _died(self, connection: Connection, how: str) -> None:
        found = status(connection, self._version)
        done = found.done if found else 0
        self._deaths = self._deaths + 1 if done == self._done_at_death else 1
        self._done_at_death = done
        if self._deaths >= _MOST_DEATHS:
            self._error = RevectorError(
                f"{self._deaths} workers died in a row without storing a chunk; the last {how}",
                "Possibly out of memory. Nothing is lost: fix the cause and run the backfill again.",
            )
        else:
            first, *complaints = how.split("\n")
            log.warning("a worker of %s %s; starting another", self._version.version_key, first)
            self._on_note(". ".join([f"a worker {first}; starting another", *complaints[-1:]]))
            self._restart_at = time.monotonic() + 0.5 * (2 ** (self._deaths - 1) - 1)

    def _ended(self) -> bool:
        reason = self._leaving or (self._error.problem.partition("\n")[0] if self._error else "")
        for child in self._children:
            child.ask_to_leave(reason)
        return not self._children

    def _end_children(self) -> None:
        """Stop every child, however the run ended."""
        for child in self._children:
            child.ask_to_leave(self._leaving or "the process that started this worker ends")
        for child in self._children:
            with contextlib.suppress(KeyboardInterrupt):
                child.process.wait()
                continue
            child.kill()  # the second Ctrl-C
        self._children.clear()


class _Child:
    """One worker process, and how it ended."""

    def __init__(self, database: Database, version: Version, prove_every_s: float) -> None:
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in end)
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        folder = str(Path(core.__file__).parents[2])
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            # -P: the user's working directory must not come first on the path.
            [sys.executable, "-P", "-c", "from revector.core.backfill.engines.local_process import main; main()"],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=self._errors,
            env={**os.environ, **logs.environment(), "PYTHONPATH": path},
            start_new_session=True,
        )
        self._told = False
        task = {"database": asdict(database), "version_key": version.version_key}
        self._tell({**task, "engine": "local", "prove_every_s": prove_every_s})

    def ask_to_leave(self, reason: str) -> None:
        if not self._told:
            self._told = True
            self._tell({"leave": reason})

    def _tell(self, message: dict[str, Any]) -> None:
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):  # it has ended
                self.process.stdin.write(json.dumps(message).encode() + b"\n")
                self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> RevectorError | str | None:
        """None after a normal end, else its error, or how it died in words."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        output, complaints = (_last_lines(stream) for stream in (self._output, self._errors))
        code = self.process.returncode
        with contextlib.suppress(ValueError, IndexError, KeyError, TypeError):
            said = json.loads(output[-1])
            if "state" in said:
                return None
            kind = getattr(errors, said["error"])
            return kind(said["problem"], said["remedy"])  # type: ignore[no-any-return]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return "\n".join([how, *complaints])


def _last_lines(stream: IO[bytes]) -> list[str]:
    with stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(0, stream.tell() - 4096))
        lines = stream.read().decode(errors="replace").splitlines()
    return [line for line in lines if line.strip()][-_LAST_LINES:]
