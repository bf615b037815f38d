"""A schema that is not as revector made it: the doctor names what differs, and an upgrade mends what it can."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from revector.core.database import Connection, Database, fetch_column
from revector.core.doctor import Finding, examine
from revector.core.errors import RefusedError, UnreachableError
from revector.core.migrations import repair, upgrade
from revector.core.migrations.drift import differences
from revector.core.registry import Version
from revector.core.settings import Settings
from revector.screens.frame.snapshots import SnapshotReader
from tests.console.cli.program import Revector
from tests.core.test_roles import Collection, with_roles
from tests.faults.watch import wait_until
from tests.roles import login_roles

PICTURE = """
    SELECT 'function' AS what, pg_get_functiondef(oid) AS it,
           (SELECT array_agg(a ORDER BY a) FROM unnest(coalesce(proacl, acldefault('f', proowner))::text[]) AS a)::text
    FROM pg_proc WHERE pronamespace = {schema}
    UNION ALL SELECT 'trigger', pg_get_triggerdef(t.oid), tgenabled::text
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE NOT tgisinternal AND relnamespace = {schema}
    UNION ALL SELECT 'constraint ' || conrelid::regclass, conname || pg_get_constraintdef(oid), ''
    FROM pg_constraint WHERE connamespace = {schema} AND conrelid <> 0
    UNION ALL SELECT 'index', indexdef, '' FROM pg_indexes WHERE schemaname = current_schema()
    UNION ALL SELECT 'relation ' || relname, coalesce(pg_get_viewdef(oid), ''),
           (SELECT array_agg(a ORDER BY a) FROM unnest(coalesce(relacl, acldefault('r', relowner))::text[]) AS a)::text
    FROM pg_class WHERE relnamespace = {schema} AND relkind IN ('r', 'v')
    UNION ALL SELECT 'column ' || relname || '.' || attname,
           format_type(atttypid, atttypmod) || attnotnull || coalesce(pg_get_expr(adbin, adrelid), ''),
           (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(attacl) AS a)::text
    FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND adnum = attnum
    WHERE relnamespace = {schema} AND relkind IN ('r', 'v')
