"""Collections for tests: each is in its own database, copied from one that was set up once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from revector.core.database import Connection, Database
from revector.core.migrations import upgrade

_numbers = itertools.count(1)


@contextmanager
def copied(original: Database) -> Iterator[Database]:
    """A copy of a database (which must have no sessions), dropped at the end.

    Its name is odd on purpose: it needs quoting.
    """
    source, name = str(conninfo_to_dict(original.dsn)["dbname"]), f"Copy_{next(_numbers)}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
    _run(original, create.format(sql.Identifier(name), sql.Identifier(source)))
    yield replace(original, dsn=_named(original, name))
    drop(original, name)


@contextmanager
def bare_database(dsn: str) -> Iterator[Database]:
    """A database with nothing in it, without pgvector, on the embedded server of a connection string."""
    with copied(Database(dsn.replace("/postgres?", "/template1?"), "Test_collection")) as database:
        yield database


@contextmanager
def empty_collection(dsn: str) -> Iterator[Database]:
    """A collection that is set up and empty: what `copied` begins with."""
    with bare_database(dsn) as database:
        upgrade(database)
        with database.session("test") as connection:
            for key in ("TEST_KEY", "HOUSE_KEY"):  # of the providers that tests serve on this machine
                connection.execute("INSERT INTO encoder_hosts (host, key_env) VALUES ('127.0.0.1', %s)", [key])
            connection.execute("ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only")
            connection.execute("DELETE FROM audit_log")
            connection.execute("ALTER TABLE audit_log ENABLE TRIGGER audit_log_append_only")
        yield database


def as_of_development(connection: Connection, revision: str) -> None:
    """Make the schema look as one of a development version, whose revision is in Alembic's own table."""
    connection.execute("ALTER TABLE revector_revision RENAME TO alembic_version")
    connection.execute("UPDATE alembic_version SET version_num = %s", [revision])


def drop(database: Database, name: str) -> None:
    """Drop a database of the same server if it exists, even with open sessions."""
    with psycopg.connect(_named(database, "postgres"), autocommit=True) as connection:
        # A session that was closed a moment ago has not ended yet; DROP DATABASE looks again only after 100 ms.
        while connection.execute(
            "SELECT pg_terminate_backend(pid), pg_sleep(0.001) FROM pg_stat_activity WHERE datname = %s", [name]
        ).fetchone():
            pass
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _named(database: Database, name: str) -> str:
    return database.dsn.replace(f"/{conninfo_to_dict(database.dsn)['dbname']}?", f"/{name}?")


def _run(database: Database, statement: sql.Composed) -> None:
    """The server may have been restarted since the last statement, so use a new connection for each."""
    with psycopg.connect(_named(database, "postgres"), autocommit=True) as connection:
        connection.execute(statement)
