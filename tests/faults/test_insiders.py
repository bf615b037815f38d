"""Sequences of what insiders try: never does a version become active that was not approved as it is.

A state machine of Hypothesis, on a copy of one collection for each sequence.
"""

# ruff: noqa: S608  (every part of a statement is written here)

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from psycopg import sql
from psycopg.conninfo import make_conninfo

from revector.core import cutover
from revector.core.database import Connection, Database
from revector.core.roles import granting
from tests.databases import copied
from tests.faults.numbers import LONG
from tests.versions import NUMBERS, add_chunks, ready_version

ROLES = ("owner", "operator", "colleague", "approver", "viewer", "application")
KEYS = ("v1", "v2", "v3")
_ID = "(SELECT id FROM embedding_versions WHERE version_key = %(key)s)"
_REQUEST = f"(SELECT max(id) FROM cutover_requests WHERE embedding_version_id = {_ID} AND ended IS NULL)"
_TABLE = "chunk_embeddings_%d"

# What changes what an approval is bound to, when it succeeds.
VOIDING: tuple[LiteralString, ...] = (
    "UPDATE embedding_versions SET index_settings = jsonb_build_object('ef_search', 100 + floor(random() * 100)::int) "
    "WHERE version_key = %(key)s",
    "UPDATE embedding_versions SET encoder_spec = split_part(encoder_spec, '?', 1) || '?price=' || random() "
    "WHERE version_key = %(key)s",
    "UPDATE embedding_versions SET encoder_spec = 'static:wordllama-256?normalise=false' WHERE version_key = %(key)s",
    "SELECT retire_version(%(key)s)",
    "SELECT drop_version(%(key)s)",
    "UPDATE embedding_versions SET state = 'retired' WHERE version_key = %(key)s",
    "DELETE FROM embedding_versions WHERE version_key = %(key)s",
)
# Succeeds for the owner alone, and is about every version.
POLICIES: tuple[LiteralString, ...] = (
    "UPDATE cutover_policy SET settings = settings - 'request_hours' || '{\"request_hours\": 71}'",
    "UPDATE cutover_policy SET settings = settings - 'request_hours'",
)
# One of sixteen: more than a twentieth of the vectors that were approved.
LOSING: LiteralString = "DELETE FROM document_chunks WHERE id = (SELECT max(id) FROM document_chunks)"
# Must succeed for nobody but the owner, whose tables they are, or change nothing that counts.
FORGING: tuple[LiteralString, ...] = (
    "UPDATE embedding_versions SET completed_at = now(), proven_at = now() WHERE version_key = %(key)s",
    "UPDATE embedding_versions SET state = 'previous' WHERE version_key = %(key)s",
    "UPDATE embedding_versions SET version_key = 'v9' WHERE version_key = %(key)s",
    "UPDATE embedding_versions SET activated_at = now() WHERE version_key = %(key)s",
    "UPDATE embedding_versions SET active = false",
    f"INSERT INTO cutovers (action, from_version, to_version, embedding_version_id) "
    f"VALUES ('cutover', 'v1', %(key)s, {_ID})",
    "DELETE FROM cutovers",
    "UPDATE cutovers SET made_by = 'nobody'",
    f"UPDATE cutover_requests SET basis = '{{}}' WHERE id = {_REQUEST}",
    f"UPDATE cutover_requests SET ended = 'done' WHERE id = {_REQUEST} AND current_user <> session_user",
    "DELETE FROM cutover_requests",
    "UPDATE cutover_approvals SET approved_by = 'nobody'",
    "DELETE FROM cutover_approvals",
    "DELETE FROM audit_log",
    "INSERT INTO audit_log (action, version_key, outcome) VALUES ('cutover', 'v1', 'done')",
    "DELETE FROM chunk_outbox",
    "INSERT INTO row_counts (scope, delta) VALUES (1, -1000000000000)",
    "INSERT INTO document_chunks (id, semantic_key, document_id, chunk_no, content, content_sha256) "
    "VALUES (9000, 'x', gen_random_uuid(), 0, '', '')",
    "DELETE FROM chunk_embeddings_1",
    "UPDATE chunk_embeddings_2 SET embedding = embedding",
    "TRUNCATE chunk_embeddings_3",
    "SET revector.action = 'rollback'",
    "SET revector.force = 'because'",
    "SELECT begin_filling(id) FROM embedding_versions",
    "SELECT prove_version(id) FROM embedding_versions WHERE state <> 'registered'",
)


