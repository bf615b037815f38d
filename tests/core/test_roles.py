"""What each role may do: tried by SQL and by the command line, as real roles of the server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import errors as pg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from revector.core import cutover, index, shadow
from revector.core.audit import entries
from revector.core.database import Connection, Database, fetch_one
from revector.core.encoders import Encoder, open_encoder
from revector.core.errors import RefusedError, UsageError
from revector.core.migrations import upgrade
from revector.core.models import Base
from revector.core.registry import active_version, drop_version, get_version, retire_version
from revector.core.retrieval import EncoderCache, Retriever
from revector.core.retrieval.counts import BUCKETS
from revector.core.roles import granting, kinds
from revector.core.roles.groups import group_name, groups_of
from revector.core.roles.kinds import (
    APPLICATION_READS,
    APPLICATION_WRITES,
    APPROVER_WRITES,
    OPERATOR_WRITES,
    OWNER_READS,
)
from revector.core.roles.rights import Rights, read_rights
from revector.core.settings import Settings
from tests.console.cli.conftest import write_corpus
from tests.console.cli.program import Revector
from tests.core.shadow.support import mirror_of
from tests.databases import copied
from tests.documents import rights_table
from tests.faults.watch import wait_until
from tests.roles import login_roles
from tests.versions import NUMBERS, add, add_chunks, backfill, ready_version

KINDS = tuple(kinds.KINDS)


@dataclass(frozen=True)
class Collection:
    """A collection, and roles of the server that log in: one a kind, and one that was given nothing."""

    database: Database
    names: dict[str, str]

    def of(self, kind: str) -> Database:
        """The collection as that role sees it."""
        return Database(make_conninfo(self.database.dsn, user=self.names[kind]), self.database.schema)

    @contextmanager
    def as_role(self, kind: str) -> Iterator[Connection]:
        """A session of that role."""
        with self.of(kind).session("test") as connection:
            yield connection


@contextmanager
def with_roles(pair: Database) -> Iterator[Collection]:
    """A copy of `pair`; each kind of role was given its right."""
    with pair.session("test") as connection, login_roles(pair, *KINDS, "nobody") as names:
        for kind in KINDS:
            granting.grant(connection, names[kind], kind)
        yield Collection(pair, names)


@pytest.fixture
def collection(database: Database) -> Iterator[Collection]:
    """A collection for one test alone."""
    with with_roles(database) as found:
        yield found


@pytest.fixture(scope="module")
def shared(pair: Database) -> Iterator[Collection]:
    """One for the tests that are refused everything, or only look."""
    with copied(pair) as database, with_roles(database) as found:
        yield found


@pytest.fixture
def owner(shared: Collection) -> Iterator[Connection]:
    """Its owner's connection."""
    with shared.database.session("test") as connection:
        yield connection


def refused(connection: Connection, statement: LiteralString | sql.Composed, params: Any = None) -> None:
    """Postgres itself says no."""
    with pytest.raises(pg.InsufficientPrivilege):
        connection.execute(statement, params)


# -- the table of rights -------------------------------------------------------------------------------------


def test_every_table_has_its_rights() -> None:
    """A table of a later revision must be in the table of rights too, or only the owner could write it."""
    named = {
        *OPERATOR_WRITES,
        *APPROVER_WRITES,
        *APPLICATION_WRITES,
        "revector_revision",
        "cutover_policy",
        "cutovers",
        "vector_losses",
        "backfill_proofs",
        "encoder_hosts",
        "locks",
        "word_statistics",
        "word_counts",
        *OWNER_READS,
    }
    assert named == {*Base.metadata.tables, "revector_revision"}
    assert {*APPLICATION_WRITES} < {*APPLICATION_READS}
    assert {*APPLICATION_READS} - {"chunk_embeddings"} < named


def test_nothing_more_was_granted(shared: Collection, owner: Connection) -> None:
    """From the catalogue, for every table: no role may truncate, or create triggers."""
    rows = owner.execute(
        """
        SELECT relname::text, r.kind, has_table_privilege(r.name, c.oid, p) AS has, p
        FROM pg_class c, unnest(%s::text[], %s::text[]) AS r(kind, name),
             unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) AS p
        WHERE c.relnamespace = to_regnamespace(quote_ident(%s)) AND c.relkind IN ('r', 'v')
        """,
        [list(shared.names), list(shared.names.values()), shared.database.schema],
    ).fetchall()
    has = {(table, kind, right) for table, kind, yes, right in rows if yes}
    versions = {f"chunk_embeddings_{get_version(owner, key).id}" for key in ("v1", "v2")}
    fixed = {table for table, *_ in rows} - versions
    assert not {one for one in has if one[1] == "nobody"}
    assert {table for table, kind, right in has if (kind, right) == ("viewer", "SELECT")} == (
        (fixed - {*OWNER_READS}) | versions
    )
    assert not {one for one in has if one[0] in OWNER_READS}
    # Also what it takes to lock a table: UPDATE of all columns, DELETE or MAINTAIN.
    assert {right for _, kind, right in has if kind in ("viewer", "approver")} == {"SELECT"}
    assert {right for _, kind, right in has if kind == "application"} == {"SELECT", "INSERT"}
    assert not {one for one in has if one[2] in ("TRUNCATE", "TRIGGER")}
    assert {(table, kind, right) for table, kind, right in has if table in versions and right != "SELECT"} == {
        (table, "operator", "INSERT") for table in versions
    }


def test_the_owner_owns_everything(shared: Collection, owner: Connection) -> None:
    """Nobody else's code can then run in the session of whoever reads, and nobody else creates anything."""
    schema = shared.database.schema
    owners = owner.execute(
        """
        WITH object AS (
            SELECT relowner AS owner FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(%(schema)s))
            UNION SELECT proowner FROM pg_proc WHERE pronamespace = to_regnamespace(quote_ident(%(schema)s))
            UNION SELECT nspowner FROM pg_namespace WHERE nspname = %(schema)s)
        SELECT DISTINCT rolname = current_user FROM object JOIN pg_roles r ON r.oid = object.owner
        """,
        {"schema": schema},
    ).fetchall()
    assert owners == [(True,)]
    for kind, name in shared.names.items():
        query = "SELECT has_schema_privilege(%s, %s, 'CREATE')"
        assert owner.execute(query, [name, schema]).fetchone() == (False,), kind


def test_the_page_has_the_rights_that_there_are(shared: Collection, owner: Connection) -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "security.md").read_text(encoding="utf-8")
    table = rights_table(owner, KINDS)
    assert table in page, f"The table in docs/security.md has to be:\n{table}"


