"""Roles that really log in, made for a test and dropped after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import sql
from psycopg.conninfo import make_conninfo

from revector.core.database import Connection, Database


@contextmanager
def login_role(connection: Connection, database: Database, name: str) -> Iterator[Database]:
    """The collection as a new role reaches it, which has every right on rows and owns nothing."""
    name = f"{name} of {database.schema}"
    role, schema = sql.Identifier(name), sql.Identifier(database.schema)
    connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
    try:
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, role))
        rights = "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA {} TO {}"
        connection.execute(sql.SQL(rights).format(schema, role))
        connection.execute(sql.SQL("GRANT USAGE ON ALL SEQUENCES IN SCHEMA {} TO {}").format(schema, role))
        for function in ("lock_flip", "withdraw_request"):
            call = sql.SQL("GRANT EXECUTE ON FUNCTION {}.{} TO {}")
            connection.execute(call.format(schema, sql.Identifier(function), role))
        yield Database(make_conninfo(database.dsn, user=name), database.schema)
    finally:
        connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
        connection.execute(sql.SQL("DROP ROLE {}").format(role))