@contextmanager
def prepared(template: Database) -> Iterator[tuple[Database, dict[str, str]]]:
    """A collection that nobody is connected to: v1 active, v2 and v3 ready, one approval required, and its roles."""
    with ExitStack() as stack:
        server = stack.enter_context(
            psycopg.connect(make_conninfo(template.dsn, dbname="postgres"), autocommit=True)
        )
        names = {kind: f"insider_{kind}" for kind in ROLES[1:]}
        for name in names.values():
            server.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        stack.callback(_drop_roles, server, names)
        base = stack.enter_context(copied(template))
        with base.session("test") as connection:
            add_chunks(connection, NUMBERS)
            for key in KEYS:
                ready_version(base, connection, key)
            cutover.run(connection, "v1", confirm="v1")
            for kind in ("operator", "approver", "viewer", "application"):
                granting.grant(connection, names[kind], kind)  # type: ignore[arg-type]
            for kind in ("operator", "approver"):
                granting.grant(connection, names["colleague"], kind)  # type: ignore[arg-type]
            cutover.change_policy(connection, {"approvals": 1})
        yield base, names


def _drop_roles(server: psycopg.Connection[Any], names: dict[str, str]) -> None:
    groups = server.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'revector:Copy%'").fetchall()
    for name in names.values():
        server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
    for (group,) in groups:
        try:
            server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(group)))
        except psycopg.errors.DependentObjectsStillExist:
            continue  # of another test's collection


@pytest.fixture(scope="module")
def base(template: Database) -> Iterator[tuple[Database, dict[str, str]]]:
    with prepared(template) as found:
        yield found


# Those who may do most try most.
INSIDER = st.sampled_from((*ROLES[1:], "operator", "colleague"))
ROLE = st.sampled_from((*ROLES, "owner", "operator", "operator", "colleague", "colleague", "approver"))
KEY = st.sampled_from(KEYS)