def test_no_code_of_an_operator_gets_into_the_schema(shared: Collection) -> None:
    with shared.as_role("operator") as connection:
        table = get_version(connection, "v2").table
        connection.execute(
            "CREATE FUNCTION pg_temp.mine(bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1'"
        )
        for statement in (
            "ALTER TABLE {} ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY mine ON {} USING (pg_temp.mine(chunk_id) > 0)",
            "CREATE RULE mine AS ON INSERT TO {} DO ALSO SELECT pg_temp.mine(1)",
            "CREATE INDEX ON {} ((pg_temp.mine(chunk_id)))",
            "CREATE TRIGGER mine BEFORE INSERT ON {} EXECUTE FUNCTION refuse_audit_change()",
            "ALTER TABLE {} ADD CHECK (pg_temp.mine(chunk_id) > 0)",
            "ALTER TABLE {} ALTER chunk_id SET DEFAULT pg_temp.mine(1)",
            "ALTER TABLE {} RENAME TO other",
            "ALTER TABLE {} OWNER TO CURRENT_USER",
            "DROP TABLE {}",
            "UPDATE {} SET embedding = embedding",
            "DELETE FROM {}",
            "TRUNCATE {}",
        ):
            refused(connection, sql.SQL(statement).format(table))  # type: ignore[arg-type]
        for statement in (
            "CREATE FUNCTION version() RETURNS text LANGUAGE sql AS 'SELECT 1::text'",
            "CREATE OPERATOR || (LEFTARG = text, RIGHTARG = bigint, FUNCTION = pg_catalog.textanycat)",
            "CREATE TYPE text AS (a int)",
            "CREATE DOMAIN vector AS int",
            "CREATE VIEW mine AS SELECT 1",
            "CREATE TABLE mine (id int)",
            "CREATE AGGREGATE sum(bigint) (SFUNC = int8pl, STYPE = bigint)",
            "CREATE CAST (text AS bigint) WITH INOUT",
        ):
            refused(connection, statement)  # type: ignore[arg-type]


def test_a_vector_never_changes(collection: Collection, connection: Connection) -> None:
    """Not even by the owner, once its version was complete; it leaves with its chunk."""
    version = get_version(connection, "v2")
    for statement in ("UPDATE {} SET embedding = embedding", "DELETE FROM {} WHERE chunk_id = 1", "TRUNCATE {}"):
        with pytest.raises(pg.RaiseException, match=r"A vector never changes: .* version v2 is refused"):
            connection.execute(sql.SQL(statement).format(version.table))  # type: ignore[arg-type]
    unfilled = add(connection, "v3")
    vectors = sql.SQL("INSERT INTO {} SELECT chunk_id, embedding FROM {}")
    connection.execute(vectors.format(unfilled.table, get_version(connection, "v1").table))
    with pytest.raises(pg.RaiseException, match="A vector never changes: UPDATE"):
        connection.execute(sql.SQL("UPDATE {} SET embedding = embedding").format(unfilled.table))
    connection.execute(sql.SQL("DELETE FROM {}").format(unfilled.table))  # a load that went wrong
    connection.execute("DELETE FROM document_chunks WHERE content = 'one'")
    count = sql.SQL("SELECT count(*) FROM {}").format(version.table)
    assert connection.execute(count).fetchone() == (len(NUMBERS) - 1,)


def test_no_claim_of_an_operator_makes_a_version_complete(collection: Collection, connection: Connection) -> None:
    """Neither counters nor queues, dead or alive: the proof looks at the vectors."""
    with collection.as_role("operator") as operator:
        version = add(operator, "v3")
        operator.execute("SELECT begin_filling(%s)", [version.id])
        operator.execute("INSERT INTO row_counts (scope, delta) VALUES (%s, %s)", [version.id, len(NUMBERS)])
        for _ in range(2):  # the second finds all of them queued
            proof = operator.execute("SELECT missing, embedded FROM prove_version(%s)", [version.id])
            assert proof.fetchone() == (len(NUMBERS), 0)
        for statement in ("DELETE FROM chunk_outbox", "DELETE FROM chunk_outbox WHERE chunk_id = 1"):
            with pytest.raises(pg.RaiseException, match="Chunk 1 has no vector"):
                operator.execute(statement)
        # Once its letter is deleted, a chunk that failed is queued again.
        operator.execute(
            "INSERT INTO dead_letters (embedding_version_id, chunk_id, error) SELECT %s, id, '' FROM document_chunks",
            [version.id],
        )
        operator.execute("DELETE FROM chunk_outbox")
        operator.execute("DELETE FROM dead_letters")
        assert operator.execute("SELECT missing FROM prove_version(%s)", [version.id]).fetchone() == (
            len(NUMBERS),
        )
        for statement in (
            "INSERT INTO backfill_proofs (embedding_version_id, missing, embedded, dead_letters, seconds) "
            "SELECT max(id), 0, 16, 0, 1 FROM embedding_versions",
            "UPDATE embedding_versions SET proven_at = now()",
        ):
            refused(operator, statement)  # type: ignore[arg-type]
    assert get_version(connection, "v3").completed_at is None


def test_no_function_takes_code_of_others_for_its_own(shared: Collection, owner: Connection) -> None:
    """Functions that run automatically search only pg_catalog; no role may call those with the owner's rights."""
    rows = owner.execute(
        """
        SELECT proname::text, coalesce(proconfig, '{}'), prosecdef, prosrc, has_function_privilege(%s, p.oid, 'EXECUTE')
        FROM pg_proc p WHERE pronamespace = to_regnamespace(quote_ident(%s))
                         AND prosqlbody IS NULL -- whose names were looked up when it was made
        """,
        [shared.names["nobody"], shared.database.schema],
    ).fetchall()
    assert {name for name, _, definer, *_ in rows if definer} >= {"active_changed", "rebuild_chunk_embeddings"}
    tables = "|".join(Base.metadata.tables)
    unqualified = re.compile(rf"(?i)\b(?:FROM|JOIN|INTO|UPDATE)\s+(?:{tables})\b|\n\s+\w+\s+(?:{tables});")
    for name, settings, definer, source, public in rows:
        assert settings[0] == "search_path=pg_catalog, pg_temp", name
        assert not (definer and public), name
        assert not unqualified.search(source), name


