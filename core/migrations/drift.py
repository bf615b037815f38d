"""What differs between a schema and what this program sets up, from the catalogue, and the SQL that mends it.

What it should be is not kept a third time: tables come from `core.models`, which a test compares with the revisions,
functions and triggers from the revisions' own SQL, and rights from `core.roles`. What others added is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from psycopg import sql

from revector.core.database import Connection
from revector.core.migrations.sources import Place, Sources, place_of, read_sources
from revector.core.revisions import TABLE
from revector.core.roles.groups import groups_of, set_up_groups
from revector.core.roles.privileges import Privilege, expected_privileges, given_privileges
from revector.core.text import counted

if TYPE_CHECKING:
    from sqlalchemy import Column, Table
    from sqlalchemy.schema import ExecutableDDLElement

_VIEW = "chunk_embeddings"
_VIEW_COLUMNS = {"chunk_id": "bigint", "embedding_version_id": "bigint", "embedding": "vector"}
_FROM_BACKUP = "Restore it from a backup: it would be empty if it were made again."


@dataclass(frozen=True)
class Difference:
    """One object that is not as it should be: `repair` is SQL that mends it and loses nothing, '' when there is none.

    `remedy` is for what has no repair; `statement` is SQL for people to look at first.
    """

    object: str
    detail: str
    remedy: str = ""
    statement: str = ""
    repair: str = ""
    severity: Literal["warning", "error"] = "error"


def differences(connection: Connection) -> list[Difference]:
    """All differences, those first that others build on. The session's role need not own anything."""
    place = place_of(connection)
    sources = read_sources(place)
    tables = [*_tables(connection)]
    whole = not any(one.object.partition(".")[0] == "embedding_versions" for one in tables)
    return [
        *tables,
        *_constraints(connection),
        *_functions(connection, sources, place),
        *_triggers(connection, sources),
        *(_version_tables(connection) if whole else ()),
        *_owners(connection, sources),
        *_grants(connection, place),
    ]


def _dialect() -> Any:
    from sqlalchemy.dialects import postgresql

    # Its usual style of parameters would double the percent signs of checks.
    return postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]


# -- tables -------------------------------------------------------------------------------------------------------


def _tables(connection: Connection) -> Iterator[Difference]:
    from revector.core.models import Base, is_version_table

    there: dict[str, dict[str, tuple[str, bool, bool]]] = {}
    for table, column, kind, required, filled in connection.execute(
        """
        SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               a.atthasdef OR a.attidentity <> ''
        FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relkind IN ('r', 'p', 'v')
        ORDER BY c.relname, a.attnum
        """
    ).fetchall():
        there.setdefault(table, {})[column] = (kind, required, filled)
    dialect = _dialect()
    compiler = dialect.ddl_compiler(dialect, None)
    strangers = {
        name: columns
        for name, columns in there.items()
        if name not in (*Base.metadata.tables, TABLE, _VIEW) and not is_version_table(name)
    }
    for table in Base.metadata.sorted_tables:
        if table.name not in there:
            yield _missing_table(table.name, {column.name for column in table.columns}, strangers)
            continue
        for column in table.columns:
            yield from _column(table, column, there[table.name], compiler)
    if {name: kind for name, (kind, *_) in there.get(_VIEW, {}).items()} != _VIEW_COLUMNS:
        problem = "has other columns" if _VIEW in there else "is missing"
        drop = sql.SQL("DROP VIEW IF EXISTS {};").format(sql.Identifier(_VIEW)).as_string()
        yield Difference(_VIEW, f"the view {problem}", repair=f"{drop} SELECT rebuild_chunk_embeddings()")


def _missing_table(name: str, columns: set[str], strangers: dict[str, dict[str, Any]]) -> Difference:
    renamed = [other for other, found in strangers.items() if columns <= {*found}]
    if not renamed:
        return Difference(name, "the table is missing", _FROM_BACKUP)
    back = sql.SQL("ALTER TABLE {} RENAME TO {}").format(sql.Identifier(renamed[0]), sql.Identifier(name))
    return Difference(
        name, f"the table is missing; {renamed[0]} has its columns", "If that is it, rename it.", back.as_string()
    )