def test_no_sequence_makes_active_what_was_not_approved(base: tuple[Database, dict[str, str]]) -> None:
    collection, names = base

    class Insiders(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.held = ExitStack()
            self.database = self.held.enter_context(copied(collection))
            self.sessions: dict[str, Connection] = {}
            for role in ROLES:
                user = {"user": names[role]} if role in names else {}
                own = Database(make_conninfo(self.database.dsn, **user), self.database.schema)
                self.sessions[role] = own.connect("test")
                self.held.callback(self.sessions[role].close)
            self.active, self.target = "v1", None
            # By key: who requested it, and who approved it; nothing once anything of it has changed.
            self.signed: dict[str, tuple[str, set[str]]] = {}
            self.flips = 1

        def teardown(self) -> None:
            self.held.close()

        def tries(self, role: str, statement: LiteralString, **values: object) -> bool:
            """Whether the statement did anything; what Postgres refuses is refused."""
            try:
                return self.sessions[role].execute(statement, values).rowcount != 0
            except psycopg.Error:
                return False

        @rule(role=ROLE, key=KEY)
        def request(self, role: str, key: str) -> None:
            if self.tries(
                role,
                "INSERT INTO cutover_requests (embedding_version_id, reason, expires_at, basis) "
                f"VALUES ({_ID}, 'because', now(), '{{}}')",
                key=key,
            ):
                assert role in ("owner", "operator", "colleague")
                self.signed[key] = (role, set())

        @rule(role=ROLE, key=KEY)
        def approve(self, role: str, key: str) -> None:
            if self.tries(
                role, f"INSERT INTO cutover_approvals (request_id, comment) VALUES ({_REQUEST}, 'x')", key=key
            ):
                requester, approvers = self.signed[key]
                assert role in ("owner", "approver", "colleague")
                assert role != requester
                approvers.add(role)

        @rule(
            key=KEY, requester=st.sampled_from(("operator", "colleague")),
            then=st.sampled_from(("", "", "flip", "flip", *VOIDING[:3], *POLICIES, "policy and back", LOSING)),
        )  # fmt: skip
        def agree(self, key: str, requester: str, then: LiteralString) -> None:
            """As it should be: one requests, another approves. Then somebody flips, or changes something before."""
            self.request(requester, key)
            self.approve("approver", key)
            if then in VOIDING:
                self.change(requester, key, then)
            elif then in POLICIES:
                self.policy("owner", then)
            elif then == "policy and back":
                for statement in POLICIES:
                    self.policy("owner", statement)
            elif then == LOSING:
                self.lose(requester)
            if then:
                self.flip(requester, key)

        @rule(role=ROLE, key=KEY)
        def withdraw(self, role: str, key: str) -> None:
            if self.tries(role, f"SELECT withdraw_request({_REQUEST}, '')", key=key):
                self.signed.pop(key, None)

        @rule(role=ROLE, key=KEY)
        def flip(self, role: str, key: str) -> None:
            if not self.tries(role, cutover.FLIP, key=key) or self._active() == self.active:
                return
            assert role in ("owner", "operator", "colleague")
            back = key == self.target
            if not back:
                requester, approvers = self.signed.get(key, ("", set()))
                assert approvers - {requester}, f"{key} was not approved"
            (entry,) = self._owner("SELECT action, actor, version_key FROM audit_log WHERE action IN "
                                   "('cutover', 'rollback') AND outcome = 'done' ORDER BY id DESC LIMIT 1")  # fmt: skip
            actor = names.get(role) or self.sessions["owner"].info.user
            assert entry == ("rollback" if back else "cutover", actor, key)
            self.flips += 1
            self.signed.pop(key, None)
            self.active, self.target = key, None if back else self.active

        @rule(role=ROLE)
        def flip_to_any(self, role: str) -> None:
            for key in KEYS:
                self.flip(role, key)

        @rule(role=ROLE, key=KEY, statement=st.sampled_from(VOIDING))
        def change(self, role: str, key: str, statement: LiteralString) -> None:
            if self.tries(role, statement, key=key):
                self.signed.pop(key, None)
                if key == self.target and "SET encoder" not in statement and "SET index" not in statement:
                    assert role == "owner", f"{key} is what a rollback needs"  # who may force it
                    self.target = None

        @rule(role=ROLE, statement=st.sampled_from(POLICIES))
        def policy(self, role: str, statement: LiteralString) -> None:
            before = self._owner("SELECT settings FROM cutover_policy")
            if self.tries(role, statement) and self._owner("SELECT settings FROM cutover_policy") != before:
                assert role == "owner"
                self.signed.clear()

        @rule(role=ROLE)
        def lose(self, role: str) -> None:
            if self.tries(role, LOSING):
                assert role in ("owner", "operator", "colleague")
                self.signed.clear()

        @rule(role=ROLE, key=KEY)
        def flip_by_an_old_snapshot(self, role: str, key: str) -> None:
            session = self.sessions[role]
            session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            try:
                with session.transaction():
                    assert not self.tries(role, cutover.FLIP, key=key)
            finally:
                session.isolation_level = None

        @rule(role=INSIDER, key=KEY, statement=st.sampled_from(FORGING))
        def forge(self, role: str, key: str, statement: LiteralString) -> None:
            self.tries(role, statement, key=key)

        @invariant()
        def the_facts_are_the_models(self) -> None:
            assert self._active() == self.active
            flips = "SELECT count(*) FROM audit_log WHERE action IN ('cutover', 'rollback') AND outcome = 'done'"
            assert self._owner(flips) == [(self.flips,)]
            if self.target is not None:
                assert self._owner("SELECT version_key FROM embedding_versions WHERE id = rollback_target()") == [
                    (self.target,)
                ]
            lacking = "SELECT count(*) FROM document_chunks WHERE id NOT IN (SELECT chunk_id FROM {})"
            ((number,),) = self._owner("SELECT id FROM embedding_versions WHERE active")
            table = sql.Identifier(_TABLE % number)
            assert self._owner(sql.SQL(lacking).format(table)) == [(0,)]

        def _owner(self, query: LiteralString | sql.Composed) -> list[Any]:
            return self.sessions["owner"].execute(query).fetchall()

        def _active(self) -> str:
            return str(self._owner("SELECT version_key FROM embedding_versions WHERE active")[0][0])

    run_state_machine_as_test(
        Insiders,
        settings=settings(
            max_examples=1_000 if LONG else 50,
            stateful_step_count=25,
            # A failure is said as it was found: to shorten it takes longer than a test may.
            phases=[phase for phase in Phase if LONG or phase not in (Phase.shrink, Phase.explain)],
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