def test_code_in_the_schema_never_runs_with_the_rights_of_the_owner(
    collection: Collection, connection: Connection
) -> None:
    """Arguments that fit better than those of the built-in function would make it the one that is called."""
    operator_name = sql.Identifier(collection.names["operator"])
    schema = sql.Identifier(collection.database.schema)
    connection.execute(
        sql.SQL("GRANT CREATE ON SCHEMA {} TO {}").format(schema, operator_name)
    )  # the owner's mistake
    with collection.as_role("operator") as operator:
        operator.execute("CREATE TABLE caught (who text)")
        for name, arguments, result in (
            ("make_interval", "secs numeric", "interval"),
            ("jsonb_build_object", "text, text, text, text", "jsonb"),
            ("format", "text, text, text", "text"),
            ("format", "text, bigint, bigint", "text"),
            ("json_build_object", "text, name, text, text", "json"),
            ("to_regclass", "varchar", "regclass"),
            ("count", "bigint", "bigint"),
        ):
            operator.execute(
                sql.SQL(
                    "CREATE FUNCTION {}({}) RETURNS {} LANGUAGE plpgsql AS "
                    "'BEGIN INSERT INTO caught VALUES (current_user); RETURN NULL; END'"
                ).format(sql.Identifier(name), sql.SQL(arguments), sql.SQL(result))  # type: ignore[arg-type]
            )
        operator.execute(cutover.FLIP, {"key": "v2"})
        operator.execute(
            "INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256) "
            "VALUES ('k', gen_random_uuid(), 0, 'x', '\\x00')"
        )
        operator.execute("SELECT record_refusal('x', 'y')")
        operator.execute("SELECT create_version_table(1), begin_filling(1), prove_version(1)")
        assert operator.execute("SELECT who FROM caught").fetchall() == []
        # A function with the owner's rights must not become a trigger on another role's table.
        refused(
            operator,
            "CREATE TRIGGER mine AFTER UPDATE ON caught REFERENCING OLD TABLE AS old_versions "
            "FOR EACH STATEMENT EXECUTE FUNCTION active_changed()",
        )


# -- viewer --------------------------------------------------------------------------------------------------


def test_a_viewer_reads_and_searches(shared: Collection) -> None:
    with shared.as_role("viewer") as connection:
        version = get_version(connection, "v1")
        for table in ({*Base.metadata.tables} - {*OWNER_READS}) | {"chunk_embeddings", version.table_name}:
            connection.execute(sql.SQL("SELECT * FROM {} LIMIT 1").format(sql.Identifier(table)))
        assert connection.execute("SELECT count(*) FROM chunk_embeddings").fetchone() == (2 * len(NUMBERS),)
        rights = read_rights(connection)
        assert rights == Rights(shared.names["viewer"], True, False, False, False)
        assert rights.word == "viewer"


