"""Services of every kind that search a collection while versions are flipped."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from revector.core import cutover
from revector.core.database import Connection, Database
from tests.console.cli.program import plain_environment
from tests.faults.watch import wait_until
from tests.faults.workers import ROOT
from tests.versions import add_chunks, ready_version

KEYS = ("old", "new")
SPECS = (
    "static:wordllama-64",
    "static:wordllama-64?query_prefix=question:%20&document_prefix=passage%20of%20a%20manual:%20",
)
"""With equal dimensions, so that only its neighbours reveal a vector in the wrong version's table."""
KINDS = ("retriever", "http", "sql", "retriever", "http", "sql", "retriever", "http")
_TOPICS = ("rotate", "key", "token", "server", "index", "vector", "table", "query", "model", "backup", "cache")


@dataclass(frozen=True)
class Searched:
    """What one service found: searches by version, seconds of each, every error once, the first wrong answers."""

    kind: str
    by_version: dict[str, int]
    seconds: tuple[float, ...]
    wrong: tuple[str, ...]
    errors: tuple[str, ...]


def fill(database: Database, chunks: int) -> None:
    """Chunks, and two versions of them with indexes, of which the old one is active and the new one was."""
    with database.session("test") as connection:
        many = len(_TOPICS)
        add_chunks(
            connection,
            [
                f"{_TOPICS[n % many]} {_TOPICS[n * 7 // many % many]} {_TOPICS[n // 5 % many]} {n}"
                for n in range(chunks)
            ],
        )
        for key, spec in zip(KEYS, SPECS, strict=True):
            ready_version(database, connection, key, spec)
            cutover.run(connection, key, confirm=key)
        cutover.rollback(connection, confirm=KEYS[0])


def flip(connection: Connection, number: int) -> None:
    """The flip of that number: there without guards, and back."""
    key = KEYS[(number + 1) % 2]
    if cutover.rollback_target(connection) is None:
        connection.execute(cutover.FLIP, {"key": key})
    else:
        cutover.rollback(connection, confirm=key)


class Services:
    """Processes that search; `end` returns what they found."""

    def __init__(
        self, database: Database, kinds: Sequence[str], url: str, token: str, folder: Path, pause_s: float
    ) -> None:
        environment = plain_environment(folder) | {
            "PYTHONPATH": str(ROOT), "SERVE_TOKEN": token, "SEARCH_PAUSE_S": str(pause_s),
        }  # fmt: skip
        self._started = [
            (
                kind,
                subprocess.Popen(
                    [
                        sys.executable, "-m", "tests.faults.one_searcher", kind, database.dsn, database.schema,
                        *([url] if kind == "http" else []),
                    ],
                    env=environment,
                    cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                ),
            )
            for kind in kinds
        ]  # fmt: skip
        self.all_say("ready")

    def all_say(self, word: str) -> None:
        """Wait until each of them says that next."""
        for kind, process in self._started:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said == f"{word}\n", f"the {kind} said {said!r}, not {word!r}"

    def end(self) -> list[Searched]:
        """Let them all come to their end."""
        for _kind, process in self._started:
            assert process.stdin is not None
            process.stdin.close()
        return [Searched(kind, **_answer(process)) for kind, process in self._started]

    def kill(self) -> None:
        """Whatever still runs."""
        for _kind, process in self._started:
            process.kill()
            process.wait()


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    said = process.stdout.read()
    assert process.wait() == 0, said
    found: dict[str, Any] = json.loads(said)
    return {name: value if name == "by_version" else tuple(value) for name, value in found.items()}


@contextlib.contextmanager
def searching(database: Database, kinds: Sequence[str] = KINDS, *, pause_s: float = 0.0) -> Iterator[Services]:
    """Services of these kinds, at work; those of kind `http` share one `revector serve`.

    Each pauses for so long after a search; with 0 they are as busy as they can be.
    """
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="revector-searchers-")))
        url, token = "", secrets.token_hex(16)
        if "http" in kinds:
            url = held.enter_context(_served(database, token, folder))
        services = Services(database, kinds, url, token, folder, pause_s)
        held.callback(services.kill)
        yield services


@contextlib.contextmanager
def _served(database: Database, token: str, folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "serve.log").open("w") as log:
        server = subprocess.Popen(
            [
                sys.executable, "-c", "from revector.console.program import main; main()", "--dsn", database.dsn,
                "--schema", database.schema, "serve", "--port", str(port),
            ],
            env=plain_environment(folder) | {"PYTHONPATH": str(ROOT), "REVECTOR_SERVE_TOKEN": token},
            cwd=folder, stdout=log, stderr=log,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    def healthy() -> bool:
        assert server.poll() is None, (folder / "serve.log").read_text()
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{url}/healthz").status_code == 200
        return False

    try:
        wait_until("revector serve answers", healthy)
        yield url
    finally:
        server.terminate()
        server.wait()