""".replace("{schema}", "to_regnamespace(quote_ident(current_schema()))")
"""Everything in a schema that a repair may have to make again."""


def picture(connection: Connection) -> set[tuple[str, ...]]:
    return set(connection.execute(PICTURE.encode()).fetchall())


def of_schema(database: Database) -> list[Finding]:
    return [one for one in examine(database, Settings()).findings if one.check == "schema"]


@pytest.fixture
def collection(database: Database) -> Collection:
    with with_roles(database) as found:
        yield found


def test_nothing_differs_in_a_schema_that_is_used(collection: Collection) -> None:
    with collection.database.session("test") as connection:
        assert differences(connection) == []
        assert repair(collection.database) == []
    assert [one.severity for one in of_schema(collection.database)] == ["ok"]
    with collection.as_role("viewer") as viewer:
        assert differences(viewer) == []


EVERYTHING = {
    "functions": """
        SELECT format('DROP FUNCTION %s CASCADE', oid::regprocedure) FROM pg_proc
        WHERE pronamespace = to_regnamespace(quote_ident(current_schema()))
    """,
    "triggers": """
        SELECT format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass)
        FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid
        WHERE NOT tgisinternal AND relnamespace = to_regnamespace(quote_ident(current_schema()))
    """,
    "disabled triggers": """
        SELECT format('ALTER TABLE %s DISABLE TRIGGER ALL', oid::regclass) FROM pg_class
        WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind = 'r'
    """,
    "constraints": """
        SELECT format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE', conrelid::regclass, conname)
        FROM pg_constraint JOIN pg_class c ON c.oid = conrelid
        WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND contype IN ('c', 'f', 'u', 'x', 'p')
          AND relname !~ '_[0-9]+$' AND relname <> 'revector_revision'
    """,
    "indexes": """
        SELECT format('DROP INDEX %s', i.indexrelid::regclass) FROM pg_index i JOIN pg_class c ON c.oid = indrelid
        WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relname !~ '_[0-9]+$'
          AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)
    """,
    "settings of functions": """
        SELECT format('ALTER FUNCTION %s %s RESET ALL', oid::regprocedure,
                      CASE WHEN prosecdef THEN 'SECURITY INVOKER' ELSE 'SECURITY DEFINER' END)
        FROM pg_proc WHERE pronamespace = to_regnamespace(quote_ident(current_schema())) AND prosqlbody IS NULL
    """,
    "rights of roles": """
        SELECT format('REVOKE ALL ON %s FROM %I', oid::regclass, {role}) FROM pg_class
        WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'v', 'S')
    """,
    "too many rights": """
        SELECT format('GRANT UPDATE, TRUNCATE ON %s TO %I', oid::regclass, {role}) FROM pg_class
        WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'v')
        UNION ALL
        SELECT format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC, %I', oid::regprocedure, {role}) FROM pg_proc
        WHERE pronamespace = to_regnamespace(quote_ident(current_schema()))
          AND NOT has_function_privilege('public', oid, 'EXECUTE')
    """,
    "defaults": """
        SELECT format('ALTER TABLE %s ALTER %I DROP DEFAULT', c.oid::regclass, attname)
        FROM pg_class c JOIN pg_attribute ON attrelid = c.oid JOIN pg_attrdef d ON adrelid = c.oid AND adnum = attnum
        WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND attgenerated = ''
          AND pg_get_expr(adbin, adrelid) !~ '^nextval'
    """,
    "nulls": """
        SELECT format('ALTER TABLE %s ALTER %I DROP NOT NULL', c.oid::regclass, attname)
        FROM pg_class c JOIN pg_attribute ON attrelid = c.oid AND attnum > 0 AND attnotnull
        WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind = 'r'
          AND relname !~ '_[0-9]+$' AND relname <> 'revector_revision'
          AND NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = c.oid AND contype = 'p' AND attnum = ANY(conkey))
    """,
    "the view": "SELECT 'DROP VIEW chunk_embeddings'",
}


@pytest.mark.parametrize("lost", list(EVERYTHING))
def test_what_can_be_made_again_is_named_and_an_upgrade_makes_it(collection: Collection, lost: str) -> None:
    database = collection.database
    with database.session("test") as connection:
        before = picture(connection)
        role = sql.Literal(f"revector:{connection.info.dbname}/{database.schema}:operator").as_string()
        for statement in fetch_column(connection, EVERYTHING[lost].replace("{role}", role).encode()):  # type: ignore[arg-type]
            connection.execute(statement.encode())
        assert picture(connection) != before
        found = of_schema(database)
        assert {(one.severity, one.remedy) for one in found} == {("error", "revector db upgrade")}
        assert repair(database)
        assert picture(connection) == before
        assert [one.severity for one in of_schema(database)] == ["ok"]


def test_a_renamed_schema_is_mended(database: Database, two: tuple[Version, Version]) -> None:
    """Functions name their schema; tables and views follow it."""
    with database.session("test") as connection:
        connection.execute(
            sql.SQL('ALTER SCHEMA {} RENAME TO "it\'s new"').format(sql.Identifier(database.schema))
        )
    renamed = replace(database, schema="it's new")
    (finding,) = [one for one in of_schema(renamed) if "function" in one.detail]
    assert finding.detail.endswith("more: the function is not this release's")
    repair(renamed)
    with renamed.session("test") as connection:
        assert differences(connection) == []
        assert connection.execute(
            "SELECT count(*) FROM search_chunks((SELECT embedding FROM chunk_embeddings LIMIT 1), 3, 'v1')"
        ).fetchone() == (3,)


@pytest.mark.parametrize(
    ("damage", "named", "detail", "statement"),
    [
        ("DROP TABLE shadows CASCADE", "shadows", "the table is missing", ""),
        (
            "ALTER TABLE word_counts RENAME TO word_counts_old",
            "word_counts",
            "the table is missing; word_counts_old has its columns",
            'ALTER TABLE "word_counts_old" RENAME TO "word_counts"',
        ),
        ("ALTER TABLE queries DROP COLUMN segment", "queries.segment", "the column is missing", ""),
        (
            "ALTER TABLE document_chunks RENAME COLUMN source_id TO origin",
            "document_chunks.source_id",
            "the column is missing; origin has its type",
            'ALTER TABLE "document_chunks" RENAME COLUMN "origin" TO "source_id"',
        ),
        (
            "ALTER TABLE queries ALTER query_id TYPE varchar(9)",
            "queries.query_id",
            "the column is character varying(9), not text",
            "ALTER TABLE queries ALTER query_id TYPE text",
        ),
        (
            "ALTER TABLE document_chunks ALTER content_tsv DROP EXPRESSION",
            "document_chunks.content_tsv",
            "the column is no longer filled by the database",
            "",
        ),
        (
            "DROP TABLE chunk_embeddings_1 CASCADE",
            "chunk_embeddings_1",
            "the table of version v1 is missing",
            "",
        ),
        (
            "ALTER TABLE chunk_embeddings_1 RENAME TO vectors_of_yesterday",
            "chunk_embeddings_1",
            "the table of version v1 is missing; vectors_of_yesterday has its columns",
            'ALTER TABLE "vectors_of_yesterday" RENAME TO "chunk_embeddings_1"',
        ),
        (
            "ALTER TABLE chunk_embeddings_1 RENAME COLUMN embedding TO vector",
            "chunk_embeddings_1.embedding",
            "the column of version v1 is missing; vector has its type",
            'ALTER TABLE "chunk_embeddings_1" RENAME COLUMN "vector" TO "embedding"',
        ),
    ],
)
def test_what_only_people_can_mend_is_named_with_what_to_do(
    database: Database, two: tuple[Version, Version], damage: str, named: str, detail: str, statement: str
) -> None:
    with database.session("test") as connection:
        connection.execute(damage.encode())
    (finding,) = [one for one in of_schema(database) if one.object == named]
    assert (finding.severity, finding.detail, finding.sql) == ("error", f"{named}: {detail}", statement)
    assert finding.remedy
    assert "db upgrade" not in finding.remedy
    with pytest.raises(RefusedError, match=re.escape(f"{named}: {detail}")):
        repair(database)
    if statement and "TYPE" not in statement:
        with database.session("test") as connection:
            connection.execute(statement.encode())
        repair(database)
        assert examine(database, Settings()).ok


def test_a_collection_that_lost_its_revision_is_not_taken_for_a_foreign_one(database: Database) -> None:
    with database.connect("test") as connection:
        connection.execute("DROP TABLE revector_revision")
    with pytest.raises(UnreachableError, match="revector_revision is missing or empty") as lost:
        upgrade(database)
    (finding,) = of_schema(database)
    assert finding.remedy == lost.value.remedy
    statements = finding.remedy.partition(": ")[2].partition(". Then")[0]
    with database.connect("test") as connection:
        connection.execute(statements.encode())
    assert examine(database, Settings()).ok


def test_objects_of_another_owner_and_leftover_roles_are_named(collection: Collection) -> None:
    database = collection.database
    with database.session("test") as connection, login_roles(database, "other") as names:
        group = f"revector:elsewhere/{database.schema}:viewer"
        connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(group)))
        try:
            schema = sql.Identifier(database.schema)
            connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, sql.Identifier(group)))
            connection.execute(
                sql.SQL("ALTER FUNCTION is_owner() OWNER TO {}").format(sql.Identifier(names["other"]))
            )
            found = {one.detail for one in of_schema(database)}
            assert any(f"1 table or function in it to {names['other']}" in detail for detail in found), found
            assert any(f"{group}, a role of another collection" in detail for detail in found), found
        finally:
            connection.execute(sql.SQL("ALTER FUNCTION is_owner() OWNER TO CURRENT_USER"))
            connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(group)))


DAMAGES = {
    "no use of pgvector's schema": "",
    "the active version's table dropped": "DROP TABLE chunk_embeddings_1 CASCADE",
    "the active version's table renamed": "ALTER TABLE chunk_embeddings_1 RENAME TO mine",
    "its column renamed": "ALTER TABLE chunk_embeddings_1 RENAME COLUMN embedding TO vector",
    "a column of the chunks renamed": "ALTER TABLE document_chunks RENAME COLUMN content TO words",
    "a column of the versions renamed": "ALTER TABLE embedding_versions RENAME COLUMN notes TO remarks",
    "the chunks dropped": "DROP TABLE document_chunks CASCADE",
    "the log renamed": "ALTER TABLE audit_log RENAME TO journal",
    "functions dropped": "DROP FUNCTION rollback_target() CASCADE; DROP FUNCTION index_statement CASCADE",
    "the view dropped": "DROP VIEW chunk_embeddings",
}
COMMANDS = (
    ("search", "seven"),
    ("search", "seven", "--hybrid"),
    ("doctor",),
    ("compare", "seven", "--candidate", "v2"),
    ("backfill", "plan", "v1"),
    ("backfill", "status", "v1"),
    ("cutover", "check", "v2"),
    ("versions", "list"),
    ("versions", "show", "v1"),
    ("index", "check", "v1"),
    ("db", "status"),
    ("db", "roles"),
    ("log",),
    ("rollback", "--confirm", "v1"),
)


@pytest.mark.parametrize("damage", list(DAMAGES))
@pytest.mark.usefixtures("clean_environment")
def test_no_command_ends_in_a_traceback(
    database: Database, two: tuple[Version, Version], tmp_path: Path, damage: str
) -> None:
    with database.session("test") as connection, login_roles(database, "outsider") as names:
        dsn = database.dsn
        if DAMAGES[damage]:
            connection.execute(DAMAGES[damage].encode())
        else:
            role = sql.Identifier(names["outsider"])
            connection.execute("CREATE SCHEMA closed")
            connection.execute("ALTER EXTENSION vector SET SCHEMA closed")
            connection.execute(
                sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(database.schema), role)
            )
            for kind in ("TABLES", "SEQUENCES"):
                every = sql.SQL(f"GRANT ALL ON ALL {kind} IN SCHEMA {{}} TO {{}}")
                connection.execute(every.format(sql.Identifier(database.schema), role))
            dsn = make_conninfo(dsn, user=names["outsider"])
        revector = Revector(tmp_path, ("--dsn", dsn, "--schema", database.schema))
        for command in COMMANDS:
            result = revector.call(*command, status=None)
            assert "unexpected error" not in result.err, command
        assert re.search("^✗ +schema", revector.call("doctor", status=1).out, re.MULTILINE)
        snapshots = SnapshotReader(replace(database, dsn=dsn), Settings())
        snapshots.start()
        try:
            wait_until(
                "a reading", lambda: snapshots.latest.error is not None or snapshots.latest.overview is not None
            )
            error = snapshots.latest.error
            assert error is None or isinstance(error, UnreachableError), error
        finally:
            snapshots.stop()
