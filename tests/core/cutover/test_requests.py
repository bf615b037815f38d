"""Requests for a cutover and their approvals, by real roles; what the database refuses to psql too."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from revector.core import audit, cutover, index
from revector.core.cutover import Guard, Policy, Request
from revector.core.database import Connection, Database
from revector.core.errors import RefusedError, UsageError
from revector.core.registry import Version, active_version, get_version, retire_version
from tests.login_roles import login_role
from tests.versions import add_chunks, backfill

As = Callable[[str], Connection]


@pytest.fixture
def two(two: tuple[Version, Version], connection: Connection) -> tuple[Version, Version]:
    """v1 active, v2 ready; from now on a cutover needs one approval."""
    cutover.change_policy(connection, {"approvals": 1})
    return two


@pytest.fixture
def as_role(database: Database, connection: Connection) -> Iterator[As]:
    """`as_role("alice")`: a session that has logged in as that role, which has every right on rows."""
    roles: dict[str, Database] = {}
    with ExitStack() as held:

        def connect(name: str) -> Connection:
            if name not in roles:
                roles[name] = held.enter_context(login_role(connection, database, name))
            own = roles[name].connect("test")
            held.callback(own.close)
            return own

        yield connect


def active_key(connection: Connection) -> str | None:
    active = active_version(connection)
    return active.version_key if active else None


def flip_by_hand(connection: Connection, key: str) -> None:
    """As anybody may type it into psql."""
    connection.execute(cutover.FLIP, {"key": key})


def guard(connection: Connection, key: str) -> Guard:
    return next(guard for guard in cutover.check(connection, key).guards if guard.name == "approvals")


def opened(connection: Connection, key: str = "v2") -> Request:
    found = cutover.open_request(connection, get_version(connection, key))
    assert found is not None
    return found


def test_a_cutover_is_requested_approved_by_another_and_run(
    connection: Connection, two: tuple[Version, Version], as_role: As
) -> None:
    alice, bob = as_role("alice"), as_role("bob")
    assert guard(connection, "v2").verdict == "fail"
    made = cutover.request(alice, "v2", reason="better on invoices")
    assert (made.requested_by, made.state, made.needed) == (alice.info.user, "open", 1)
    assert "16 of 16" in made.guards["complete"]
    with pytest.raises(RefusedError, match="approvals: 0 of 1"):
        cutover.run(alice, "v2", confirm="v2")
    given = cutover.approve(bob, "v2", comment="looks right", request_id=made.id)
    assert given.state == "approved"
    assert [(one.approved_by, one.comment) for one in given.approvals] == [(bob.info.user, "looks right")]
    assert guard(connection, "v2").verdict == "pass"
    flip = cutover.run(alice, "v2", confirm="v2")
    assert (flip.previous, active_key(connection)) == ("v1", "v2")
    done = cutover.requests(connection)[0]
    assert (done.id, done.state) == (made.id, "done")
    actions = [(entry.action, entry.actor) for entry in audit.entries(connection, limit=4)]
    assert actions == [
        ("cutover", alice.info.user), ("cutover approve", bob.info.user), ("cutover", alice.info.user),
        ("cutover request", alice.info.user),
    ]  # fmt: skip


def test_nobody_approves_their_own_request_by_whatever_means(
    connection: Connection, two: tuple[Version, Version], as_role: As
) -> None:
    alice, bob = as_role("alice"), as_role("bob")
    made = cutover.request(alice, "v2", reason="mine")
    with pytest.raises(RefusedError, match="Nobody approves their own request"):
        cutover.approve(alice, "v2")
    entry = audit.entries(connection, limit=1)[0]
    assert (entry.action, entry.outcome, entry.actor) == ("cutover approve", "refused", alice.info.user)
    with pytest.raises(psycopg.errors.RaiseException, match="Nobody approves"):
        alice.execute(
            "INSERT INTO cutover_approvals (request_id, approved_by) VALUES (%s, %s)", [made.id, bob.info.user]
        )
    assert opened(connection).approvals == ()
    bob.execute("INSERT INTO cutover_approvals (request_id, approved_by) VALUES (%s, 'the director')", [made.id])
    assert [one.approved_by for one in opened(connection).approvals] == [bob.info.user]
    with pytest.raises(RefusedError, match="already approved the request for v2"):
        cutover.approve(bob, "v2")


def test_who_asks_and_on_what_basis_is_not_for_the_statement_to_say(
    connection: Connection, two: tuple[Version, Version], as_role: As
) -> None:
    alice = as_role("alice")
    alice.execute(
        """
        INSERT INTO cutover_requests (embedding_version_id, requested_by, requested_at, reason, expires_at, basis)
        VALUES (%s, 'the director', '2001-01-01', 'because', '2999-01-01', '{"policy": {"approvals": 0}}')
        """,
        [two[1].id],
    )
    made = opened(connection)
    assert made.requested_by == alice.info.user
    assert (made.expires_at - made.requested_at).total_seconds() == Policy().request_hours * 3600
    assert made.basis["encoder"] == "static:wordllama-128"
    assert made.void_because == ""


TAMPERING = [
    "UPDATE cutover_requests SET basis = '{}'",
    "UPDATE cutover_requests SET expires_at = '2999-01-01'",
    "UPDATE cutover_requests SET waivers = '{\"index used\": \"no\"}', ended = 'done'",
    "DELETE FROM cutover_requests",
    "TRUNCATE cutover_requests CASCADE",
    "UPDATE cutover_approvals SET approved_by = 'the director'",
    "DELETE FROM cutover_approvals",
    "TRUNCATE cutover_approvals",
    "UPDATE cutovers SET made_by = 'the director'",
    "DELETE FROM cutovers",
    "TRUNCATE cutovers",
]


def test_what_was_signed_cannot_be_changed_afterwards(
    connection: Connection, two: tuple[Version, Version], as_role: As
) -> None:
    alice, bob = as_role("alice"), as_role("bob")
    cutover.request(alice, "v2", reason="better")
    cutover.approve(bob, "v2")
    before = (cutover.requests(connection), connection.execute("SELECT * FROM cutovers").fetchall())
    for statement in TAMPERING:
        with pytest.raises(psycopg.errors.RaiseException):
            alice.execute(statement)
        assert (cutover.requests(connection), connection.execute("SELECT * FROM cutovers").fetchall()) == before


def test_the_database_refuses_an_unapproved_flip_from_psql(
    connection: Connection, two: tuple[Version, Version], as_role: As
) -> None:
    alice, bob = as_role("alice"), as_role("bob")

    def refused(why: str) -> None:
        with pytest.raises(psycopg.errors.RaiseException, match=why):
            flip_by_hand(alice, "v2")
        assert active_key(connection) == "v1"

    refused("v2 is not approved: nobody has requested it")
    alice.execute("CREATE TEMPORARY TABLE cutover_policy (settings jsonb)")  # found first by many a function
    alice.execute("CREATE TEMPORARY TABLE cutovers AS SELECT %s::bigint AS embedding_version_id", [two[1].id])
    refused("v2 is not approved: nobody has requested it")
    alice.execute("DROP TABLE pg_temp.cutover_policy, pg_temp.cutovers")
    cutover.request(alice, "v2", reason="better")
    refused("v2 is not approved: 0 of 1 approvals")
    cutover.approve(bob, "v2")
    flip_by_hand(alice, "v2")
    assert active_key(connection) == "v2"
    assert cutover.requests(connection)[0].state == "done"
    flip_by_hand(alice, "v1")  # the way back is free
    assert active_key(connection) == "v1"
    refused("v2 is not approved: nobody has requested it")  # and forward again it is not
    assert not cutover.rollback(alice, confirm="v1").changed
    assert active_key(connection) == "v1"


def test_a_flip_changes_nothing_else_of_the_version(connection: Connection, two: tuple[Version, Version]) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match="changes other things of it too"):
        connection.execute(
            "UPDATE embedding_versions SET active = version_key = 'v2', "
            "index_settings = CASE version_key WHEN 'v2' THEN '{\"m\": 4}' ELSE index_settings END"
        )
    assert active_key(connection) == "v1"


CHANGES: dict[str, Callable[[Connection, Version], object]] = {
    "encoder changed from": lambda c, v: c.execute(
        "UPDATE embedding_versions SET encoder_spec = 'static:wordllama-128?price=1' WHERE id = %s", [v.id]
    ),
    "index settings ef_search changed from none to 10": lambda c, v: c.execute(
        """UPDATE embedding_versions SET index_settings = '{"ef_search": 10}' WHERE id = %s""", [v.id]
    ),
    "policy min_recall changed from none to 0.5": lambda c, _: cutover.change_policy(c, {"min_recall": 0.5}),
    "policy since changed from": lambda c, _: [
        cutover.change_policy(c, {"approvals": approvals}) for approvals in (0, 1)
    ],
    r"evaluations changed from none to s \(by postgres.*; gates changed from none to s \(.*P@10": (
        lambda c, v: evaluated(c, v, 0.9)
    ),
    r"evaluations s number changed from \d to \d": lambda c, v: evaluated(c, v, 0.9),
    "index changed from": lambda c, v: index.drop(c, v),
}


def evaluated(connection: Connection, version: Version, bound: float) -> None:
    """An evaluation with one gate, as rows."""
    report = {"gates": [{"name": "P@10", "measure": "P@10", "segment": "all", "kind": "floor", "bound": bound}]}
    run = connection.execute(
        """
        WITH s AS (INSERT INTO query_sets (name) VALUES ('s') ON CONFLICT (name) DO UPDATE SET name = 's' RETURNING id)
        INSERT INTO evaluation_runs (query_set_id, query_set_revision, embedding_version_id, version_key, encoder,
                                     encoder_revision, k, exact, index_settings, chunks, queries, state)
        SELECT id, '', %s, 'v2', '', '', 10, true, '{}', 0, 0, 'done' FROM s RETURNING query_set_id, id, id
        """,
        [version.id],
    ).fetchone()
    assert run is not None
    connection.execute(
        """
        INSERT INTO evaluations (query_set_id, primary_run_id, candidate_run_id, primary_version, candidate_version,
                                 verdict, report, created_by)
        VALUES (%s, %s, %s, 'v1', 'v2', 'pass', %s, 'the director')
        """,
        [*run, Jsonb(report)],
    )


def test_what_changes_after_the_approval_voids_it(
    connection: Connection, two: tuple[Version, Version], as_role: As
) -> None:
    alice, bob, carol = as_role("alice"), as_role("bob"), as_role("carol")
    for what, change in CHANGES.items():
        made = cutover.request(alice, "v2", reason=f"before {what}")
        cutover.approve(bob, "v2")
        assert opened(connection).state == "approved"
        change(connection, two[1])
        found = opened(connection)
        assert (found.id, found.state) == (made.id, "void")
        assert re.search(what, found.void_because)
        assert re.search(f"void.*{what}", guard(connection, "v2").detail)
        with pytest.raises(RefusedError, match="void"):
            cutover.approve(carol, "v2")
        with pytest.raises(psycopg.errors.RaiseException, match=f"void, since .*{what.split()[0]}"):
            flip_by_hand(connection, "v2")
        cutover.request(bob, "v2", reason="once more")
        over = cutover.requests(connection)[1]
        assert (over.id, over.ended) == (made.id, "void")
        assert re.search(what, over.ended_why)
        cutover.withdraw(bob, "v2")


def test_new_chunks_void_nothing(
    database: Database, connection: Connection, two: tuple[Version, Version], as_role: As
) -> None:
    evaluated(connection, two[1], 0.9)
    cutover.request(as_role("alice"), "v2", reason="better")
    cutover.approve(as_role("bob"), "v2")
    add_chunks(connection, ["new"])
    backfill(database, two[1])
    assert opened(connection).state == "approved"
    assert cutover.run(connection, "v2", confirm="v2").version_key == "v2"


def test_an_approval_counts_no_longer_than_its_right(
    connection: Connection, two: tuple[Version, Version], as_role: As
) -> None:
    alice, bob = as_role("alice"), as_role("bob")
    cutover.request(alice, "v2", reason="better")
    cutover.approve(bob, "v2")
    role = sql.Identifier(bob.info.user)
    connection.execute(sql.SQL("REVOKE INSERT ON cutover_approvals FROM {}").format(role))
    assert opened(connection).state == "open"
    assert f"0 of 1 approvals ({bob.info.user}, who may no longer approve)" in guard(connection, "v2").detail
    with pytest.raises(psycopg.errors.RaiseException, match="v2 is not approved: 0 of 1 approvals"):
        flip_by_hand(connection, "v2")
    connection.execute(sql.SQL("GRANT INSERT ON cutover_approvals TO {}").format(role))
    assert opened(connection).state == "approved"


def test_evidence_of_another_where_the_policy_asks_for_it(
    connection: Connection, two: tuple[Version, Version], as_role: As
) -> None:
    alice, bob = as_role("alice"), as_role("bob")
    cutover.change_policy(connection, {"evidence_by": "another"})
    with pytest.raises(RefusedError, match=f"by another role than {alice.info.user}: there is none"):
        cutover.request(alice, "v2", reason="better")
    evaluated(alice, two[1], 0.9)
    with pytest.raises(RefusedError, match=f"by another role than {alice.info.user}: number 1 is its own"):
        cutover.request(alice, "v2", reason="better")
    evaluated(bob, two[1], 0.9)
    cutover.request(alice, "v2", reason="by bob's evaluation")
    cutover.approve(bob, "v2")
    flip_by_hand(alice, "v2")
    assert active_key(connection) == "v2"


def test_what_is_done_by_sql_is_in_the_log_as_well(
    connection: Connection, two: tuple[Version, Version], as_role: As
) -> None:
    alice, bob = as_role("alice"), as_role("bob")
    alice.execute("SET revector.client = 'the director@home'")
    alice.execute(
        "INSERT INTO cutover_requests (embedding_version_id, reason, expires_at, basis) VALUES (%s, 'x', now(), '{}')",
        [two[1].id],
    )
    number = opened(connection).id
    bob.execute("INSERT INTO cutover_approvals (request_id, comment) VALUES (%s, 'fine')", [number])
    bob.execute("SELECT withdraw_request(%s, 'no')", [number])
    found = [(one.action, one.actor, one.reason, one.detail) for one in audit.entries(connection, limit=3)]
    assert found == [
        ("cutover withdraw", bob.info.user, "no", {"request": number}),
        ("cutover approve", bob.info.user, "fine", {"request": number}),
        ("cutover request", alice.info.user, "x", {"request": number, "waived": {}}),
    ]


def test_a_request_expires(connection: Connection, two: tuple[Version, Version], as_role: As) -> None:
    alice, bob = as_role("alice"), as_role("bob")
    made = cutover.request(alice, "v2", reason="better")
    for statement in (
        "ALTER TABLE cutover_requests DISABLE TRIGGER check_request",
        "UPDATE cutover_requests SET expires_at = now()",
        "ALTER TABLE cutover_requests ENABLE TRIGGER check_request",
    ):
        connection.execute(statement)  # type: ignore[arg-type]
    assert opened(connection).state == "expired"
    with pytest.raises(RefusedError, match="expired"):
        cutover.approve(bob, "v2")
    assert "expired" in guard(connection, "v2").detail
    with pytest.raises(psycopg.errors.RaiseException, match=r"not approved: the request of .* has expired"):
        flip_by_hand(connection, "v2")
    assert cutover.request(alice, "v2", reason="again").state == "open"
    assert [one.state for one in cutover.requests(connection)] == ["open", "expired"]
    assert cutover.requests(connection)[1].id == made.id


def test_a_request_is_withdrawn_and_is_over(
    connection: Connection, two: tuple[Version, Version], as_role: As
) -> None:
    alice, bob = as_role("alice"), as_role("bob")
    made = cutover.request(alice, "v2", reason="better")
    with pytest.raises(RefusedError, match=f"{alice.info.user} has already requested"):
        cutover.request(bob, "v2", reason="mine is better")
    assert cutover.withdraw(bob, "v2", reason="not on a Friday").state == "withdrawn"
    assert cutover.requests(connection)[0].ended_why == "not on a Friday"
    with pytest.raises(RefusedError, match="no open request"):
        cutover.approve(bob, "v2")
    second = cutover.request(alice, "v2", reason="on Monday")
    with pytest.raises(RefusedError, match=f"Request {made.id} has ended"):
        cutover.approve(bob, "v2", request_id=made.id)
    assert opened(connection).id == second.id
    assert opened(connection).approvals == ()


def test_two_approvals_are_of_two_roles(connection: Connection, two: tuple[Version, Version], as_role: As) -> None:
    cutover.change_policy(connection, {"approvals": 2})
    cutover.request(as_role("alice"), "v2", reason="better")
    assert cutover.approve(as_role("bob"), "v2").state == "open"
    with pytest.raises(RefusedError, match="already"):
        cutover.approve(as_role("bob"), "v2")
    with pytest.raises(RefusedError, match="1 of 2"):
        cutover.run(connection, "v2", confirm="v2")
    assert cutover.approve(as_role("carol"), "v2").state == "approved"
    assert cutover.run(connection, "v2", confirm="v2").version_key == "v2"


def test_what_cannot_be_requested(connection: Connection, two: tuple[Version, Version]) -> None:
    with pytest.raises(UsageError, match="needs a reason"):
        cutover.request(connection, "v2", reason=" ")
    with pytest.raises(UsageError, match="cannot be waived"):
        cutover.request(connection, "v2", reason="quick", waivers={"complete": "it is nearly so"})
    with pytest.raises(RefusedError, match="already active"):
        cutover.request(connection, "v1", reason="again")
    retire_version(connection, "v2")
    with pytest.raises(RefusedError, match="never complete"):
        cutover.request(connection, "v2", reason="better")


def test_the_database_knows_the_defaults_of_the_policy(connection: Connection) -> None:
    """The triggers name them once more: only what differs is stored."""
    sources = connection.execute("SELECT string_agg(prosrc, ' ') FROM pg_proc WHERE prosrc ~ 'cutover_setting'")
    named = dict(re.findall(r"cutover_setting\('(\w+)', (\d+)\)", sources.fetchone()[0]))  # type: ignore[index]
    assert set(named) == {"approvals", "request_hours", "watch_hours"}
    assert {name: float(value) for name, value in named.items()} == {
        name: getattr(Policy(), name) for name in named
    }
