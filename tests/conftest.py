"""Fixtures that every test shares: a real Postgres with pgvector, and collections in it."""

from __future__ import annotations

import gc
import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from inspect import iscoroutinefunction
from pathlib import Path

import psycopg
import pytest

from revector.core import embedded, logs, secrets
from revector.core.database import Connection, Database
from tests.databases import bare_database, copied, empty_collection

# Torch, Ray and Textual make for many objects: looking through them again and again took an eighth of the run.
gc.set_threshold(20_000, 20, 50)

_FOLDERS = {"faults": pytest.mark.faults, "notebook": pytest.mark.slow, "docs": pytest.mark.slow}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that `make check` leaves out: by folder, and by whether they need a server or draw the console."""
    for item in items:
        for folder, mark in _FOLDERS.items():
            if folder in item.path.relative_to(Path(__file__).parent).parts:
                item.add_marker(mark)
        fixtures = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
        if "snap_compare" in fixtures:
            item.add_marker(pytest.mark.slow)
        if any(fixture.scope == "session" for fixture in fixtures.get("server", ())):
            item.add_marker(pytest.mark.database)
        if isinstance(item, pytest.Function) and "screens" in item.path.parts and iscoroutinefunction(item.obj):
            item.add_marker(pytest.mark.screen)


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a test by the beginning of a file given as text."""
    return f"{val[:60]}…" if isinstance(val, str) and len(val) > 60 else None


@pytest.fixture(scope="session", autouse=True)
def _logs_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes to the logs of the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def _as_no_program() -> None:
    """Each test starts in a process that does not log: a command line that a test called begins to log."""
    root = logging.getLogger("revector")
    root.handlers.clear()
    root.setLevel(logging.NOTSET)
    root.propagate = True
    logs._started = None


@pytest.fixture(autouse=True)
def _with_no_secret_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test calls a password is a plain word to the next."""
    monkeypatch.setattr(secrets, "_known", set(secrets._known))


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What this process logs during the test, at INFO and above, each line with its level."""
    handler, logger = _Lines(), logging.getLogger("revector")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.lines
    logger.removeHandler(handler)
    logger.setLevel(before)


@pytest.fixture(scope="session")
def server() -> Iterator[embedded.EmbeddedServer]:
    """One embedded server for the whole run, stopped at its end. Nothing in it outlives its machine.

    In memory where there is enough: each test copies and drops a database of 300 files. Not in pytest's folder: under
    root, every new run of pytest closes it to the server's user.
    """
    memory = Path("/dev/shm")  # noqa: S108
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4 * 1024**3
    with tempfile.TemporaryDirectory(prefix="revector-test-", dir=memory if roomy else None) as folder:
        home = Path(folder)
        try:
            server = embedded.start(home)
            with psycopg.connect(server.dsn, autocommit=True) as connection:
                for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                    connection.execute(f"ALTER SYSTEM SET {setting} = off")  # type: ignore[call-overload]
                connection.execute("SELECT pg_reload_conf()")
            yield server
        finally:
            embedded.stop(home)


@pytest.fixture
def bare(server: embedded.EmbeddedServer) -> Iterator[Database]:
    """A database with nothing in it, and without pgvector."""
    with bare_database(server.dsn) as database:
        yield database


@pytest.fixture(scope="session")
def template(server: embedded.EmbeddedServer) -> Iterator[Database]:
    """A collection that is set up and empty, for `copied`: no test opens a session in it."""
    with empty_collection(server.dsn) as database:
        yield database


@pytest.fixture
def database(template: Database) -> Iterator[Database]:
    """A separate collection: set up, and empty. Its name is odd on purpose: it needs quoting."""
    with copied(template) as database:
        yield database


@pytest.fixture
def empty_database(database: Database) -> Database:
    """Another schema in the same database, which is not set up."""
    return replace(database, schema="not_set_up")


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """A connection to that collection."""
    with database.session("test") as found:
        yield found


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Hide the machine's settings from the test; the working directory is an empty folder."""
    import os

    for name in list(os.environ):
        if name.startswith(("REVECTOR_", "PG")) or name in ("DATABASE_URL", "RETRIEVAL_ROLLBACK_VERSION"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
