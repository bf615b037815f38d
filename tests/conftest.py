"""Fixtures that every test shares: a real Postgres with pgvector, and collections in it."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from revector.core import embedded
from revector.core.database import Connection, Database
from revector.core.migrations import upgrade

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[embedded.EmbeddedServer]:
    """One embedded server for the whole run, stopped at its end.

    Not in pytest's own folder: under root that is closed to the server's user by every new run of pytest.
    """
    with tempfile.TemporaryDirectory(prefix="revector-test-") as folder:
        home = Path(folder)
        try:
            yield embedded.start(home)
        finally:
            embedded.stop(home)


@pytest.fixture
def empty_database(server: embedded.EmbeddedServer) -> Database:
    """A schema of its own that is not set up."""
    return Database(server.dsn, f"test_{next(_numbers)}")


@pytest.fixture
def database(empty_database: Database) -> Iterator[Database]:
    """A collection of its own: set up, and empty. Its name is odd on purpose: it needs quoting."""
    database = Database(empty_database.dsn, f"Test_{empty_database.schema}")
    upgrade(database)
    yield database
    with database.connect("test") as connection:
        from psycopg import sql

        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(database.schema)))


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """A connection to that collection."""
    with database.session("test") as found:
        yield found


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No setting of the machine reaches the test; the working directory is an empty folder."""
    import os

    for name in list(os.environ):
        if name.startswith(("REVECTOR_", "PG")) or name in ("DATABASE_URL", "RETRIEVAL_ROLLBACK_VERSION"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