def _column(
    table: Table, column: Column[Any], there: dict[str, tuple[str, bool, bool]], compiler: Any
) -> Iterator[Difference]:
    name = f"{table.name}.{column.name}"
    kind = compiler.dialect.type_compiler_instance.process(column.type).lower()
    kind = {"float": "double precision"}.get(kind, kind)
    alter = f"ALTER TABLE {compiler.preparer.format_table(table)} ALTER {compiler.preparer.format_column(column)}"
    found = there.get(column.name)
    if found is None:
        others = [other for other, (its, *_) in there.items() if other not in table.columns and its == kind]
        if others:
            back = sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
                sql.Identifier(table.name), sql.Identifier(others[0]), sql.Identifier(column.name)
            )
            detail = f"the column is missing; {others[0]} has its type"
            yield Difference(name, detail, "If that is it, rename it.", back.as_string())
        else:
            yield Difference(name, "the column is missing", _FROM_BACKUP)
        return
    its, required, filled = found
    if its != kind:
        yield Difference(name, f"the column is {its}, not {kind}", "Change its type back.", f"{alter} TYPE {kind}")
    if required == column.nullable:
        verb, problem = ("DROP", "takes no nulls") if column.nullable else ("SET", "takes nulls")
        yield Difference(name, f"the column {problem}", repair=f"{alter} {verb} NOT NULL")
    if not filled and column.server_default is not None and column.computed is None:
        default = compiler.get_column_default_string(column)
        yield Difference(name, "the column has no default", repair=f"{alter} SET DEFAULT {default}")
    elif not filled and (column.computed is not None or column is table.autoincrement_column):
        yield Difference(name, "the column is no longer filled by the database", _FROM_BACKUP)


def _constraints(connection: Connection) -> Iterator[Difference]:
    """Constraints and indexes, by name."""
    from revector.core.models import Base

    there = {
        (table, name): (valid, index)
        for table, name, valid, index in connection.execute(
            """
            SELECT c.relname::text, k.conname::text, k.convalidated, false
            FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
            WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))
            UNION ALL
            SELECT c.relname::text, x.relname::text, i.indisvalid, true
            FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
            WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))
            UNION ALL
            SELECT relname::text, '', true, false FROM pg_class
            WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'p')
            """
        ).fetchall()
    }
    for table, name, what, make in named_parts(Base.metadata.sorted_tables):
        if (table, "") not in there:
            continue  # a missing table is named once
        valid, index = there.get((table, name), (None, False))
        if valid is None:
            repair = str(make.compile(dialect=_dialect()))
            yield Difference(name, f"the {what} of {table} is missing", repair=repair)
        elif not valid and index:
            fix = sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(sql.Identifier(name))
            yield Difference(name, f"the index of {table} is invalid", "Build it again.", fix.as_string())
        elif not valid:
            fix = sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(
                sql.Identifier(table), sql.Identifier(name)
            )
            yield Difference(name, f"the constraint of {table} is not validated", repair=fix.as_string())


def named_parts(tables: Sequence[Table]) -> Iterator[tuple[str, str, str, ExecutableDDLElement]]:
    """Table, name, what it is and how it is made: of each constraint and index, foreign keys last."""
    from sqlalchemy import ForeignKeyConstraint
    from sqlalchemy.schema import AddConstraint, CreateIndex

    preparer = _dialect().identifier_preparer
    constraints = [(table.name, one) for table in tables for one in table.constraints]
    for table, one in sorted(constraints, key=lambda pair: isinstance(pair[1], ForeignKeyConstraint)):
        make = AddConstraint(one, isolate_from_table=False)  # by default it would change the model
        yield table, str(preparer.format_constraint(one)), "constraint", make
    for index in (index for table in tables for index in table.indexes):
        yield str(index.table), str(preparer.format_index(index)), "index", CreateIndex(index)


# -- functions and triggers ---------------------------------------------------------------------------------------


def _functions(connection: Connection, sources: Sources, place: Place) -> Iterator[Difference]:
    there: dict[str, list[tuple[Any, ...]]] = {}
    public = set()
    for name, *found, callable_ in connection.execute(
        """
        SELECT proname::text, prosrc, prosecdef, provolatile::text, coalesce(proconfig, '{}'),
               EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0)
        FROM pg_proc WHERE pronamespace = to_regnamespace(quote_ident(current_schema()))
        """
    ).fetchall():
        body, definer, volatility, settings = found
        there.setdefault(name, []).append((body, definer, volatility, frozenset(settings)))
        if callable_:
            public.add(name)
    for one in sources.functions:
        call = sources.private.get(one.name)
        close = place.fill(f"REVOKE EXECUTE ON FUNCTION :schema.{call} FROM PUBLIC") if call else ""
        if (one.body, one.definer, one.volatility, one.settings) not in there.get(one.name, ()):
            problem = "is not this release's" if one.name in there else "is missing"
            yield Difference(one.name, f"the function {problem}", repair=f"{one.statement}\n{close}")
        elif close and one.name in public:
            yield Difference(one.name, "everybody may call the function (PUBLIC)", repair=close)