def test_a_viewer_changes_nothing(shared: Collection) -> None:
    with shared.as_role("viewer") as connection:
        table = get_version(connection, "v1").table
        for name in Base.metadata.tables:
            refused(connection, sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
            refused(connection, sql.SQL("INSERT INTO {} DEFAULT VALUES").format(sql.Identifier(name)))
            refused(connection, sql.SQL("TRUNCATE {}").format(sql.Identifier(name)))
            refused(connection, sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
        refused(connection, cutover.FLIP, {"key": "v2"})
        refused(connection, sql.SQL("DELETE FROM {}").format(table))
        refused(connection, sql.SQL("CREATE INDEX ON {} (chunk_id)").format(table))
        refused(connection, "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        refused(connection, "SELECT rebuild_chunk_embeddings()")
        refused(connection, "SELECT setval(pg_get_serial_sequence('audit_log', 'id'), 1)")


def test_what_a_viewer_was_refused_is_in_the_log(collection: Collection, tmp_path: Path) -> None:
    viewer = revector_of(collection, "viewer", tmp_path)
    result = viewer.call("versions", "add", "v9", "--encoder", "static:wordllama-64", status=1)
    assert f"The role {collection.names['viewer']} may not do this: nothing was changed." in result.err
    assert f"revector db grant {collection.names['viewer']} operator" in result.err
    with collection.as_role("viewer") as connection:
        (entry,) = entries(connection, limit=1)
        assert (entry.actor, entry.action, entry.outcome) == (
            collection.names["viewer"],
            "versions add",
            "refused",
        )
        for _ in range(30):  # nobody can flood a log that cannot be emptied
            connection.execute("SELECT record_refusal(repeat('x', 1000), 'operator')")
        mine = [one for one in entries(connection, limit=100) if one.actor == collection.names["viewer"]]
        assert len(mine) == 10
        assert {len(one.action) for one in mine} == {100, len("versions add")}


def test_an_approver_is_told_what_the_role_may_not_do(shared: Collection, tmp_path: Path) -> None:
    approver = revector_of(shared, "approver", tmp_path)
    corpus = write_corpus(tmp_path / "corpus.jsonl")
    for command in (
        "versions add v9 --encoder static:wordllama-64",
        f"ingest {corpus}",
        "backfill run v2",
        "index drop v2",
        "cutover request v2 --reason better",
    ):
        result = approver.call(*command.split(), status=1)
        assert f"The role {shared.names['approver']} may not do this: nothing was changed." in result.err, command
        assert f"revector db grant {shared.names['approver']} operator" in result.err
    # To end a request is any role's that takes part in it.
    assert "There is no open request" in approver.call("cutover", "withdraw", "v2", status=1).err


@pytest.mark.parametrize("kind", ["viewer", "nobody", "approver"])
def test_who_may_not_flip_by_commands(shared: Collection, tmp_path: Path, kind: str) -> None:
    result = revector_of(shared, kind, tmp_path).call("cutover", "run", "v2", "--confirm", "v2", status=1)
    assert "may not do this" in result.err or "permission denied" in result.err
    with shared.database.session("test") as connection:
        assert active_version(connection) == get_version(connection, "v1")


def test_a_viewer_by_commands(shared: Collection, tmp_path: Path) -> None:
    viewer = revector_of(shared, "viewer", tmp_path)
    assert viewer.call("search", "two", "--json").document["version_key"] == "v1"
    assert viewer.call("compare", "two", "--json").document["candidate"]["version_key"] == "v2"
    assert "v1" in viewer.call("versions", "list").out
    assert "cutover" in viewer.call("log").out
    assert viewer.call("cutover", "check", "v2", "--json").document["ready"]
    assert viewer.call("db", "roles", "--json").document["rights"] == {
        "view": True, "operate": False, "approve": False, "administer": False,
    }  # fmt: skip
    for command in ("db grant {} operator", "backfill run v2", "ingest .", "versions retire v2", "index drop v2"):
        viewer.call(*command.format(shared.names["viewer"]).split(), status=1)


# -- operator ------------------------------------------------------------------------------------------------


def test_an_operator_does_the_whole_job_by_commands(collection: Collection, tmp_path: Path) -> None:
    operator = revector_of(collection, "operator", tmp_path)
    corpus = write_corpus(tmp_path / "corpus.jsonl")
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"_id": "q1", "text": "rotate an api key"}\n{"_id": "q2", "text": "bread"}\n')
    qrels = tmp_path / "qrels.tsv"
    qrels.write_text("query-id\tcorpus-id\tscore\nq1\tdoc-0\t1\nq2\tdoc-10\t1\n")
    assert operator.call("ingest", str(corpus), "--json").document["inserted"] == 12
    operator.call("versions", "add", "v3", "--encoder", "static:wordllama-256")
    for key in ("v1", "v2", "v3"):
        assert operator.call("backfill", "run", key, "--json").document["state"] == "done"
    assert operator.call("index", "check", "v3", "--json", status=1).document[
        "valid"
    ]  # a scan of 28 rows is faster
    operator.call("index", "drop", "v3")
    operator.call("index", "build", "v3")
    operator.call("queries", "import", "support", "--queries", str(queries), "--qrels", str(qrels))
    operator.call("evaluate", "support", "--candidate", "v3", "--json")
    assert "v3 is active (was v1)" in operator.call("cutover", "run", "v3", "--confirm", "v3").out
    assert "v1 is active (was v3)" in operator.call("rollback", "--confirm", "v1").out
    operator.call("versions", "retire", "v3", "--confirm", "v3")
    operator.call("versions", "drop", "v3", "--confirm", "v3")
    write_corpus(tmp_path / "corpus.jsonl", ["A text that was edited."])
    assert operator.call("ingest", str(corpus), "--json").document["deleted"] > 0
    with collection.as_role("viewer") as connection:
        mine = [one.action for one in entries(connection) if one.actor == collection.names["operator"]]
        assert mine[0] == "ingest"
        assert {"cutover", "rollback", "versions drop", "index build", "versions add"} <= set(mine)


def test_operators_share_the_tables_of_versions(collection: Collection, connection: Connection) -> None:
    """What one of them registers another one loads, indexes and drops; viewers and applications read it."""
    with login_roles(collection.database, "second") as names:
        granting.grant(connection, names["second"], "operator")
        second = Collection(collection.database, collection.names | names)
        with collection.as_role("operator") as first:
            version = add(first, "v3")
        backfill(second.of("second"), version)
        with second.as_role("second") as other:
            assert get_version(other, "v3").state == "loaded"
            assert index.build(other, version, Settings()).valid
            assert get_version(other, "v3").state == "ready"
        for kind in ("viewer", "application"):
            with collection.as_role(kind) as reader:
                count = sql.SQL("SELECT count(*) FROM {}").format(version.table)
                assert reader.execute(count).fetchone() == (len(NUMBERS),)
                in_view = "SELECT count(*) FROM chunk_embeddings WHERE embedding_version_id = %s"
                assert reader.execute(in_view, [version.id]).fetchone() == (len(NUMBERS),)
        connection.execute("DELETE FROM document_chunks WHERE content = 'zero'")  # the owner's, in all versions
        with second.as_role("second") as other:
            retire_version(other, "v3")
            drop_version(other, "v3")
        with collection.as_role("viewer") as reader:
            count = "SELECT count(*) FROM chunk_embeddings"
            assert reader.execute(count).fetchone() == (2 * (len(NUMBERS) - 1),)


def test_no_writer_of_chunks_waits_while_an_operator_builds_an_index(
    collection: Collection, tmp_path: Path
) -> None:
    """The build's transaction is kept open: all that it locks stays locked."""
    corpus = write_corpus(
        tmp_path / "corpus.jsonl", ["one"]
    )  # a text that has a vector, which an ingest carries over
    with collection.as_role("operator") as operator:
        version = add(operator, "v3")
    backfill(collection.of("operator"), version)
    with collection.as_role("operator") as building, collection.database.session("test") as writer:
        writer.execute("SET lock_timeout = '100ms'")
        building.execute("SELECT unkey_version_table(%s)", [version.id])
        with building.transaction():
            building.execute("SELECT build_index(%s, '64MB', 0)", [version.id])
            add_chunks(writer, ["late"])
            writer.execute("DELETE FROM document_chunks WHERE content IN ('late', 'two')")
            ingested = revector_of(collection, "operator", tmp_path).call("ingest", str(corpus), "--json").document
            assert ingested["inserted"] == 1
        stored = sql.SQL(
            "SELECT count(*) FROM {} e WHERE NOT EXISTS (SELECT FROM document_chunks c WHERE c.id = e.chunk_id)"
        )
        assert writer.execute(stored.format(version.table)).fetchone() == (1,), "of the deleted chunk 'two'"
        assert index.build(building, version, Settings()).valid
        assert writer.execute(stored.format(version.table)).fetchone() == (0,)
        backfill(collection.of("operator"), version)
        assert writer.execute(
            "SELECT count(*) FROM chunk_outbox WHERE embedding_version_id = %s", [version.id]
        ).fetchone() == (0,)
        assert writer.execute(sql.SQL("SELECT count(*) FROM {}").format(version.table)).fetchone() == (
            len(NUMBERS),
        )
        # From here on a build would hold up deletions, which reach the vectors at once.
        with pytest.raises(pg.RaiseException, match="follows its chunks at once"):
            building.execute("SELECT build_index(%s, '64MB', 0)", [version.id])
        index.drop(building, version)
        assert index.build(building, version, Settings()).valid
        # Nor does one hold up searches by the index that there is.
        building.execute("SELECT unkey_version_table(%s)", [version.id])
        with pytest.raises(pg.RaiseException, match="has an index"):
            building.execute("SELECT build_index(%s, '64MB', 0)", [version.id])
        writer.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass(%s)",
            [index.index_name(version)],
        )
        assert index.build(building, version, Settings()).valid  # over what an interrupted build left


FORGED = (
    "INSERT INTO audit_log (action, version_key, outcome, detail) VALUES ('cutover approve', 'v2', 'done', '{}')",
    "INSERT INTO audit_log (action, version_key, outcome, detail) VALUES ('cutover', 'v1', 'done', '{}')",
    "INSERT INTO audit_log (action, outcome) VALUES ('cutover policy', 'done')",
    "INSERT INTO audit_log (action, outcome) VALUES ('db grant', 'done')",
    "UPDATE cutover_requests SET ended = 'done'",
    "INSERT INTO evaluations (query_set_id, primary_run_id, candidate_run_id, primary_version, candidate_version, "
    "verdict, report) SELECT 1, 77, 78, 'v1', 'v2', 'pass', '{}'",
    "UPDATE evaluation_runs SET seconds = 0",
    "DELETE FROM evaluation_runs",
    "INSERT INTO evaluation_results SELECT id, 'q1', '{}', '{}', '{}', 1, 1 FROM evaluation_runs",
    "UPDATE embedding_versions SET encoder_name = 'another' WHERE version_key = 'v2'",
)


@pytest.mark.parametrize("statement", FORGED)
def test_no_claim_of_an_operator_is_taken_for_a_fact(shared: Collection, statement: LiteralString) -> None:
    with shared.as_role("operator") as connection, connection.transaction(force_rollback=True):
        requested(connection)
        connection.execute("INSERT INTO query_sets (name, created_by) VALUES ('s', 'the director')")
        connection.execute(
            "INSERT INTO evaluation_runs (query_set_id, query_set_revision, embedding_version_id, version_key, "
            "encoder, encoder_revision, k, exact, index_settings, chunks, queries, state, created_by) "
            "SELECT id, '', 1, 'v2', '', '', 10, true, '{}', 0, 0, 'done', 'the director' FROM query_sets"
        )
        authors = "SELECT created_by FROM query_sets UNION SELECT created_by FROM evaluation_runs"
        assert connection.execute(authors).fetchall() == [(shared.names["operator"],)]
        with pytest.raises((pg.RaiseException, pg.InsufficientPrivilege)), connection.transaction():
            connection.execute(statement)


def test_a_service_whose_role_was_given_nothing_is_told_so(shared: Collection) -> None:
    with (
        Retriever(shared.of("nobody")) as retriever,
        pytest.raises(RefusedError, match="no right in the schema") as refusal,
    ):
        retriever.search("seven")
    assert f"db grant {shared.names['nobody']} application" in refusal.value.remedy


def test_nobody_gets_a_right_on_a_table_of_another_program(shared: Collection) -> None:
    with shared.database.session("test") as connection, connection.transaction(force_rollback=True):
        connection.execute("CREATE TABLE of_another (id bigserial)")
        granting.renew_grants(connection)
        assert (
            connection.execute(
                "SELECT relname, relacl FROM pg_class WHERE relname ~ '^of_another' AND relacl IS NOT NULL"
            ).fetchall()
            == []
        )


def test_what_an_operator_may_not(shared: Collection) -> None:
    with shared.as_role("operator") as connection:
        fixed = {*Base.metadata.tables, "revector_revision"}
        for name in fixed:
            table = sql.Identifier(name)
            refused(connection, sql.SQL("TRUNCATE {}").format(table))
            refused(connection, sql.SQL("DROP TABLE {} CASCADE").format(table))
            refused(connection, sql.SQL("ALTER TABLE {} DISABLE TRIGGER ALL").format(table))
            refused(connection, sql.SQL("ALTER TABLE {} DISABLE RULE x").format(table))
            refused(
                connection,
                sql.SQL("CREATE TRIGGER t BEFORE INSERT ON {} EXECUTE FUNCTION refuse_audit_change()").format(
                    table
                ),
            )
        refused(connection, "DROP TRIGGER check_version ON embedding_versions")
        refused(connection, "SET session_replication_role = replica")
        refused(connection, "DROP FUNCTION audit_written() CASCADE")
        refused(connection, "CREATE OR REPLACE VIEW chunk_embeddings AS SELECT 1::bigint AS chunk_id")
        refused(connection, "UPDATE embedding_versions SET activated_at = now()")
        refused(connection, "UPDATE embedding_versions SET created_by = 'ada'")
        refused(connection, "UPDATE cutover_policy SET settings = '{}'")
        refused(connection, "INSERT INTO cutover_policy DEFAULT VALUES")
        refused(connection, "INSERT INTO cutover_approvals (request_id) VALUES (1)")
        refused(connection, "UPDATE cutovers SET made_by = 'ada'")
        refused(connection, "DELETE FROM cutovers")
        refused(connection, "UPDATE revector_revision SET version_num = '0001'")
        with pytest.raises(RefusedError, match="only the owner"):
            granting.grant(connection, shared.names["operator"], "approver")
        refused(
            connection,
            sql.SQL("GRANT {} TO {}").format(
                sql.Identifier(group_of(connection, "approver")), sql.Identifier(shared.names["operator"])
            ),
        )


def test_the_flip_of_psql(collection: Collection) -> None:
    """An operator's UPDATE is a cutover like any other; a mistyped key is refused by the trigger."""
    with collection.as_role("operator") as connection:
        connection.execute(cutover.FLIP, {"key": "v2"})
        with pytest.raises(pg.RaiseException, match="No embedding version would be active"):
            connection.execute(cutover.FLIP, {"key": "v22"})
        (entry,) = entries(connection, limit=1)
        assert (entry.actor, entry.action, entry.version_key) == (collection.names["operator"], "cutover", "v2")


# -- approver and application --------------------------------------------------------------------------------


def requested(connection: Connection) -> int:
    row = connection.execute(
        """
        INSERT INTO cutover_requests (embedding_version_id, reason, expires_at, basis)
        SELECT id, 'better', now(), '{}' FROM embedding_versions WHERE version_key = 'v2'
        RETURNING id
        """
    ).fetchone()
    assert row is not None
    return int(row[0])


APPROVE: LiteralString = (
    "INSERT INTO cutover_approvals (request_id, comment) VALUES (%s, 'good') RETURNING approved_by"
)


def test_an_approver_approves_and_does_not_flip(collection: Collection) -> None:
    with collection.as_role("operator") as operator:
        request = requested(operator)
    with collection.as_role("approver") as connection:
        assert read_rights(connection).word == "approver"
        assert connection.execute(APPROVE, [request]).fetchone() == (collection.names["approver"],)
        refused(connection, cutover.FLIP, {"key": "v2"})
        refused(
            connection, "INSERT INTO cutover_approvals (request_id, approved_by) VALUES (%s, 'ada')", [request]
        )
        refused(connection, "DELETE FROM cutover_approvals")
        refused(connection, "UPDATE cutover_requests SET ended = 'withdrawn'")
        connection.execute("SELECT withdraw_request(%s, 'no')", [request])
        refused(connection, "DELETE FROM document_chunks")
        refused(connection, "CREATE TABLE mine (id int)")


def test_nothing_is_approved_through_code_of_an_operator(collection: Collection, connection: Connection) -> None:
    """Where the owner has let somebody create: code that an approver's session would call approves nothing."""
    schema = sql.Identifier(collection.database.schema)
    allow = sql.SQL("GRANT CREATE ON SCHEMA {} TO {}").format(schema, sql.Identifier(collection.names["operator"]))
    connection.execute(allow)
    with collection.as_role("operator") as operator:
        request = requested(operator)
        operator.execute("CREATE FUNCTION version() RETURNS text LANGUAGE sql AS 'SELECT 1::text'")
    made = f"function version of {collection.names['operator']}"
    with collection.as_role("approver") as approver, pytest.raises(pg.RaiseException, match=made):
        approver.execute(APPROVE, [request])
    connection.execute(sql.SQL("DROP FUNCTION {}.version()").format(schema))
    with collection.as_role("approver") as approver:
        approver.execute(APPROVE, [request])


def test_an_application_searches_and_counts(collection: Collection, tmp_path: Path) -> None:
    assert revector_of(collection, "application", tmp_path).call("search", "two", "--json").document["hits"]
    with collection.as_role("application") as connection:
        version = get_version(connection, "v1")
        connection.execute(
            """
            INSERT INTO search_counts (embedding_version_id, at, process, searches, empty, errors, latencies)
            VALUES (%s, now(), 'me', 1, 0, 0, array_fill(0, '{160}'))
            ON CONFLICT (embedding_version_id, at, process) DO UPDATE SET searches = search_counts.searches + 1
            """,
            [version.id],
        )
        connection.execute("SELECT forget_search_counts(), forget_shadow_queries(1)")
        for table in ("audit_log", "judgements", "queries", "cutover_requests", "backfill_jobs"):
            refused(connection, sql.SQL("SELECT FROM {}").format(sql.Identifier(table)))
        for table in ("document_chunks", "embedding_versions", "shadows", version.table_name, "search_counts"):
            refused(connection, sql.SQL("TRUNCATE {}").format(sql.Identifier(table)))
            for mode in ("ACCESS EXCLUSIVE", "SHARE"):
                lock = sql.SQL("BEGIN; LOCK TABLE {} IN {} MODE").format(sql.Identifier(table), sql.SQL(mode))  # type: ignore[arg-type]
                refused(connection, lock)
                connection.rollback()
        for table in ("document_chunks", "embedding_versions", "shadows", version.table_name, "search_counts"):
            refused(connection, sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))


