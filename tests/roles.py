"""Roles for a test: they belong to the whole server, so they have unique names and are dropped after the test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import sql

from revector.core.database import Database

_numbers = itertools.count(1)


@contextmanager
def login_roles(database: Database, *kinds: str) -> Iterator[dict[str, str]]:
    """Roles that log in, with names of their own; gone afterwards, with the collection's own roles."""
    names = {kind: f"{kind}_{next(_numbers)}" for kind in kinds}
    with database.connect("test") as connection:
        for name in names.values():
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        yield names
        groups = [
            row[0]
            for row in connection.execute(
                "SELECT rolname::text FROM pg_roles WHERE strpos(rolname, %s) = 1",
                [f"revector:{connection.info.dbname}/{database.schema}:"],
            ).fetchall()
        ]
        for name in (*names.values(), *groups):
            connection.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(name)))
        for name in (*names.values(), *groups):
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