def _triggers(connection: Connection, sources: Sources) -> Iterator[Difference]:
    rows = connection.execute(
        """
        SELECT c.relname::text, t.tgname::text, t.tgenabled::text, t.tgtype, t.tgqual IS NOT NULL, p.proname::text
        FROM pg_class c LEFT JOIN pg_trigger t ON t.tgrelid = c.oid AND NOT t.tgisinternal
        LEFT JOIN pg_proc p ON p.oid = t.tgfoid AND p.pronamespace = c.relnamespace
        WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relkind IN ('r', 'p')
        """
    ).fetchall()
    tables = {row[0] for row in rows}
    there = {(table, name): how for table, name, *how in rows}
    for one in sources.triggers:
        if one.table not in tables:
            continue
        enabled, *how = there.get((one.table, one.name), (None,))
        if enabled is None:
            problem = "is missing"
        elif enabled in "DR":
            problem = "is disabled"
        elif how != [one.kind, one.conditional, one.function]:
            problem = "is not this release's"
        else:
            continue
        yield Difference(f"{one.table}.{one.name}", f"the trigger {problem}", repair=one.statement)


# -- tables of versions, owners -----------------------------------------------------------------------------------

_VERSION_TRIGGERS = (
    "embeddings_deleted", "embeddings_truncated", "vectors_never_change_truncate", "vectors_never_change_update",
)  # fmt: skip


def _version_tables(connection: Connection) -> Iterator[Difference]:
    """The tables of versions that were filled. `core.index` looks at their indexes."""
    for number, key, state, kind, table, columns, triggers, constraints, like in connection.execute(
        """
        SELECT v.id, v.version_key, v.state, format('%s(%s)', v.storage, v.dimensions),
               'chunk_embeddings_' || v.id,
               (SELECT jsonb_object_agg(attname, format_type(atttypid, atttypmod)) FROM pg_attribute
                WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
               ARRAY(SELECT tgname::text FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                     WHERE tgrelid = c.oid AND NOT tgisinternal AND tgenabled IN ('O', 'A')
                       AND p.pronamespace = c.relnamespace ORDER BY 1),
               ARRAY(SELECT contype::text FROM pg_constraint WHERE conrelid = c.oid AND contype IN ('p', 'f')),
               (SELECT min(o.relname::text) FROM pg_class o
                WHERE o.relnamespace = to_regnamespace(quote_ident(current_schema())) AND o.relkind = 'r'
                  AND o.relname !~ '^chunk_embeddings_[0-9]+$'
                  AND ARRAY['bigint', format('%s(%s)', v.storage, v.dimensions)] =
                      (SELECT array_agg(format_type(atttypid, atttypmod) ORDER BY attnum) FROM pg_attribute
                       WHERE attrelid = o.oid AND attnum > 0 AND NOT attisdropped))
        FROM embedding_versions v LEFT JOIN pg_class c ON c.relkind = 'r'
             AND c.oid = to_regclass(format('%I.%I', current_schema(), 'chunk_embeddings_' || v.id))
        WHERE v.state NOT IN ('registered', 'retired') ORDER BY v.id
        """
    ).fetchall():
        name = sql.Identifier(table)
        if columns is None:
            found = f"; {like} has its columns" if like else ""
            rename = sql.SQL("ALTER TABLE {} RENAME TO {}").format(sql.Identifier(like or ""), name).as_string()
            instead = "make another version active" if state == "active" else f"revector versions drop {key}"
            remedy = "If that is it, rename it." if like else f"Restore it from a backup, or {instead}"
            yield Difference(
                table, f"the table of version {key} is missing{found}", remedy, rename if like else ""
            )
            continue
        for column, expected in {"chunk_id": "bigint", "embedding": kind}.items():
            if columns.get(column) == expected:
                continue
            other = next((one for one, its in columns.items() if its == expected), None)
            problem = f"is {columns[column]}, not {expected}" if column in columns else "is missing"
            back = sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
                name, sql.Identifier(other or ""), sql.Identifier(column)
            )
            yield Difference(
                f"{table}.{column}",
                f"the column of version {key} {problem}{f'; {other} has its type' if other else ''}",
                "If that is it, rename it." if other else _FROM_BACKUP,
                back.as_string() if other else "",
            )
        if not {*_VERSION_TRIGGERS} <= {*triggers}:
            repair = sql.SQL("SELECT guard_version_table({})").format(sql.Literal(number)).as_string()
            yield Difference(table, f"triggers of version {key} are missing or disabled", repair=repair)
        if state in ("ready", "active", "previous") and "f" not in constraints:
            repair = "SELECT key_version_table({id}); SELECT validate_version_table({id})"
            detail = f"the foreign key of version {key} is missing: vectors outlive their chunks"
            yield Difference(table, detail, repair=sql.SQL(repair).format(id=sql.Literal(number)).as_string())
        if "p" not in constraints and "chunk_id" in columns:
            repair = sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (chunk_id)").format(name).as_string()
            yield Difference(table, f"the primary key of version {key} is missing", repair=repair)