def test_a_service_opens_no_encoder_that_nobody_approved(collection: Collection, connection: Connection) -> None:
    """A version that an operator registers, fills and indexes alone; before it, one that is approved."""
    cutover.change_policy(connection, {"approvals": 1})
    with collection.as_role("operator") as operator:
        spec = "openai:m?base_url=http://127.0.0.1:1&dimensions=64&tokenizer=/tmp/pipe"
        operator.execute(
            "INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, "
            "distance_metric, encoder_spec) VALUES ('v3', 'openai:m', '1', 64, 'cosine', %s)",
            [spec],
        )
        version = get_version(operator, "v3")
        operator.execute("SELECT create_version_table(%(id)s), begin_filling(%(id)s)", {"id": version.id})
        operator.execute(
            sql.SQL("INSERT INTO {} SELECT * FROM chunk_embeddings_1").format(sql.Identifier(version.table_name))
        )
        operator.execute("SELECT prove_version(%s)", [version.id])
        index.build(operator, version, Settings())
        assert get_version(operator, "v3").state == "ready"
        request = requested(operator)
    with collection.as_role("approver") as approver:
        approver.execute(APPROVE, [request])
    opened: list[str] = []

    def opens(spec: str) -> Encoder:
        opened.append(spec)
        return open_encoder(spec)

    its = collection.of("application")
    encoders = EncoderCache(opens)
    with Retriever(its, encoders=encoders) as retriever:
        approved = get_version(connection, "v2")
        wait_until("the approved one is open", lambda: encoders.opened(approved) is not None)
        assert opened == [get_version(connection, "v1").encoder_spec, approved.encoder_spec]
        assert retriever.search("two", 1).hits
    with collection.as_role("application") as application:
        nexts = "SELECT next_versions() ORDER BY 1"
        assert application.execute(nexts).fetchall() == [(approved.id,), (None,)]
        connection.execute("UPDATE cutover_requests SET ended = 'withdrawn'")
        assert application.execute(nexts).fetchall() == [(None,)]
    cutover.change_policy(connection, {"approvals": 0})
    connection.execute(cutover.FLIP, {"key": "v2"})
    with collection.as_role("viewer") as viewer:  # the target of a rollback, and what may go live without approval
        assert viewer.execute(nexts).fetchall() == [(get_version(connection, "v1").id,), (version.id,)]


