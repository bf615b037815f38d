"""What insiders have tried with some success: each kind of it is refused by Postgres itself.

`v1` is active and `v2` ready, and a cutover takes one approval. Sequences: tests/faults/test_insiders.py.
"""

# ruff: noqa: S608  (every part of a statement is written here)

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import pytest
from psycopg import errors as pg
from psycopg import sql

from revector.core import cutover, doctor
from revector.core.database import Connection, Database
from revector.core.documents import Document
from revector.core.errors import RefusedError
from revector.core.evaluation.judged_sets.query_sets import Query
from revector.core.ingest import ingest
from revector.core.roles import granting
from revector.core.settings import Settings
from tests.console.cli.program import Revector
from tests.core.test_roles import Collection, with_roles
from tests.databases import copied
from tests.evaluations import judged_set
from tests.versions import add, add_chunks

FLIP: LiteralString = "UPDATE embedding_versions SET active = (version_key = 'v2')"


@pytest.fixture(scope="module")
def attacked(pair: Database) -> Iterator[Collection]:
    """One for attempts that change nothing."""
    with copied(pair) as database, with_roles(database) as found, database.session("test") as connection:
        cutover.change_policy(connection, {"approvals": 1})
        add_chunks(connection, ["queued"])
        add(connection, "v3")
        yield found


@pytest.fixture
def collection(database: Database, connection: Connection) -> Iterator[Collection]:
    """One for a test alone."""
    with with_roles(database) as found:
        cutover.change_policy(connection, {"approvals": 1})
        yield found


def changed(key: str, column: str, value: str) -> str:
    return f"UPDATE embedding_versions SET {column} = {value} WHERE version_key = '{key}'"


RIGHT, RULE, CHECK = pg.InsufficientPrivilege, pg.RaiseException, pg.CheckViolation
CHUNK = "(semantic_key, document_id, chunk_no, content, content_sha256"
ATTEMPTS: tuple[tuple[str, str, type[Exception]], ...] = (
    # A chunk under an id of its own choice: another text under approved vectors, or decoys for samples.
    ("operator", f"INSERT INTO document_chunks {CHUNK}, id) VALUES ('a', gen_random_uuid(), 0, '', '', 99)", RIGHT),
    ("operator", "COPY document_chunks FROM STDIN", RIGHT),
    ("operator", "UPDATE document_chunks SET id = id + 1000", RIGHT),
    # A queue that a proof relies on.
    ("operator", "DELETE FROM chunk_outbox", RULE),
    ("operator", "UPDATE chunk_outbox SET chunk_id = 0", RIGHT),
    ("operator", "UPDATE chunk_outbox SET embedding_version_id = 1", RIGHT),
    ("operator", "UPDATE dead_letters SET chunk_id = 0", RIGHT),
    ("operator", "SELECT prove_version(3)", RULE),
    # Vectors of no chunk, or none: the table of what is active keeps its key and its index.
    ("operator", "SELECT unkey_version_table(1)", RULE),
    ("operator", "SELECT build_index(1, '64MB', 0)", RULE),
    ("operator", "SELECT drop_index(1)", RULE),
    # Rows that no sum can take: neither a flip nor a rollback may fail for them.
    ("operator", "INSERT INTO row_counts (scope, delta) VALUES (1, -9223372036854775808)", CHECK),
    ("operator", "INSERT INTO row_counts (scope, delta) VALUES (0, 9223372036854775807)", CHECK),
    ("operator", "UPDATE row_counts SET delta = -1000000000001", CHECK),
    # Settings that no search can read.
    *(
        ("operator", changed("v1", "index_settings", f"'{value}'"), CHECK)
        for value in ("[]", '"x"', "null", "5", '{"ef_search": null}', '{"ef_search": "64"}', '{"ef_search": 0}')
    ),
    ("operator", changed("v1", "index_settings", """'{"ef_search": 1.5}'"""), pg.InvalidTextRepresentation),
    *(
        ("operator", changed("v2", "encoder_spec", f"encoder_spec || '{value}'"), RULE)
        for value in ("?price", "?price=x", "?price=1&price=2", "?price=%FF", "?base_url=http://%ff", "?timeout_s=")
    ),
    # How users' queries are encoded.
    ("operator", changed("v1", "encoder_spec", "encoder_spec || '?price=1'"), RULE),
    # Times that no client can read, amounts that no sum survives, keys that no command can name.
    *(
        ("operator", f"INSERT INTO {table} ({columns}, {column}) VALUES ({values}, '{value}')", CHECK)
        for table, columns, values, column, value in (
            ("backfill_jobs", "embedding_version_id, state, total", "2, 'done', 1", "started_at", "infinity"),
            ("backfill_jobs", "embedding_version_id, state, total", "2, 'done', 1", "spent_usd", "NaN"),
            ("vector_loads", "embedding_version_id, source, fingerprint, total", "2, '', '', 1", "updated_at",
             "-infinity"),
            ("dead_letters", "embedding_version_id, chunk_id, error", "2, 1, ''", "failed_at", "11000-01-01"),
            ("chunk_outbox", "embedding_version_id, chunk_id", "2, 1", "queued_at", "0001-01-01 BC"),
            ("query_sets", "name", "'s'", "updated_at", "infinity"),
            ("judges", "name, kind", "'j', 'person'", "created_at", "infinity"),
            ("evaluation_runs", "query_set_id, query_set_revision, version_key, encoder, encoder_revision, k, exact, "
             "index_settings, chunks, queries", "1, '', '', '', '', 1, true, '{}', 1, 1", "seconds", "infinity"),
        )
    ),
    *(
        ("operator", "INSERT INTO embedding_versions (encoder_name, encoder_revision, dimensions, distance_metric, "
         f"version_key) VALUES ('e', '1', 8, 'cosine', '{key}')", CHECK)
        for key in ("", " ", "v 9", "-v9", "v9\nv8", "v" * 64)
    ),
    # What queues one behind another.
    *((role, "SELECT lock_flip()", RIGHT) for role in ("viewer", "approver", "application")),
    *((role, "SELECT FROM locks FOR UPDATE", RIGHT) for role in ("viewer", "approver", "application", "operator")),
    *((role, "BEGIN; LOCK TABLE locks IN EXCLUSIVE MODE", RIGHT) for role in ("viewer", "operator")),
    # An entry that looks like one of the database's own.
    *(
        ("operator", f"INSERT INTO audit_log (action, version_key, outcome) VALUES ('{action}', 'v2', 'done')", kind)
        for action, kind in (
            ("cutover approve ", CHECK), ("cutover\u00a0approve", CHECK), ("Cutover approve", CHECK),
            ("cutover  approve", CHECK), ("cutover approve", RULE), ("index set", RULE),
        )
    ),
)  # fmt: skip


