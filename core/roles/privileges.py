"""The privileges of the collection's own roles: grants on tables and functions. They own nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from psycopg import sql

from revector.core.database import Connection, fetch_one
from revector.core.migrations.sources import place_of, read_sources
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

_RIGHT = re.compile(r"(INSERT|UPDATE|DELETE)(?: \(([^)]*)\))?")


class Privilege(NamedTuple):
    """One privilege of a role. `object` is a function's signature, or a name; `column` is '' for the whole table."""

    role: str
    on: Literal["SCHEMA", "TABLE", "SEQUENCE", "FUNCTION"]
    object: str
    right: str
    column: str = ""

    def __str__(self) -> str:
        return f"{self.right}{f' ({self.column})' if self.column else ''} on {self.object}"

    def statement(self, verb: Literal["GRANT", "REVOKE"]) -> sql.Composed:
        """The SQL that grants or revokes it, for a session of this collection."""
        name = sql.SQL(self.object) if self.on == "FUNCTION" else sql.Identifier(self.object)
        column = sql.SQL(" ({})").format(sql.Identifier(self.column)) if self.column else sql.SQL("")
        return sql.SQL("{} {}{} ON {} {} {} {}").format(
            sql.SQL(verb), sql.SQL(self.right), column, sql.SQL(self.on), name,
            sql.SQL("TO" if verb == "GRANT" else "FROM"), sql.Identifier(self.role),
        )  # fmt: skip


def apply(connection: Connection, groups: dict[Kind, str]) -> None:
    """Grant the collection's own roles exactly their rights on what exists now. Tables of others are left alone."""
    wanted, given = expected_privileges(connection, groups), given_privileges(connection, groups)
    for privilege in given - wanted:
        connection.execute(privilege.statement("REVOKE"))
    for privilege in wanted - given:
        connection.execute(privilege.statement("GRANT"))
    connection.execute("SELECT share_version_table(id) FROM embedding_versions")


def expected_privileges(connection: Connection, groups: dict[Kind, str]) -> set[Privilege]:
    """What the collection's own roles should have on what exists now."""
    relations: dict[str, list[str]] = {}
    for name, sequence in connection.execute(
        """
        SELECT c.relname::text, s.relname::text
        FROM pg_class c LEFT JOIN pg_depend d ON d.refobjid = c.oid AND d.deptype IN ('a', 'i')
             AND d.classid = 'pg_class'::regclass
        LEFT JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
        WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relkind IN ('r', 'p', 'v')
        """
    ).fetchall():
        relations.setdefault(name, []).extend([sequence] if sequence else [])
    signatures = {*VIEWER_CALLS, *APPLICATION_CALLS, *APPROVER_CALLS, *OPERATOR_CALLS}
    query = "SELECT s, to_regprocedure(s)::text FROM unnest(%s::text[]) AS s"
    functions: dict[str, str | None] = dict(connection.execute(query, [list(signatures)]).fetchall())
    wanted = {*_on_relations(groups, relations, maintain=connection.info.server_version >= 170_000)}
    (schema,) = fetch_one(connection, "SELECT current_schema()::text")
    wanted |= {Privilege(groups[kind], "SCHEMA", schema, "USAGE") for kind in ("viewer", "application")}
    calls: tuple[tuple[Kind, tuple[str, ...]], ...] = (
        ("viewer", VIEWER_CALLS),
        ("operator", OPERATOR_CALLS),
        ("approver", APPROVER_CALLS),
        ("application", APPLICATION_CALLS),
    )
    return wanted | {
        Privilege(groups[kind], "FUNCTION", function, "EXECUTE")
        for kind, its in calls
        for function in map(functions.get, its)
        if function
    }


def _on_relations(
    groups: dict[Kind, str], relations: dict[str, list[str]], *, maintain: bool
) -> Iterator[Privilege]:
    """On tables and the sequences that fill them, and on the tables of versions."""
    from revector.core.models import Base, is_version_table

    ours = {*Base.metadata.tables, TABLE, "chunk_embeddings"} & {*relations}
    reads: tuple[tuple[Kind, set[str]], ...] = (
        ("viewer", ours - {*OWNER_READS}),
        ("application", ours & {*APPLICATION_READS}),
    )
    writes: tuple[tuple[Kind, dict[str, str]], ...] = (
        ("operator", {**OPERATOR_WRITES}),
        ("approver", {**APPROVER_WRITES}),
        ("application", {**APPLICATION_WRITES}),
    )
    versions = {name for name in relations if is_version_table(name)}
    for kind, tables in reads:
        yield from (Privilege(groups[kind], "TABLE", name, "SELECT") for name in tables | versions)
    for kind, rights in writes:
        for table in ours & {*rights}:
            for right, columns in _RIGHT.findall(rights[table]):
                for column in columns.split(", "):
                    yield Privilege(groups[kind], "TABLE", table, right, column)
            yield from (Privilege(groups[kind], "SEQUENCE", name, "USAGE") for name in relations[table])
    for right in ("INSERT", "MAINTAIN") if maintain else ("INSERT",):
        yield from (Privilege(groups["operator"], "TABLE", name, right) for name in versions)


def given_privileges(connection: Connection, groups: dict[Kind, str]) -> set[Privilege]:
    """What they have on revector's own tables and functions, and on the schema."""
    from revector.core.models import Base, is_version_table

    rows = connection.execute(
        """
        WITH acl AS (
            SELECT 'SCHEMA' AS on, nspname::text AS object, '' AS owner, '' AS column, nspacl AS acl
            FROM pg_namespace WHERE nspname = current_schema()
            UNION ALL
            SELECT 'TABLE', relname, relname, '', relacl FROM pg_class
            WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'p', 'v')
            UNION ALL
            SELECT 'TABLE', relname, relname, attname, attacl
            FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0
            WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'p', 'v')
            UNION ALL
            SELECT 'SEQUENCE', s.relname, c.relname, '', s.relacl
            FROM pg_class s JOIN pg_depend d ON d.objid = s.oid AND d.deptype IN ('a', 'i')
            JOIN pg_class c ON c.oid = d.refobjid
            WHERE s.relnamespace = to_regnamespace(quote_ident(current_schema())) AND s.relkind = 'S'
            UNION ALL
            SELECT 'FUNCTION', oid::regprocedure::text, '', '', proacl FROM pg_proc
            WHERE pronamespace = to_regnamespace(quote_ident(current_schema())) AND proname = ANY(%s))
        SELECT r.rolname::text, acl.on, acl.object, one.privilege_type, acl.column, acl.owner
        FROM acl CROSS JOIN aclexplode(acl.acl) AS one JOIN pg_roles r ON r.oid = one.grantee
        WHERE r.rolname = ANY(%s)
        """,
        [[one.name for one in read_sources(place_of(connection)).functions], list(groups.values())],
    ).fetchall()
    ours = {*Base.metadata.tables, TABLE, "chunk_embeddings", ""}
    return {Privilege(*row[:5]) for row in rows if row[5] in ours or is_version_table(row[5])}