@pytest.mark.parametrize("kind", KINDS)
def test_only_applications_hash_queries_and_only_the_owner_reads_the_key(shared: Collection, kind: str) -> None:
    call = "SELECT octet_length(hash_query(sha256('seven')))"
    with shared.as_role(kind) as connection:
        refused(connection, "SELECT FROM query_key")
        refused(connection, "SELECT new_query_key()")
        if kind == "application":
            assert connection.execute(call).fetchone() == (32,)
        else:
            refused(connection, call)


@pytest.mark.parametrize(
    ("at", "searches", "empty", "errors", "latencies"),
    [
        ("infinity", 0, 0, 0, None),
        ("11000-01-01", 0, 0, 0, None),
        ("tomorrow", 0, 0, 0, None),
        ("now", 1, 0, -5, None),
        ("now", 2**63 - 1, 0, 0, None),
        ("now", 1, 2, 0, None),
        ("now", -1, 0, 0, None),
        ("now", 1, 0, 0, "{NULL,-1}"),
        ("now", 1, 0, 0, "{}"),
        ("now", 1, 0, 0, "[0:159]={" + ",".join(["1"] * 160) + "}"),
        ("now", 1, 0, 0, "{" + ",".join(["1"] * 159 + ["-1"]) + "}"),
        ("now", 1, 0, 0, "{" + ",".join(["1"] * 159 + ["NULL"]) + "}"),
    ],
)
def test_what_nobody_can_have_counted_is_refused(
    shared: Collection, at: str, searches: int, empty: int, errors: int, latencies: str | None
) -> None:
    statement = "INSERT INTO search_counts VALUES (%s, %s, 'me', %s, %s, %s, %s)"
    whole = "{" + ",".join(["1"] * BUCKETS) + "}"
    with shared.as_role("application") as connection, connection.transaction(force_rollback=True):
        version = get_version(connection, "v1").id
        connection.execute(statement, [version, "now", 1, 0, 1, whole])
    with shared.as_role("application") as connection, pytest.raises(pg.CheckViolation):
        connection.execute(statement, [version, at, searches, empty, errors, latencies or whole])


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("shadow_queries", "at", "infinity"),
        ("shadow_queries", "at", "0001-01-01 BC"),
        ("shadow_queries", "k", "0"),
        ("shadow_queries", "primary_keys", "{NULL}"),
        ("shadow_queries", "candidate_keys", "{{a},{b}}"),
        ("shadow_queries", "overlap", "NaN"),
        ("shadow_queries", "jaccard", "1.1"),
        ("shadow_queries", "rbo", "-0.1"),
        ("shadow_queries", "kendall_tau", "-2"),
        ("shadow_queries", "primary_ms", "infinity"),
        ("shadow_queries", "candidate_ms", "NaN"),
        ("shadow_counts", "done", "-1"),
        ("shadow_counts", "failed", str(2**63 - 1)),
        ("shadow_counts", "open_since", "-infinity"),
        ("shadow_counts", "updated_at", "infinity"),
        ("shadows", "retention_days", "NaN"),
        ("shadows", "retention_days", "1e308"),
        ("shadows", "sample", "NaN"),
        ("shadows", "started_at", "infinity"),
        ("shadows", "stopped_at", "infinity"),
    ],
)
def test_what_no_shadow_can_have_measured_is_refused(
    shared: Collection, owner: Connection, table: str, column: str, value: str
) -> None:
    """Of a row that is good otherwise, so that it is this value that is refused."""
    row = {
        "shadows": {"embedding_version_id": get_version(owner, "v2").id, "sample": "0.5"},
        "shadow_counts": {"process": "me"},
        "shadow_queries": {
            "primary_version": "v1", "k": "10", "primary_keys": "{a}", "candidate_keys": "{}", "overlap": "0",
            "jaccard": "0", "rbo": "0", "kendall_tau": "-1", "primary_ms": "1", "candidate_ms": "1",
        },
    }[table]  # fmt: skip
    with owner.transaction(force_rollback=True):
        shadow_id = fetch_one(
            owner,
            "INSERT INTO shadows (embedding_version_id, sample, stopped_at) VALUES (%s, 1, now()) RETURNING id",
            [get_version(owner, "v2").id],
        )[0]
        row |= {} if table == "shadows" else {"shadow_id": shadow_id}
        with owner.transaction(force_rollback=True):
            insert(owner, table, row)
        with pytest.raises(pg.CheckViolation):
            insert(owner, table, row | {column: value})