@pytest.mark.parametrize(("role", "statement", "error"), ATTEMPTS)
def test_what_is_refused(attacked: Collection, role: str, statement: str, error: type[Exception]) -> None:
    *first, last = statement.split("; ")
    with attacked.of(role).connect("test") as session:
        for part in first:
            session.execute(part.encode())
        with pytest.raises(error):
            session.execute(last.encode())


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_an_old_snapshot_does_not_know_what_was_forbidden_since(
    collection: Collection, connection: Connection, level: str
) -> None:
    cutover.change_policy(connection, {"approvals": 0})
    with collection.as_role("operator") as operator:
        operator.execute(sql.SQL("BEGIN ISOLATION LEVEL {}").format(sql.SQL(level)))  # type: ignore[arg-type]
        operator.execute("SELECT 1 FROM embedding_versions")
        cutover.change_policy(connection, {"approvals": 1})
        with pytest.raises(RULE, match=f"in a transaction that is {level}"):
            operator.execute(FLIP)


def test_others_cannot_create_where_every_session_looks(collection: Collection, connection: Connection) -> None:
    """As in a database that was made before Postgres 15: a function there may fit better than the built-in one."""
    role = sql.Identifier(collection.names["operator"])
    for receiver in (sql.SQL("PUBLIC"), role):
        connection.execute(sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(receiver))
        with pytest.raises(RefusedError, match=r"schema public, where .* may create"):
            granting.grant(connection, collection.names["nobody"], "viewer")
        found = doctor.examine(collection.database, Settings()).findings
        assert [finding.object for finding in found if finding.check == "search path"] == ["public"]
        connection.execute(sql.SQL("REVOKE CREATE ON SCHEMA public FROM {}").format(receiver))
    granting.grant(connection, collection.names["nobody"], "viewer")


def requested(collection: Collection) -> None:
    with collection.as_role("operator") as operator, collection.as_role("approver") as approver:
        cutover.request(operator, "v2", reason="better")
        cutover.approve(approver, "v2")


def refused_flip(collection: Collection, because: str) -> None:
    with collection.as_role("operator") as operator, pytest.raises(RULE, match=because):
        operator.execute(FLIP)


