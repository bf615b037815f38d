"""Servers as real processes, each on a free port, and a collection with two versions that they serve."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from revector.core import cutover
from revector.core.database import Connection, Database, fetch_one
from tests.console.cli.conftest import TEXTS, on
from tests.console.cli.program import SECRET
from tests.databases import copied
from tests.versions import add_chunks, ready_version

TOKEN = f"{SECRET}-0123456789abcdef"
DEADLINE_S = 60.0
"""For a process to do what it does in a second on an idle machine."""


class Server:
    """`revector serve` as a process; `client` has its token."""

    def __init__(
        self, database: Database, folder: Path, *options: str, token: str | None = TOKEN, **environment: str
    ) -> None:
        program = on(database, folder).with_options(**environment)
        if token:
            program = program.with_options(REVECTOR_SERVE_TOKEN=token)
        self.process: subprocess.Popen[str] = program.start("serve", "--port", "0", *options)
        self.said = ""
        self._heard = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()
        assert self._heard.wait(DEADLINE_S), self.said
        assert " on http://" in self.said, self.said
        self.url = next(line for line in self.said.splitlines() if " on http://" in line).rpartition(" ")[2]
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=DEADLINE_S)

    def search(self, query: str = "rotate an api key", **asked: Any) -> httpx.Response:
        """POST /search."""
        return self.client.post("/search", json={"query": query, **asked})

    def figure(self, line: str) -> float:
        """A line of /metrics, by its name and labels; 0 for one that is not there."""
        lines = self.client.get("/metrics").text.splitlines()
        return next((float(one.rpartition(" ")[2]) for one in lines if one.rpartition(" ")[0] == line), 0.0)

    def wait_for_health(self, status: int) -> None:
        """Until /healthz says 200 (ready) or 503 (not)."""
        until = time.monotonic() + DEADLINE_S
        while (found := self.client.get("/healthz")).status_code != status:
            assert time.monotonic() < until
        assert found.json() == {"ready": status == 200}

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """The exit status after a signal."""
        self.process.send_signal(how)
        return self.process.wait(DEADLINE_S)

    def close(self) -> None:
        """Stop it, if it is running. Its output may contain neither the secret nor a traceback."""
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert SECRET not in self.said, self.said
        assert "Traceback" not in self.said, self.said
        assert "internal error" not in self.said, self.said

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            if " on http://" in line:
                self._heard.set()
        self._heard.set()


StartServer = Callable[..., Server]


@pytest.fixture
def start_server(database: Database, tmp_path: Path) -> Iterator[StartServer]:
    """`start_server(*options, **environment)`: on the test's own collection, unless `on` another; ended at its end."""
    with contextlib.ExitStack() as started:

        def start(*options: str, on: Database = database, token: str | None = TOKEN, **environment: str) -> Server:
            server = Server(on, tmp_path, *options, token=token, **environment)
            started.callback(server.close)
            return server

        yield start


@pytest.fixture
def two_versions(database: Database, connection: Connection) -> Database:
    """The test's own collection, with v1 active and v2 ready."""
    return fill(database, connection)


@pytest.fixture(scope="session")
def library(template: Database) -> Iterator[Database]:
    """A collection with v1 active and v2 ready that nothing may change."""
    with copied(template) as database:
        with database.session("test") as connection:
            fill(database, connection)
        yield database


@pytest.fixture(scope="session")
def serving(library: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of that collection, for all tests that only ask."""
    server = Server(library, tmp_path_factory.mktemp("serving"))
    server.wait_for_health(200)
    yield server
    server.close()


def fill(database: Database, connection: Connection) -> Database:
    """Chunks, half of them with a language, and the versions v1 and v2 of different dimensions."""
    ids = add_chunks(connection, TEXTS)
    connection.execute(
        """UPDATE document_chunks SET metadata = '{"language": "en"}' WHERE id = ANY(%s)""", [ids[::2]]
    )
    ready_version(database, connection, "v1")
    cutover.run(connection, "v1", confirm="v1")
    ready_version(database, connection, "v2", "static:wordllama-256")
    return database


@contextlib.contextmanager
def searches_held(database: Database) -> Iterator[Callable[[int], None]]:
    """While this lasts, searches wait for a lock; `wait(n)` returns when n of them do."""
    with database.connect("test") as holder, database.connect("test") as watcher, holder.transaction():
        holder.execute("LOCK TABLE document_chunks IN ACCESS EXCLUSIVE MODE")
        pid = holder.info.backend_pid

        def wait(number: int) -> None:
            query = """
                SELECT count(*) FILTER (WHERE %s = ANY(pg_blocking_pids(pid))), pg_sleep(0.01) FROM pg_stat_activity
            """
            until = time.monotonic() + DEADLINE_S
            while fetch_one(watcher, query, [pid])[0] < number:
                assert time.monotonic() < until, f"{number} searches did not come to wait"

        yield wait