def insert(connection: Connection, table: str, row: dict[str, Any]) -> None:
    columns = sql.SQL(", ").join(map(sql.Identifier, row))
    places = sql.SQL(", ").join(map(sql.Placeholder, row))
    connection.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(sql.Identifier(table), columns, places), row
    )


def test_who_holds_up_a_grant_is_named(collection: Collection, connection: Connection) -> None:
    with collection.database.session("test") as other, other.transaction():
        pid = other.info.backend_pid
        other.execute("SELECT FROM locks WHERE name = 'rights' FOR UPDATE")
        with pytest.raises(RefusedError, match=rf"held by process {pid} of postgres \(") as refusal:
            granting.grant(connection, collection.names["nobody"], "viewer")
        assert f"SELECT pg_terminate_backend({pid})" in refusal.value.remedy


def test_who_holds_up_an_index_is_named_by_an_operator(
    collection: Collection, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sees the sessions of others, but not since when their transactions run."""
    monkeypatch.setattr(index, "_TRIES", 1)
    with connection.transaction(), collection.as_role("operator") as operator:
        connection.execute("SELECT FROM chunk_embeddings_2 LIMIT 1")
        held = rf"held by process {connection.info.backend_pid} of \w+ \(revector [^,]*\)\."
        with pytest.raises(RefusedError, match=held) as refusal:
            index.drop(operator, get_version(operator, "v2"))
        assert f"SELECT pg_terminate_backend({connection.info.backend_pid})" in refusal.value.remedy


def test_an_application_with_a_retriever_and_a_mirror(collection: Collection) -> None:
    """All that a service does, by a role that may do nothing else; an operator flips, and the shadow turns round."""
    its = collection.of("application")
    with collection.as_role("operator") as operator:
        shadow.start(operator, "v2", sample=1)
    with mirror_of(its) as mirror, Retriever(its, mirror=mirror) as retriever:
        assert retriever.search("two", 3).version_key == "v1"
        assert mirror.flush()
        with collection.as_role("operator") as operator:
            cutover.run(operator, "v2", confirm="v2")
            assert retriever.search("two", 3).version_key == "v2"
            found = shadow.running(operator)
            assert found is not None
            assert (found.candidate, found.started_by) == ("v1", collection.names["operator"])
    with collection.as_role("viewer") as viewer:
        assert viewer.execute("SELECT count(*) FROM shadow_queries WHERE primary_version = 'v1'").fetchone() == (
            1,
        )
        assert viewer.execute("SELECT sum(searches) FROM search_counts").fetchone() == (2,)
        assert viewer.execute("SELECT made_by FROM cutovers ORDER BY id DESC LIMIT 1").fetchone() == (
            collection.names["operator"],
        )


@pytest.mark.parametrize("kind", ["viewer", "application"])
def test_the_way_in_by_sql(shared: Collection, kind: str) -> None:
    with shared.as_role(kind) as connection:
        (key, dimensions) = (
            connection.execute("SELECT version_key, dimensions FROM active_version()").fetchone() or ()
        )
        vector = str([1.0] * dimensions)
        rows = connection.execute(
            "SELECT version_key, active FROM search_chunks(%s::vector, 3, %s)", [vector, key]
        ).fetchall()
        assert rows == [("v1", True)] * 3


def test_a_cutover_with_approval_by_commands(
    collection: Collection, connection: Connection, tmp_path: Path
) -> None:
    connection.execute("""INSERT INTO cutover_policy (settings) VALUES ('{"approvals": 1}')""")
    operator, approver, viewer = (
        revector_of(collection, kind, tmp_path) for kind in ("operator", "approver", "viewer")
    )
    viewer.call("cutover", "request", "v2", "--reason", "better", status=1)
    operator.call("cutover", "request", "v2", "--reason", "better")
    run = ("cutover", "run", "v2", "--confirm", "v2")
    operator.call(*run, status=1)
    with collection.as_role("operator") as session, pytest.raises(pg.RaiseException, match="not approved"):
        session.execute(cutover.FLIP, {"key": "v2"})
    for nobody in (viewer, operator):
        nobody.call("cutover", "approve", "v2", status=1)
    approver.call("cutover", "approve", "v2")
    approver.call(*run, status=1)
    assert "v2 is active (was v1)" in operator.call(*run).out
    operator.call("cutover", "watch", "--once")
    operator.call("rollback", "--confirm", "v1")


# -- the log -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["viewer", "operator", "approver", "application", "nobody"])
def test_nobody_changes_the_log(shared: Collection, kind: str) -> None:
    dsn = shared.of(kind).dsn
    table = sql.Identifier(shared.database.schema, "audit_log")
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in (
            "UPDATE {} SET actor = 'ada'",
            "UPDATE {} SET reason = ''",
            "DELETE FROM {}",
            "TRUNCATE {}",
            "ALTER TABLE {} DISABLE TRIGGER audit_log_append_only",
            "ALTER TABLE {} OWNER TO CURRENT_USER",
            "DROP TABLE {}",
            "CREATE RULE mine AS ON INSERT TO {} DO INSTEAD NOTHING",
            "INSERT INTO {} (action, outcome, actor) VALUES ('x', 'done', 'ada')",
            "INSERT INTO {} (action, outcome, at) VALUES ('x', 'done', '2020-01-01')",
            "INSERT INTO {} (action, outcome, id) VALUES ('x', 'done', 999999)",
            "SELECT * FROM {} FOR UPDATE",
            "MERGE INTO {} l USING (SELECT 1) o ON true WHEN MATCHED THEN DELETE",
        ):
            refused(connection, sql.SQL(statement).format(table))


def test_the_log_cannot_be_changed_by_the_owner_in_passing(collection: Collection, connection: Connection) -> None:
    for statement in ("UPDATE audit_log SET actor = 'ada'", "DELETE FROM audit_log", "TRUNCATE audit_log"):
        with pytest.raises(pg.RaiseException, match="append only"):
            connection.execute(statement)
    connection.execute(
        "INSERT INTO audit_log (action, outcome, actor, at, client) VALUES ('x', 'done', 'ada', '2020-01-01', 'me')"
    )
    (entry,) = entries(connection, limit=1)
    assert (entry.actor, entry.at.year > 2020, entry.client != "me") == ("postgres", True, True)


def test_an_entry_says_who_wrote_it(collection: Collection) -> None:
    """Also through SET ROLE: what counts is who logged in."""
    with collection.as_role("operator") as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(group_of(connection, "operator"))))
        connection.execute("INSERT INTO audit_log (action, outcome) VALUES ('ingest', 'done')")
        assert entries(connection, limit=1)[0].actor == collection.names["operator"]
        refused(connection, "INSERT INTO cutovers (action, to_version) VALUES ('cutover', 'v1')")
        for action in ("cutover", "rollback", "versions drop"):
            with pytest.raises(pg.RaiseException, match="the database itself writes each"):
                connection.execute(
                    "INSERT INTO audit_log (action, version_key, outcome) VALUES (%s, 'v1', 'done')", [action]
                )


# -- granting ------------------------------------------------------------------------------------------------


def test_granting_and_taking_by_commands(database: Database, tmp_path: Path) -> None:
    owner = Revector(tmp_path, ("--dsn", database.dsn, "--schema", database.schema))
    with login_roles(database, "ada") as names:
        ada = names["ada"]
        its = Database(make_conninfo(database.dsn, user=ada), database.schema)
        assert owner.call("db", "grant", ada, "operator", "--json").document == {
            "role": ada, "right": "operator", "granted": True,
        }  # fmt: skip
        owner.call("db", "grant", ada, "operator")  # a second time changes nothing
        assert f"{ada} is now approver" in owner.call("db", "grant", ada, "approver").out
        with its.session("test") as connection:
            assert read_rights(connection).word == ""
            owner.call("db", "grant", ada, "operator", "--revoke")
            assert read_rights(connection).word == "approver"
            refused(connection, cutover.FLIP, {"key": "v1"})
        shown = owner.call("db", "roles")
        assert re.search(rf"{ada} +approver +yes", shown.out)
        assert "postgres" in shown.out
        document = owner.call("db", "roles", "--json").document
        assert {"role": ada, "right": "approver", "login": True} in document["granted"]
        assert document["rights"] == dict.fromkeys(("view", "operate", "approve", "administer"), True)
        owner.call("db", "grant", ada, "approver", "--revoke")
        again = owner.call("db", "grant", ada, "approver", "--revoke", status=1)
        assert f"The role {ada} was not given approver." in again.err
        with psycopg.connect(its.dsn, autocommit=True) as connection:
            refused(connection, sql.SQL("SELECT FROM {}").format(sql.Identifier(database.schema, "audit_log")))
        log = [one["detail"] for one in owner.call("log", "--json").document["entries"]]
        assert log[:2] == [
            {"problem": f"The role {ada} was not given approver."}, {"role": ada, "right": "approver"},
        ]  # fmt: skip


def test_what_cannot_be_granted(database: Database, connection: Connection) -> None:
    with login_roles(database, "ada") as names:
        with pytest.raises(UsageError, match="There is no role 'adda'"):
            granting.grant(connection, "adda", "viewer")
        with pytest.raises(UsageError, match="There is no right 'admin'"):
            granting.grant(connection, names["ada"], "admin")  # type: ignore[arg-type]
        granting.grant(connection, names["ada"], "viewer")
        with pytest.raises(UsageError, match="stands for a right itself"):
            granting.grant(connection, group_of(connection, "viewer"), "operator")


def test_an_owner_who_is_no_superuser(database: Database, connection: Connection) -> None:
    """It needs CREATEROLE, is told so, and can still work with its versions afterwards."""
    with login_roles(database, "owner", "ada") as names:
        owner = sql.Identifier(names["owner"])
        schema = Database(make_conninfo(database.dsn, user=names["owner"]), f"{database.schema}_own")
        connection.execute(
            sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(sql.Identifier(connection.info.dbname), owner)
        )
        upgrade(schema)
        with schema.session("test") as own, login_roles(Database(database.dsn, schema.schema), "bob") as others:
            add_chunks(own, NUMBERS[:4])
            before = ready_version(schema, own, "v1")
            with pytest.raises(RefusedError, match=r"CREATEROLE"):
                granting.grant(own, names["ada"], "operator")
            connection.execute(sql.SQL("ALTER ROLE {} CREATEROLE").format(owner))
            granting.grant(own, others["bob"], "operator")
            assert [(one.role, one.right) for one in granting.granted(own)] == [
                (names["owner"], "owner"), (others["bob"], "operator"),
            ]  # fmt: skip
            bobs = Database(make_conninfo(database.dsn, user=others["bob"]), schema.schema)
            with bobs.session("test") as bob:
                assert bob.execute("SELECT count(*) FROM chunk_embeddings").fetchone() == (4,)
                after = ready_version(bobs, bob, "v2")
            own.execute("DELETE FROM document_chunks WHERE content = 'one'")
            for version in (before, after):
                count = sql.SQL("SELECT count(*) FROM {}").format(version.table)
                assert own.execute(count).fetchone() == (3,)
            retire_version(own, "v2")
            drop_version(own, "v2")
            granting.revoke(own, others["bob"], "operator")
            own.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema.schema)))


def test_roles_left_over_from_another_schema_of_the_name(database: Database, connection: Connection) -> None:
    with login_roles(database, "ada", "bob") as names:
        granting.grant(connection, names["ada"], "operator")
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(database.schema)))
        upgrade(database)
        with psycopg.connect(make_conninfo(database.dsn, user=names["ada"]), autocommit=True) as ada:
            refused(ada, sql.SQL("SELECT FROM {}").format(sql.Identifier(database.schema, "audit_log")))
        with database.session("test") as own, pytest.raises(RefusedError, match=f"left over.*{names['ada']}"):
            granting.grant(own, names["bob"], "viewer")


def test_an_upgrade_renews_the_grants(collection: Collection, connection: Connection) -> None:
    """As for a table of a later revision, on which no role had a right."""
    group = sql.Identifier(group_of(connection, "viewer"))
    connection.execute(sql.SQL("REVOKE ALL ON search_counts FROM {}").format(group))
    with collection.as_role("viewer") as viewer:
        refused(viewer, "SELECT FROM search_counts")
        with connection.transaction():
            granting.renew_grants(connection)
        viewer.execute("SELECT FROM search_counts")


def test_the_names_of_groups_are_of_one_collection_only() -> None:
    names = {
        group_name(database, schema, kind)
        for database, schema in (
            ("a", "b"),
            ("a/b", "c"),
            ("a", "b_c"),
            ("x" * 63, "y" * 63),
            ("x" * 63, "y" * 62),
        )
        for kind in KINDS
    }
    assert len(names) == 5 * len(KINDS)
    assert max(len(name.encode()) for name in names) <= 63


def group_of(connection: Connection, kind: str) -> str:
    return groups_of(connection)[kind]  # type: ignore[index]


def revector_of(collection: Collection, kind: str, folder: Path) -> Revector:
    """The command line as that role."""
    database = collection.of(kind)
    return Revector(folder, ("--dsn", database.dsn, "--schema", database.schema))
