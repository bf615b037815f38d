"""The privileges of the collection's own roles: what they own, and grants on tables."""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

from revector.core.database import Connection, fetch_column, fetch_one
from revector.core.roles.kinds import (
    APPLICATION_READS,
    APPLICATION_WRITES,
    APPROVER_WRITES,
    OPERATOR_CALLS,
    OPERATOR_WRITES,
    Kind,
)


def apply(connection: Connection, groups: dict[Kind, str]) -> None:
    """Grant the collection's own roles exactly their rights on what exists now."""
    tables = fetch_column(
        connection,
        r"""
        SELECT relname::text FROM pg_class
        WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'v', 'p')
          AND relname !~ '^chunk_embeddings_\d+$'
        """,
    )
    schema = sql.Identifier(fetch_one(connection, "SELECT current_schema()")[0])
    names = {kind: sql.Identifier(name) for kind, name in groups.items()}
    everyone = sql.SQL(", ").join(names.values())
    everything = sql.SQL(", ").join(map(sql.Identifier, tables))
    connection.execute(sql.SQL("REVOKE ALL ON {} FROM {}").format(everything, everyone))
    connection.execute(sql.SQL("REVOKE ALL ON ALL SEQUENCES IN SCHEMA {} FROM {}").format(schema, everyone))
    connection.execute(
        sql.SQL("GRANT USAGE ON SCHEMA {} TO {}, {}").format(schema, names["viewer"], names["application"])
    )
    # Postgres requires this right for creating an index, even of the table's owner.
    connection.execute(sql.SQL("GRANT CREATE ON SCHEMA {} TO {}").format(schema, names["operator"]))
    connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(everything, names["viewer"]))
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
    connection.execute(
        sql.SQL("GRANT EXECUTE ON FUNCTION record_refusal(text, text) TO {}").format(names["viewer"])
    )
    for function in ("rebuild_chunk_embeddings(bigint)", *OPERATOR_CALLS):
        connection.execute(
            sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(sql.SQL(function), names["operator"])
        )
    version_tables = fetch_column(
        connection,
        """
        SELECT c.relname::text FROM embedding_versions v JOIN pg_class c ON c.relname = 'chunk_embeddings_' || v.id
        WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relkind = 'r' ORDER BY v.id
        """,
    )
    for table in version_tables:
        share(connection, table, groups)


def share(connection: Connection, table: str, groups: dict[Kind, str]) -> None:
    """Give a version's table to the operators; the owner of the schema keeps every right on it."""
    owner, mine = fetch_one(
        connection,
        """
        SELECT (SELECT rolname FROM pg_roles WHERE oid = (SELECT nspowner FROM pg_namespace
                                                          WHERE nspname = current_schema()))::text,
               (SELECT relowner = (SELECT oid FROM pg_roles WHERE rolname = %s)
                FROM pg_class WHERE oid = to_regclass(%s))
        """,
        [groups["operator"], table],
    )
    name = sql.Identifier(table)
    if not mine:
        connection.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(name, sql.Identifier(groups["operator"])))
    connection.execute(sql.SQL("GRANT ALL ON {} TO {}").format(name, sql.Identifier(owner)))
    connection.execute(
        sql.SQL("GRANT SELECT ON {} TO {}, {}").format(
            name, sql.Identifier(groups["viewer"]), sql.Identifier(groups["application"])
        )
    )


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
