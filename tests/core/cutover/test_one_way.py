"""A rollback goes one way and cannot be prevented: tried from psql, as an operator and as the owner of the schema."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from psycopg import errors as pg
from psycopg import sql

from revector.core import audit, cutover
from revector.core.database import Connection, Database
from revector.core.errors import RefusedError
from revector.core.registry import active_version, drop_version, get_version, retire_version
from revector.core.roles.groups import groups_of
from revector.core.serving import served_name
from tests.core.test_roles import Collection, with_roles
from tests.databases import copied
from tests.versions import ready_version

REFUSED = (pg.RaiseException, pg.InsufficientPrivilege)


@contextmanager
def flipped(database: Database) -> Iterator[Collection]:
    """v1 was active, v2 is, and is watched; v3 is ready; roles of each kind."""
    with with_roles(database) as collection, database.session("test") as connection:
        ready_version(database, connection, "v3")
        cutover.run(connection, "v2", confirm="v2", reason="better")
        yield collection


@pytest.fixture
def collection(database: Database) -> Iterator[Collection]:
    """For one test alone."""
    with flipped(database) as found:
        yield found


@pytest.fixture(scope="module")
def shared(pair: Database) -> Iterator[Collection]:
    """For attacks, which are all refused; a flip forward needs an approval."""
    with copied(pair) as database, flipped(database) as found:
        with database.session("test") as connection:
            cutover.change_policy(connection, {"approvals": 1})
        yield found


def state(connection: Connection) -> object:
    """Everything that an attack would change."""
    return (
        connection.execute(
            "SELECT rollback_target(), array_agg(v ORDER BY id) FROM embedding_versions v"
        ).fetchall(),
        connection.execute("SELECT * FROM cutovers ORDER BY id").fetchall(),
        connection.execute("SELECT count(*), sum(chunk_id) FROM chunk_embeddings").fetchall(),
        connection.execute("SELECT count(*) FROM audit_log").fetchall(),
    )


def keys(connection: Connection) -> tuple[str | None, str | None]:
    """The active version, and the target of a rollback."""
    active, target = active_version(connection), cutover.rollback_target(connection)
    return active and active.version_key, target and target.version_key


ON_THE_TARGET = [
    "SELECT retire_version('v1')",
    "SELECT retire_version('v1', 'the disk is full')",
    "SELECT drop_version('v1')",
    "UPDATE embedding_versions SET state = 'retired' WHERE version_key = 'v1'",
    "UPDATE embedding_versions SET state = 'backfilling' WHERE version_key = 'v1'",
    "UPDATE embedding_versions SET state = 'ready' WHERE version_key = 'v1'",
    "UPDATE embedding_versions SET completed_at = NULL WHERE version_key = 'v1'",
    "UPDATE embedding_versions SET state = 'previous' WHERE version_key = 'v3'",
    "UPDATE embedding_versions SET completed_at = NULL WHERE active",
    "DELETE FROM embedding_versions WHERE version_key = 'v1'",
    "DELETE FROM embedding_versions",
    "MERGE INTO embedding_versions v USING (SELECT 1) o ON version_key = 'v1' WHEN MATCHED THEN DELETE",
    "TRUNCATE embedding_versions CASCADE",
    "DELETE FROM {target}",
    "DELETE FROM {target} WHERE chunk_id = (SELECT min(chunk_id) FROM {target})",
    "TRUNCATE {target}",
    "WITH gone AS (DELETE FROM {target} RETURNING *) INSERT INTO {target} SELECT chunk_id, embedding FROM gone",
    "UPDATE cutovers SET watch_until = now()",
    "UPDATE cutovers SET from_version_id = NULL",
    "UPDATE cutovers SET action = 'rollback'",
    "DELETE FROM cutovers",
    "SELECT set_config('revector.force', ' ', false), retire_version('v1', ' ', true)",
]
"""By anybody: the version that a rollback needs cannot be removed while the watch lasts."""

AS_AN_OPERATOR = [
    "SELECT retire_version('v1', 'I want it', true)",
    "SELECT drop_version('v1', 'I want it', true)",
    "WITH w AS MATERIALIZED (SELECT set_config('revector.force', 'I want it', false) AS is) "
    "UPDATE embedding_versions SET state = 'retired' FROM w WHERE version_key = 'v1' AND w.is <> ''",
    "UPDATE cutovers SET watch_ended_at = now(), watch_ended_why = 'over'",
    "INSERT INTO cutovers (action, to_version) VALUES ('rollback', 'v2')",
    "UPDATE embedding_versions SET id = 99 WHERE version_key = 'v1'",
]


@pytest.mark.parametrize("kind", ["operator", "owner"])
def test_nobody_takes_away_what_a_rollback_needs(shared: Collection, kind: str) -> None:
    with shared.database.session("test") as owner:
        target = get_version(owner, "v1").table_name
        before = state(owner)
        session = shared.as_role(kind) if kind == "operator" else shared.database.session("test")
        with session as connection:
            for attack in ON_THE_TARGET + (AS_AN_OPERATOR if kind == "operator" else []):
                with pytest.raises(REFUSED):
                    connection.execute(attack.format(target=target))  # type: ignore[call-overload]
                assert state(owner) == before, attack
        assert keys(owner) == ("v2", "v1")


FORWARD = [
    "UPDATE embedding_versions SET active = version_key = 'v3'",
    "SET revector.action = 'rollback'; UPDATE embedding_versions SET active = version_key = 'v3'",
    """SET revector.detail = '{"approvals": {"needed": 1, "given": 1}}';
    UPDATE embedding_versions SET active = version_key = 'v3'""",
    "UPDATE embedding_versions SET active = version_key = 'v3', state = 'previous'",
    "UPDATE embedding_versions SET active = version_key = 'v3', encoder_spec = 'static:wordllama-128'",
    "BEGIN; SET CONSTRAINTS ALL DEFERRED; UPDATE embedding_versions SET active = true WHERE version_key = 'v3'",
    "UPDATE embedding_versions SET active = false",
    """INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, distance_metric)
    VALUES ('v3', 'e', '1', 64, 'cosine') ON CONFLICT (version_key) DO UPDATE SET active = true""",
    """WITH off AS (UPDATE embedding_versions SET active = false WHERE active)
    UPDATE embedding_versions SET active = true WHERE version_key = 'v3'""",
]


@pytest.mark.parametrize("kind", ["operator", "owner"])
def test_a_flip_forward_is_approved_whatever_it_calls_itself(shared: Collection, kind: str) -> None:
    with shared.database.session("test") as owner:
        before = state(owner)
        for attack in FORWARD:
            session = shared.as_role(kind) if kind == "operator" else shared.database.session("test")
            with session as connection:
                with pytest.raises(REFUSED):
                    connection.execute(attack)  # type: ignore[call-overload]
                connection.rollback()
            assert state(owner) == before, attack


def test_from_where_one_rolled_back_there_is_no_way_forward_without_approval(collection: Collection) -> None:
    operator = collection.names["operator"]
    with collection.database.session("test") as owner, collection.as_role("operator") as connection:
        cutover.change_policy(owner, {"approvals": 1})
        connection.execute("SELECT set_config('revector.action', 'cutover', false)")
        connection.execute(cutover.FLIP, {"key": "v1"})
        assert keys(owner) == ("v1", None)
        for action in ("cutover", "rollback", "flip"):
            connection.execute("SELECT set_config('revector.action', %s, false)", [action])
            with pytest.raises(pg.RaiseException, match="v2 is not approved"):
                connection.execute(cutover.FLIP, {"key": "v2"})
        with pytest.raises(RefusedError, match="not 'v1'"):
            cutover.rollback(connection, confirm="v2")
        again = cutover.rollback(connection, confirm="v1")
        assert (again.changed, again.made_by) == (False, operator)
        assert keys(owner) == ("v1", None)
        newest = cutover.history(owner)[0]
        assert (newest.action, newest.made_by, newest.to_version) == ("rollback", operator, "v1")


def test_the_log_says_what_the_database_found_and_keeps_the_word_of_the_program_apart(
    collection: Collection,
) -> None:
    operator = collection.names["operator"]
    claims = """{"from": "v3", "to": "v2", "request": 7, "approvals": {"given": 9}, "waived": 5, "missing": "x"}"""
    with collection.database.session("test") as owner, collection.as_role("operator") as connection:
        connection.execute(
            "SELECT set_config('revector.action', 'rollback', false), set_config('revector.detail', %s, false)",
            [claims],
        )
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(groups_of(owner)["operator"])))
        connection.execute(cutover.FLIP, {"key": "v3"})
        entry, told = audit.entries(owner, limit=1)[0], cutover.history(owner)[0]
        assert (entry.action, entry.actor, entry.version_key) == ("cutover", operator, "v3")
        says = entry.detail.pop("client_says")
        assert entry.detail == {
            "from": "v2", "to": "v3", "request": None, "missing": 0, "approvals": {"needed": 0, "given": 0},
        }  # fmt: skip
        assert (says["action"], says["approvals"]) == ("rollback", {"given": 9})
        assert (told.action, told.made_by, told.from_version, told.to_version) == ("cutover", operator, "v2", "v3")
        assert (told.waived, told.watch_until is not None) == ({}, True)
        connection.execute("SELECT set_config('revector.detail', '[1]', false)")
        connection.execute(cutover.FLIP, {"key": "v2"})
        assert audit.entries(owner, limit=1)[0].detail["client_says"] == {"action": "rollback", "detail": [1]}
        forged = "INSERT INTO audit_log (action, version_key, outcome) VALUES (%s, 'v3', 'done')"
        for action in ("cutover", "rollback", "versions retire", "versions drop"):
            connection.execute("BEGIN")
            connection.execute(cutover.FLIP, {"key": "v3"})
            with pytest.raises(pg.RaiseException, match=f'the database itself writes each "{action}"'):
                connection.execute(forged, [action])
            connection.execute("ROLLBACK")


def test_a_flip_in_parts_is_refused_or_logged_whole(collection: Collection) -> None:
    """With a deferred constraint two statements would flip without one of them being a flip."""
    with collection.database.session("test") as owner, collection.as_role("operator") as connection:
        before = state(owner)
        connection.execute("BEGIN")
        connection.execute("SET CONSTRAINTS ALL DEFERRED")
        with pytest.raises(pg.RaiseException, match="Two embedding versions would be active"):
            connection.execute("UPDATE embedding_versions SET active = true WHERE version_key = 'v3'")
        connection.execute("ROLLBACK")
        assert state(owner) == before
        connection.execute(
            """
            WITH off AS (UPDATE embedding_versions SET active = false WHERE active)
            UPDATE embedding_versions SET active = true WHERE version_key = 'v1'
            """
        )
        told = cutover.history(owner)
        assert [(one.action, one.from_version, one.to_version) for one in told] == [
            ("rollback", "v2", "v1"), ("cutover", "v1", "v2"), ("cutover", None, "v1"),
        ]  # fmt: skip


def test_when_the_watch_is_over_an_operator_retires_and_drops_and_it_is_logged(collection: Collection) -> None:
    with collection.database.session("test") as owner, collection.as_role("operator") as connection:
        with pytest.raises(RefusedError, match="v1 is what a rollback needs until"):
            retire_version(connection, "v1")
        refusal = audit.entries(owner, limit=1)[0]
        assert (refusal.action, refusal.outcome, refusal.version_key) == ("versions retire", "refused", "v1")
        cutover.rollback(connection, confirm="v1")
        cutover.change_policy(owner, {"watch_hours": 1e-9})
        cutover.run(connection, "v3", confirm="v3")
        assert keys(owner) == ("v3", "v1")
        with pytest.raises(pg.RaiseException, match="DELETE of the vectors of version v1 is refused"):
            owner.execute(sql.SQL("DELETE FROM {}").format(get_version(owner, "v1").table))
        with pytest.raises(RefusedError, match="only a retired version can be dropped"):
            drop_version(connection, "v1")
        connection.execute("SELECT retire_version('v1')")
        assert get_version(owner, "v1").completed_at is None
        assert keys(owner) == ("v3", None)
        with pytest.raises(RefusedError, match="no version to roll back to"):
            cutover.rollback(connection, confirm="v1")
        drop_version(connection, "v1", reason="space")
        assert [(e.action, e.actor, e.outcome, e.reason) for e in audit.entries(owner, limit=2)] == [
            ("versions drop", collection.names["operator"], "done", "space"),
            ("versions retire", collection.names["operator"], "done", ""),
        ]
        assert owner.execute("SELECT count(*) FROM row_counts WHERE scope = 1").fetchone() == (0,)


def test_the_owner_can_force_with_a_reason_but_never_the_active_version(collection: Collection) -> None:
    with collection.database.session("test") as owner:
        with pytest.raises(RefusedError, match="takes a reason"):
            retire_version(owner, "v1", force=True)
        with pytest.raises(RefusedError, match="v2 is active: it cannot be retired"):
            retire_version(owner, "v2", reason="I insist", force=True)
        assert keys(owner) == ("v2", "v1")
        assert retire_version(owner, "v1", reason="the disk is full", force=True).state == "retired"
        entry = audit.entries(owner, limit=1)[0]
        assert (entry.action, entry.outcome, entry.reason) == ("versions retire", "done", "the disk is full")
        assert "is what a rollback needs until" in entry.detail["forced"]
        assert owner.execute("SELECT current_setting('revector.force', true)").fetchone() in (("",), (None,))
        assert keys(owner) == ("v2", None)
        drop_version(owner, "v1")


def test_what_is_requested_backfilled_or_pinned_stays(collection: Collection) -> None:
    with collection.database.session("test") as owner, collection.as_role("operator") as connection:
        cutover.request(owner, "v3", reason="better")
        with pytest.raises(RefusedError, match="v3 has an open request") as caught:
            retire_version(connection, "v3")
        assert "revector cutover withdraw v3" in caught.value.remedy
        cutover.withdraw(owner, "v3")
        version = get_version(owner, "v3")
        owner.execute("UPDATE backfill_jobs SET state = 'running' WHERE embedding_version_id = %s", [version.id])
        owner.execute(
            "INSERT INTO backfill_workers (job_id, client) "
            "SELECT id, 'x' FROM backfill_jobs WHERE embedding_version_id = %s",
            [version.id],
        )
        with pytest.raises(RefusedError, match="v3 is being backfilled"):
            retire_version(connection, "v3")
        owner.execute("UPDATE backfill_jobs SET state = 'done'")
        row = owner.execute("SELECT oid::int FROM pg_namespace WHERE nspname = current_schema()").fetchone()
        assert row is not None
        name = served_name("shop", version.id, row[0], pinned=True)
        with collection.as_role("application") as service:
            service.execute("SELECT set_config('application_name', %s, false)", [name])
            refused = rf"v3 is what a search service is pinned to: shop \S+:{os.getpid()}: it cannot be"
            with pytest.raises(RefusedError, match=f"{refused} retired"):
                retire_version(connection, "v3")
            with pytest.raises(RefusedError, match=f"{refused} dropped"):
                drop_version(connection, "v3")
            retire_version(owner, "v3", reason="it is being shut down", force=True)
            with pytest.raises(RefusedError, match=f"{refused} dropped"):
                drop_version(connection, "v3")
            service.execute("SELECT set_config('application_name', 'other', false)")
            drop_version(connection, "v3")