def _owners(connection: Connection, sources: Sources) -> Iterator[Difference]:
    """One role owns everything, or functions with the owner's rights have not the rights that they need."""
    from revector.core.models import Base

    ours = [*Base.metadata.tables, TABLE, _VIEW]
    for schema, owner, other, number in connection.execute(
        """
        WITH object AS (
            SELECT relowner AS owner FROM pg_class
            WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relname = ANY(%(ours)s)
            UNION ALL
            SELECT proowner FROM pg_proc
            WHERE pronamespace = to_regnamespace(quote_ident(current_schema())) AND proname = ANY(%(functions)s))
        SELECT quote_ident(n.nspname), n.nspowner::regrole::text, o.owner::regrole::text, count(*)
        FROM object o JOIN pg_namespace n ON n.nspname = current_schema() WHERE o.owner <> n.nspowner
        GROUP BY 1, 2, 3 ORDER BY 4 DESC
        """,
        {"ours": ours, "functions": [one.name for one in sources.functions]},
    ).fetchall():
        objects = counted(number, "table or function", "tables and functions")
        detail = f"the schema belongs to {owner}, and {objects} in it to {other}"
        yield Difference(schema, detail, "One role must own all.", f"ALTER SCHEMA {schema} OWNER TO {other}")


# -- rights -------------------------------------------------------------------------------------------------------


def _grants(connection: Connection, place: Place) -> Iterator[Difference]:
    groups = set_up_groups(connection)
    named = list(groups_of(connection).values())
    if groups:
        wanted, given = expected_privileges(connection, groups), given_privileges(connection, groups)
        for role in groups.values():
            yield from _privileges(role, wanted - given, "GRANT", "lacks")
            yield from _privileges(role, given - wanted, "REVOKE", "should not have")
    elif named:
        yield Difference(
            place.schema,
            f"its roles ({', '.join(named)}) have no right in it, as after a restore without privileges",
            'Drop them (DROP ROLE "…"), and give the rights again: revector db grant ROLE RIGHT',
            severity="warning",
        )
    schema, extension = sql.Identifier(place.schema), sql.Identifier(place.pgvector)
    for (role,) in connection.execute(
        "SELECT rolname::text FROM pg_roles WHERE rolname = ANY(%s) AND NOT has_schema_privilege(oid, %s, 'USAGE')",
        [list(groups.values()), place.pgvector],
    ).fetchall():
        fix = sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(extension, sql.Identifier(role)).as_string()
        yield Difference(place.pgvector, f"{role} may not use the schema that pgvector is in", "Allow it.", fix)
    for (role,) in connection.execute(
        """
        SELECT DISTINCT r.rolname::text FROM pg_namespace n CROSS JOIN aclexplode(n.nspacl) AS a
        JOIN pg_roles r ON r.oid = a.grantee
        WHERE n.nspname = current_schema() AND r.rolname LIKE 'revector:%%' AND r.rolname <> ALL(%s)
        """,
        [named],
    ).fetchall():
        fix = sql.SQL("REVOKE ALL ON SCHEMA {} FROM {}").format(schema, sql.Identifier(role)).as_string()
        detail = f"{role}, a role of another collection, has rights in it, as after a restore under another name"
        remedy = "Revoke them, and give rights here: revector db grant ROLE RIGHT"
        yield Difference(place.schema, detail, remedy, fix, severity="warning")


def _privileges(
    role: str, differing: set[Privilege], verb: Literal["GRANT", "REVOKE"], problem: str
) -> Iterator[Difference]:
    found = sorted(one for one in differing if one.role == role)
    if found:
        rest = f" and {len(found) - 3:,} more" if len(found) > 3 else ""
        detail = f"{role} {problem} {', '.join(map(str, found[:3]))}{rest}"
        yield Difference(role, detail, repair=";\n".join(one.statement(verb).as_string() for one in found))