def test_chunks_that_leave_take_the_approval_along(collection: Collection, connection: Connection) -> None:
    """They could come back as other chunks, whose vectors nobody approved."""
    add_chunks(connection, [f"more {number}" for number in range(24)])
    with collection.as_role("operator") as operator, pytest.raises(RefusedError, match="nothing to approve yet"):
        cutover.request(operator, "v2", reason="better")
    connection.execute("DELETE FROM document_chunks WHERE content LIKE 'more %'")
    requested(collection)
    with collection.as_role("operator") as operator:
        operator.execute("DELETE FROM document_chunks WHERE content = 'one'")
    refused_flip(collection, "more than 5% of its vectors left")
    found = cutover.requests(connection)[0]
    assert (found.state, found.void_because) == (
        "void", "more than 5% of its vectors left with their chunks after the request",
    )  # fmt: skip


def test_chunks_that_failed_are_what_was_approved(collection: Collection) -> None:
    requested(collection)
    with collection.as_role("operator") as operator:
        operator.execute("INSERT INTO dead_letters (embedding_version_id, chunk_id, error) VALUES (2, 1, '')")
    refused_flip(collection, "chunks that failed")


def test_another_role_of_an_approver_s_name_has_approved_nothing(
    collection: Collection, connection: Connection
) -> None:
    requested(collection)
    role = sql.Identifier(collection.names["approver"])
    for statement in ("DROP OWNED BY {}", "DROP ROLE {}", "CREATE ROLE {} LOGIN"):
        connection.execute(sql.SQL(statement).format(role))  # type: ignore[arg-type]
    granting.grant(connection, collection.names["approver"], "approver")
    refused_flip(collection, "0 of 1 approvals")


def test_evidence_is_there_and_of_who_made_it(collection: Collection, connection: Connection) -> None:
    cutover.change_policy(connection, {"evidence_by": "another"})
    with (
        collection.as_role("operator") as operator,
        pytest.raises(RULE, match=r"another role than .*: there is none"),
    ):
        operator.execute(
            "INSERT INTO cutover_requests (embedding_version_id, reason, expires_at, basis) "
            "SELECT id, 'better', now(), '{}' FROM embedding_versions WHERE version_key = 'v2'"
        )
    query_set = judged_set(connection, "numbers", [Query("q", "one", "all")], {"q": {"one": 1}})
    run: LiteralString = (
        "INSERT INTO evaluation_runs (query_set_id, query_set_revision, version_key, encoder, encoder_revision, k, "
        "exact, index_settings, chunks, queries, state) VALUES (%s, '', 'v2', '', '', 1, false, '{}', 0, 0, %s) "
        "RETURNING id"
    )
    (running,) = connection.execute(run, [query_set.id, "running"]).fetchone()  # type: ignore[misc]
    (done,) = connection.execute(run, [query_set.id, "done"]).fetchone()  # type: ignore[misc]
    evaluation: LiteralString = (
        "INSERT INTO evaluations (query_set_id, primary_run_id, candidate_run_id, primary_version, candidate_version, "
        "verdict, report) VALUES (%s, %s, %s, 'v1', 'v2', 'fail', %s)"
    )
    connection.execute(evaluation, [query_set.id, done, done, '{"gates": []}'])
    with collection.as_role("operator") as operator:
        with pytest.raises(RULE, match="of another role"):
            operator.execute("INSERT INTO evaluation_results SELECT %s, 'q', '{}', '{}', '{}', 1, 1", [running])
        with pytest.raises(RULE, match="nobody else continues it"):
            operator.execute("UPDATE evaluation_runs SET state = 'done' WHERE id = %s", [running])
        with pytest.raises(RULE, match="it stays"):
            operator.execute("DELETE FROM query_sets")
        for report in ("{}", "5", '{"gates": 5}', '{"gates": {}}'):
            with pytest.raises(CHECK if report != "{}" else RULE):
                operator.execute(evaluation, [query_set.id, done, running if report == "{}" else done, report])


