"""The schema: made from the models, and the SQL of the source pattern runs against it as people write it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from revector.core.chunks import content_sha256
from revector.core.database import Connection, Database, require_schema
from revector.core.errors import RefusedError, UnreachableError
from revector.core.migrations import alembic_config, upgrade
from revector.core.migrations._run import alchemy_connection
from revector.core.models import Base, is_version_table, version_model
from revector.core.registry import active_version, get_version
from revector.core.revisions import HEAD, revision_order
from tests.versions import NUMBERS, add, add_chunks, backfill, ready_version

# The tables of the source pattern, in its own words.
PATTERN_TABLES = """
CREATE TABLE document_chunks (
id bigserial PRIMARY KEY,
semantic_key text NOT NULL UNIQUE,
document_id uuid NOT NULL,
chunk_no int NOT NULL,
content text NOT NULL,
content_sha256 bytea NOT NULL,
created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE embedding_versions (
id bigserial PRIMARY KEY,
version_key text NOT NULL UNIQUE,
encoder_name text NOT NULL,
encoder_revision text NOT NULL,
dimensions int NOT NULL,
distance_metric text NOT NULL CHECK (distance_metric IN ('cosine', 'l2', 'ip')),
active boolean NOT NULL DEFAULT false,
created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE chunk_embeddings (
chunk_id bigint NOT NULL REFERENCES document_chunks(id) ON DELETE CASCADE,
embedding_version_id bigint NOT NULL REFERENCES embedding_versions(id) ON DELETE CASCADE,
embedding vector(1536) NOT NULL,
PRIMARY KEY (chunk_id, embedding_version_id)
);
"""

PATTERN_REGISTER = """
INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, distance_metric)
VALUES ('embed-v2026-03', 'text-embedding-3-large-next', '2026-03-01', 1536, 'cosine')
ON CONFLICT (version_key) DO NOTHING;
"""

PATTERN_MISSING = """
WITH target AS (SELECT id FROM embedding_versions WHERE version_key = 'embed-v2026-03')
SELECT dc.id, dc.semantic_key, dc.content
FROM document_chunks dc
WHERE NOT EXISTS (
SELECT 1 FROM chunk_embeddings ce, target t
WHERE ce.chunk_id = dc.id AND ce.embedding_version_id = t.id
) ORDER BY dc.id LIMIT 1000;
"""

PATTERN_FLIP = """
UPDATE embedding_versions SET active = CASE WHEN version_key = 'embed-v2026-03' THEN true ELSE false END;
"""


def columns(connection: Connection, table: str) -> set[tuple[str, str, bool]]:
    rows = connection.execute(
        """
        SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
        WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped
        """,
        [table],
    ).fetchall()
    return {(row[0], row[1], row[2]) for row in rows}


def test_autogenerate_finds_nothing(database: Database, connection: Connection) -> None:
    ready_version(database, connection, "v1")  # its table must be left alone
    with alchemy_connection(database) as alchemy:
        context = MigrationContext.configure(
            alchemy,
            opts={
                "compare_type": True,
                "compare_server_default": True,
                "include_object": lambda _o, name, kind, *_: not (kind == "table" and is_version_table(name)),
            },
        )
        assert compare_metadata(context, Base.metadata) == []


def test_models_and_revisions_make_the_same_constraints_and_indexes(database: Database) -> None:
    """Autogenerate looks neither at exclusion and check constraints nor at what an index is on."""
    definitions = """
        SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = to_regnamespace(quote_ident(current_schema())) AND conrelid <> 0
        UNION ALL
        SELECT tablename, replace(indexdef, quote_ident(schemaname) || '.', '') FROM pg_indexes
        WHERE schemaname = current_schema()
    """
    with alchemy_connection(database) as alchemy:
        raw = alchemy.connection.driver_connection
        assert raw is not None
        by_revisions = {row for row in raw.execute(definitions).fetchall() if "alembic" not in row[0]}
        raw.execute("CREATE SCHEMA by_models")
        raw.execute("SET search_path = by_models, public")
        Base.metadata.create_all(alchemy)
        assert {tuple(row) for row in raw.execute(definitions).fetchall()} == by_revisions
        assert len(by_revisions) > 30
        alchemy.rollback()


def test_head_is_the_newest_revision() -> None:
    assert ScriptDirectory.from_config(alembic_config()).get_heads() == [HEAD]
    assert revision_order()[-1] == HEAD


def test_upgrade_twice_changes_nothing_and_says_where_it_was(database: Database) -> None:
    assert upgrade(database) == HEAD


def test_a_collection_of_the_first_revision_is_brought_up_with_its_rows(empty_database: Database) -> None:
    with alchemy_connection(empty_database) as alchemy:
        raw = alchemy.connection.driver_connection
        assert raw is not None
        raw.execute(f"CREATE SCHEMA {empty_database.schema}")
        config = alembic_config()
        config.attributes["connection"] = alchemy
        command.upgrade(config, "0001")
        alchemy.commit()
    with empty_database.connect("test") as connection:
        version = connection.execute(PATTERN_REGISTER.replace(";", " RETURNING id")).fetchone()[0]  # type: ignore[index]
        connection.execute("UPDATE embedding_versions SET state = 'backfilling'")
        add_chunks(connection, [*NUMBERS, NUMBERS[3]])
        connection.execute(
            "INSERT INTO backfill_jobs (embedding_version_id, state, total) VALUES (%s, 'paused', 16)", [version]
        )
        assert upgrade(empty_database) == "0001"
        waiting = connection.execute(
            "SELECT sum(delta)::int FROM row_counts WHERE scope = %s", [-version]
        ).fetchone()
        assert waiting == (len(NUMBERS) + 1,)
        repeated = connection.execute("SELECT content_sha256 FROM repeated_texts").fetchall()
        assert repeated == [(content_sha256(NUMBERS[3]),)]
        connection.execute("UPDATE backfill_jobs SET state = 'running'")
        log = connection.execute("SELECT from_state, to_state FROM backfill_transitions").fetchall()
        assert log == [("paused", "running")]
        require_schema(connection, empty_database.schema)


def test_two_upgrades_at_once_make_one_schema(empty_database: Database) -> None:
    with ThreadPoolExecutor(2) as pool:
        before = list(pool.map(upgrade, [empty_database, empty_database]))
    assert sorted(before) == ["", HEAD]


def test_a_schema_that_is_missing_behind_or_ahead_is_named(empty_database: Database, database: Database) -> None:
    with empty_database.connect("test") as connection, pytest.raises(UnreachableError, match="not been set up"):
        require_schema(connection, empty_database.schema)
    with database.connect("test") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(UnreachableError, match="newer one"):
            require_schema(connection, database.schema)
        with pytest.raises(UnreachableError, match="newer one"):
            upgrade(database)


def test_an_upgrade_in_read_only_mode_is_refused(empty_database: Database) -> None:
    database = Database(empty_database.dsn, empty_database.schema, read_only=True)
    with pytest.raises(RefusedError, match="read-only"):
        upgrade(database)


def test_the_tables_have_the_columns_of_the_pattern(connection: Connection) -> None:
    with connection.transaction(force_rollback=True):
        ours = {t: columns(connection, t) for t in ("document_chunks", "embedding_versions")}
        view = columns(connection, "chunk_embeddings")
        connection.execute("CREATE SCHEMA pattern")
        connection.execute("SET LOCAL search_path = pattern, public")
        connection.execute(PATTERN_TABLES)
        for table, ours_of_it in ours.items():
            assert columns(connection, table) <= ours_of_it
        assert {name for name, *_ in columns(connection, "chunk_embeddings")} == {name for name, *_ in view}


def test_the_sql_of_the_pattern_runs_as_written(database: Database, connection: Connection) -> None:
    ids = add_chunks(connection, NUMBERS)
    ready_version(database, connection, "embed-v2026-02")
    connection.execute("UPDATE embedding_versions SET active = (version_key = 'embed-v2026-02')")

    connection.execute(PATTERN_REGISTER)
    connection.execute(PATTERN_REGISTER)
    version = get_version(connection, "embed-v2026-03")
    assert (version.state, version.active, version.encoder_spec) == ("registered", False, "")
    assert [row[0] for row in connection.execute(PATTERN_MISSING).fetchall()] == ids

    with pytest.raises(psycopg.errors.RaiseException, match="never complete"):
        connection.execute(PATTERN_FLIP)

    from revector.core.registry import create_table

    create_table(connection, version)
    with connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {version.table_name} VALUES (%s, %s::vector)",  # noqa: S608
            [(chunk, str([1.0] * 1536)) for chunk in ids],
        )
    connection.execute(
        "UPDATE embedding_versions SET completed_at = now(), state = 'ready' WHERE id = %s", [version.id]
    )
    assert connection.execute(PATTERN_MISSING).fetchall() == []
    back = PATTERN_FLIP.replace("2026-03", "2026-02")
    for flip, active in (
        (PATTERN_FLIP, "embed-v2026-03"),
        (back, "embed-v2026-02"),
        (PATTERN_FLIP, "embed-v2026-03"),
    ):
        connection.execute(flip)
        now = active_version(connection)
        assert now is not None
        assert now.version_key == active


def test_a_flip_to_a_mistyped_key_changes_nothing(database: Database, connection: Connection) -> None:
    add_chunks(connection, NUMBERS)
    ready_version(database, connection, "v1")
    connection.execute("UPDATE embedding_versions SET active = (version_key = 'v1')")
    with pytest.raises(psycopg.errors.RaiseException, match="No embedding version would be active") as caught:
        connection.execute(PATTERN_FLIP)
    assert "v1" in (caught.value.diag.message_hint or "")
    assert active_version(connection) == get_version(connection, "v1")
    with pytest.raises(psycopg.errors.RaiseException, match="No embedding version would be active"):
        connection.execute("DELETE FROM embedding_versions")


def test_two_versions_cannot_be_active(database: Database, connection: Connection) -> None:
    add_chunks(connection, NUMBERS)
    ready_version(database, connection, "v1")
    ready_version(database, connection, "v2")
    with pytest.raises(psycopg.errors.ExclusionViolation):
        connection.execute("UPDATE embedding_versions SET active = true")


def test_a_flip_from_psql_is_logged_and_notified(database: Database, connection: Connection) -> None:
    add_chunks(connection, NUMBERS)
    ready_version(database, connection, "v1")
    with database.connect("listener") as listener:
        listener.execute("LISTEN revector")
        connection.execute("UPDATE embedding_versions SET active = (version_key = 'v1')")
        notice = next(listener.notifies(timeout=30, stop_after=1))
    assert notice.payload == f'{{"schema" : "{database.schema}", "active" : "v1"}}'
    row = connection.execute(
        "SELECT action, version_key, outcome, detail FROM audit_log ORDER BY id DESC"
    ).fetchone()
    assert row == ("flip", "v1", "done", {"from": None, "to": "v1"})


@pytest.mark.parametrize(
    "statement", ["DELETE FROM audit_log", "UPDATE audit_log SET actor = ''", "TRUNCATE audit_log"]
)
def test_the_log_is_append_only(connection: Connection, statement: str) -> None:
    add(connection, "v1")
    with pytest.raises(psycopg.errors.RaiseException, match="append only"):
        connection.execute(statement)  # type: ignore[arg-type]


def test_a_chunk_never_changes(connection: Connection) -> None:
    add_chunks(connection, ["one"])
    with pytest.raises(psycopg.errors.RaiseException, match="never changes"):
        connection.execute("UPDATE document_chunks SET content = 'two'")
    connection.execute("UPDATE document_chunks SET metadata = '{\"a\": 1}'")


def test_deleted_chunks_leave_every_version_before_and_after_the_proof(
    database: Database, connection: Connection
) -> None:
    ids = add_chunks(connection, NUMBERS)
    proven, unproven = ready_version(database, connection, "v1"), add(connection, "v2")
    connection.execute(
        f"INSERT INTO {unproven.table_name} SELECT chunk_id, embedding FROM {proven.table_name}"  # noqa: S608
    )
    connection.execute("DELETE FROM document_chunks WHERE id = ANY(%s)", [ids[:4]])
    rows = connection.execute(
        "SELECT embedding_version_id, count(*) FROM chunk_embeddings GROUP BY 1 ORDER BY 1"
    ).fetchall()
    assert rows == [(proven.id, len(ids) - 4), (unproven.id, len(ids) - 4)]


def test_a_text_that_comes_again_is_known_as_repeated(connection: Connection) -> None:
    add_chunks(connection, ["one", "two", "two", "three"])
    add_chunks(connection, ["three", "four"])
    add_chunks(connection, ["three", "two"])
    rows = connection.execute("SELECT content_sha256 FROM repeated_texts ORDER BY id").fetchall()
    assert rows == [(content_sha256("two"),), (content_sha256("three"),)]
    connection.execute(
        """
        INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256)
        SELECT 'key-' || n, gen_random_uuid(), n, 'five', sha256('five') FROM generate_series(1, 3) AS n
        """
    )
    assert connection.execute("SELECT content_sha256 FROM repeated_texts ORDER BY id").fetchall() == [
        *rows,
        (content_sha256("five"),),
    ]


def test_writers_of_the_same_texts_do_not_wait_for_each_other(database: Database, connection: Connection) -> None:
    add_chunks(connection, ["one", "two"])
    with database.connect("test") as other:
        other.execute("SET lock_timeout = '5s'")
        with connection.transaction(), other.transaction():
            add_chunks(connection, ["one"])
            add_chunks(other, ["two", "one"])
            add_chunks(connection, ["two"])
    found = connection.execute("SELECT count(DISTINCT content_sha256) FROM repeated_texts").fetchone()
    assert found == (2,)


def test_new_chunks_reach_live_versions_only(database: Database, connection: Connection) -> None:
    add_chunks(connection, ["one"])
    live, _registered = ready_version(database, connection, "v1"), add(connection, "v2")
    (new,) = add_chunks(connection, ["two"])
    assert connection.execute("SELECT embedding_version_id, chunk_id FROM chunk_outbox").fetchall() == [
        (live.id, new)
    ]
    backfill(database, live)
    assert connection.execute("SELECT count(*) FROM chunk_outbox").fetchone() == (0,)


def test_a_version_table_maps_to_a_model(database: Database, connection: Connection) -> None:
    from sqlalchemy import select

    ids = add_chunks(connection, NUMBERS)
    version = ready_version(database, connection, "v1")
    model = version_model(version.id, version.dimensions)
    with alchemy_connection(database) as alchemy:
        found = alchemy.execute(select(model.chunk_id).order_by(model.chunk_id)).scalars().all()  # type: ignore[attr-defined]
    assert found == ids
