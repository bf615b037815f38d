"""The privileges of the collection's own roles: grants on tables and functions. They own nothing."""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

from revector.core.database import Connection, fetch_column, fetch_one
from revector.core.revisions import TABLE
from revector.core.roles.kinds import (
    APPLICATION_CALLS,
    APPLICATION_READS,
    APPLICATION_WRITES,
    APPROVER_CALLS,
    APPROVER_WRITES,
    OPERATOR_CALLS,
    OPERATOR_WRITES,
    OWNER_READS,
    VIEWER_CALLS,
    Kind,
)


def apply(connection: Connection, groups: dict[Kind, str]) -> None:
    """Grant the collection's own roles exactly their rights on what exists now. Tables of others are left alone."""
    from revector.core.models import Base

    ours = [*Base.metadata.tables, TABLE, "chunk_embeddings"]
    sequences = fetch_column(
        connection,
        """
        SELECT s.relname::text FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
        JOIN pg_class t ON t.oid = d.refobjid AND d.deptype IN ('a', 'i')
        WHERE t.relnamespace = to_regnamespace(quote_ident(current_schema())) AND t.relname = ANY(%s)
        """,
        [ours],
    )
    schema = sql.Identifier(fetch_one(connection, "SELECT current_schema()")[0])
    names = {kind: sql.Identifier(name) for kind, name in groups.items()}
    everyone = sql.SQL(", ").join(names.values())
    everything = sql.SQL(", ").join(map(sql.Identifier, ours))
    connection.execute(sql.SQL("REVOKE ALL ON {} FROM {}").format(everything, everyone))
    connection.execute(
        sql.SQL("REVOKE ALL ON SEQUENCE {} FROM {}").format(
            sql.SQL(", ").join(map(sql.Identifier, sequences)), everyone
        )
    )
    connection.execute(
        sql.SQL("GRANT USAGE ON SCHEMA {} TO {}, {}").format(schema, names["viewer"], names["application"])
    )
    readable = sql.SQL(", ").join(sql.Identifier(table) for table in ours if table not in OWNER_READS)
    connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(readable, names["viewer"]))
    for table in APPLICATION_READS:
        connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(sql.Identifier(table), names["application"]))
    writes: tuple[tuple[Kind, dict[str, LiteralString]], ...] = (
        ("operator", OPERATOR_WRITES),
        ("approver", APPROVER_WRITES),
        ("application", APPLICATION_WRITES),
    )
    for kind, rights in writes:
        for table, right in rights.items():
            _grant_table(connection, table, right, names[kind])
    calls: tuple[tuple[Kind, tuple[LiteralString, ...]], ...] = (
        ("viewer", VIEWER_CALLS),
        ("operator", OPERATOR_CALLS),
        ("approver", APPROVER_CALLS),
        ("application", APPLICATION_CALLS),
    )
    for kind, functions in calls:
        for function in functions:
            connection.execute(
                sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(sql.SQL(function), names[kind])
            )
    connection.execute("SELECT share_version_table(id) FROM embedding_versions")


def _grant_table(connection: Connection, table: str, rights: LiteralString, group: sql.Identifier) -> None:
    connection.execute(sql.SQL("GRANT {} ON {} TO {}").format(sql.SQL(rights), sql.Identifier(table), group))
    for (sequence,) in connection.execute(
        """
        SELECT s.relname::text FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
        WHERE d.refobjid = to_regclass(%s) AND d.deptype IN ('a', 'i')
        """,
        [table],
    ).fetchall():
        connection.execute(sql.SQL("GRANT USAGE ON SEQUENCE {} TO {}").format(sql.Identifier(sequence), group))