def test_a_rollback_finds_its_version_as_it_was(collection: Collection, connection: Connection) -> None:
    """An operator neither takes its index nor changes how it encodes, and no request gets in the way."""
    requested(collection)
    attempts: tuple[LiteralString, ...] = (
        "SELECT drop_index(1)",
        "SELECT unkey_version_table(1)",
        "UPDATE embedding_versions SET encoder_spec = encoder_spec || '?price=1' WHERE id = 1",
    )
    with collection.as_role("operator") as operator:
        operator.execute(FLIP)
        for attempt in attempts:
            with pytest.raises(RULE, match="rollback"):
                operator.execute(attempt)
        cutover.request(operator, "v1", reason="on second thoughts")
        for number in range(3):
            operator.execute("INSERT INTO row_counts (scope, delta) VALUES (%s, -1000000000000)", [number])
        assert cutover.rollback(operator, confirm="v1").changed
    assert [one.state for one in cutover.requests(connection)] == ["void", "done"]


def test_only_the_owner_says_how_the_active_version_encodes(
    collection: Collection, connection: Connection
) -> None:
    connection.execute("ALTER TABLE embedding_versions DISABLE TRIGGER check_encoder")
    connection.execute("UPDATE embedding_versions SET encoder_spec = ''")
    connection.execute("ALTER TABLE embedding_versions ENABLE TRIGGER check_encoder")
    cutover.change_policy(connection, {"approvals": 0})
    adopt: LiteralString = (
        "UPDATE embedding_versions SET encoder_spec = 'static:wordllama-64' WHERE version_key = %s"
    )
    with collection.as_role("operator") as operator:
        with pytest.raises(RULE, match="its encoder stays"):
            operator.execute(adopt, ["v1"])
        operator.execute(adopt, ["v2"])
    connection.execute(adopt, ["v1"])


def test_an_ingest_says_who_it_waits_for_and_waits_for_no_viewer(
    collection: Collection, connection: Connection
) -> None:
    """Anybody can hold an advisory lock, and only operators the lock of ingests."""
    documents = [Document("a", "about ingests", {})]
    with collection.as_role("viewer") as viewer, collection.as_role("operator") as operator:
        with pytest.raises(RIGHT):
            viewer.execute("SELECT lock_ingest()")
        viewer.execute(
            "SELECT pg_advisory_lock(1768843109, oid::int) FROM pg_class WHERE relname = 'document_chunks'"
        )
        assert ingest(connection, documents, chunk_characters=1000).inserted == 1
        operator.execute("BEGIN")
        operator.execute("SELECT lock_ingest()")
        heard = []

        def on_wait(text: str) -> None:
            heard.append(text)
            operator.execute("ROLLBACK")

        assert ingest(connection, documents, chunk_characters=1000, on_wait=on_wait).unchanged == 1
        holder = f"process {operator.info.backend_pid} of {collection.names['operator']} (revector"
        assert [text.startswith(f"Waiting for another ingest: for a lock held by {holder}") for text in heard] == [
            True
        ]


def test_a_version_becomes_active_with_its_key_alone(collection: Collection, connection: Connection) -> None:
    cutover.change_policy(connection, {"approvals": 0})
    with collection.as_role("operator") as operator:
        operator.execute("SELECT unkey_version_table(2)")
        with pytest.raises(RULE, match="do not follow their chunks"):
            operator.execute(FLIP)
        operator.execute("SELECT key_version_table(2)")
        with pytest.raises(
            RULE, match="do not follow their chunks"
        ):  # not validated: vectors of no chunk may be there
            operator.execute(FLIP)
        operator.execute("SELECT validate_version_table(2)")
        operator.execute(FLIP)


def test_an_operator_s_plan_lacks_no_right(collection: Collection, tmp_path: Path) -> None:
    with collection.as_role("operator") as operator:
        add(operator, "v3")
    for kind, verdict in (("operator", "pass"), ("viewer", "fail")):
        dsn = collection.of(kind).dsn
        found = Revector(tmp_path, ("--dsn", dsn, "--schema", collection.database.schema)).call(
            "backfill", "plan", "v3", "--json", status=int(verdict == "fail")
        )
        (rights,) = [finding for finding in found.document["findings"] if finding["name"] == "rights"]
        assert rights["verdict"] == verdict, rights


def test_the_history_of_a_version_that_is_gone(collection: Collection, connection: Connection) -> None:
    """Its request went with it; what the flip said of it stays."""
    requested(collection)
    with collection.as_role("operator") as operator:
        operator.execute(FLIP)
        cutover.rollback(operator, confirm="v1")
        for key in ("retire_version", "drop_version"):
            operator.execute(sql.SQL("SELECT {}('v2')").format(sql.Identifier(key)))
    found = cutover.history(connection)
    assert [(one.action, one.to_version, one.waived) for one in found[:2]] == [
        ("rollback", "v1", {}),
        ("cutover", "v2", {}),
    ]
