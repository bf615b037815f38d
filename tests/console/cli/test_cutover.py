"""`revector cutover` on the command line: requests and approvals, the dry run, waivers, the watch, the history."""

from __future__ import annotations

from pathlib import Path

import pytest

from revector.core import cutover
from revector.core.database import Connection, Database
from revector.core.registry import active_version
from tests.console.cli.conftest import TEXTS, on
from tests.console.cli.program import Revector, finish
from tests.login_roles import login_role
from tests.versions import add_chunks, ready_version


@pytest.fixture
def two(database: Database, connection: Connection) -> None:
    """v1 active, v2 ready."""
    add_chunks(connection, TEXTS)
    ready_version(database, connection, "v1")
    cutover.run(connection, "v1", confirm="v1")
    ready_version(database, connection, "v2", "static:wordllama-128")


def active_key(connection: Connection) -> str:
    active = active_version(connection)
    assert active is not None
    return active.version_key


@pytest.mark.usefixtures("two")
def test_a_request_is_approved_by_another_role_and_run(
    database: Database, connection: Connection, revector: Revector, tmp_path: Path
) -> None:
    cutover.change_policy(connection, {"approvals": 1})
    with login_role(connection, database, "bob") as as_bob:
        bob = on(as_bob, tmp_path)
        assert (
            "not requested; 1 required" in revector.call("cutover", "run", "v2", "--confirm", "v2", status=1).err
        )
        made = revector.call("cutover", "request", "v2", "--reason", "better", "--json").document
        assert (made["requested_by"], made["state"], made["needed"]) == ("postgres", "open", 1)
        assert "Nobody approves their own" in revector.call("cutover", "approve", "v2", status=1).err
        assert "for 1 approval, until" in revector.call("cutover", "requests").out
        given = bob.call("cutover", "approve", "v2", "--comment", "seen \x1b[31m", "--json").document
        assert given["state"] == "approved"
        shown = revector.call("cutover", "requests").out
        assert "asked     postgres, " in shown
        assert "bob of" in shown
        assert "\x1b" not in shown
        assert revector.call("cutover", "run", "v2", "--confirm", "v2", "--json").document["version_key"] == "v2"
        entry = revector.call("cutover", "history", "--json").document["cutovers"][0]
        assert (entry["requested_by"], entry["approved_by"]) == ("postgres", [f"bob of {database.schema}"])
    assert "done" in revector.call("cutover", "requests").out
    assert "approved by bob of" in revector.call("cutover", "history").out


@pytest.mark.usefixtures("two")
def test_a_request_takes_a_reason_and_is_withdrawn(revector: Revector) -> None:
    assert "needs a reason" in revector.call("cutover", "request", "v2", status=2).err
    revector.call("cutover", "request", "v2", "--reason", "better")
    assert (
        "has already requested a cutover to v2"
        in revector.call("cutover", "request", "v2", "--reason", "again", status=1).err
    )
    over = revector.call("cutover", "withdraw", "v2", "--reason", "not on a Friday", "--json").document
    assert (over["state"], over["ended_why"]) == ("withdrawn", "not on a Friday")
    assert "not on a Friday" in revector.call("cutover", "requests").out
    assert "no open request" in revector.call("cutover", "approve", "v2", status=1).err


@pytest.mark.usefixtures("two")
def test_a_dry_run_prints_the_sql_and_changes_nothing(connection: Connection, revector: Revector) -> None:
    found = revector.call("cutover", "run", "v2", "--dry-run", "--json").document
    assert found["dry_run"] is True
    assert (found["previous"], found["dry_run"], found["ready"]) == ("v1", True, True)
    shown = revector.call("--read-only", "cutover", "run", "v2", "--dry-run").out
    for text in (
        "BEGIN;",
        "SELECT lock_flip();",
        "UPDATE embedding_versions",
        "THEN true ELSE false END;",
        "COMMIT;",
    ):
        assert text in shown
        assert text in "\n".join(found["statements"])
    connection.execute("DELETE FROM dead_letters")
    add_chunks(connection, ["new"])
    assert "1 missing" in revector.call("cutover", "run", "v2", "--dry-run", status=1).out
    assert active_key(connection) == "v1"


@pytest.mark.usefixtures("two")
def test_a_waiver_takes_a_name_and_a_reason_and_there_is_no_way_round_all_of_them(
    connection: Connection, revector: Revector
) -> None:
    cutover.change_policy(connection, {"evaluation": "required"})
    assert "No such option" in revector.call("cutover", "run", "v2", "--no-guards", status=2).err
    assert "evaluation" in revector.call("cutover", "run", "v2", "--confirm", "v2", status=1).err
    waive = ("cutover", "run", "v2", "--confirm", "v2", "--waive", "evaluation")
    assert "cannot be read as --waive" in revector.call(*waive, status=2).err
    assert (
        "cannot be waived"
        in revector.call(
            "cutover", "run", "v2", "--confirm", "v2", "--waive", "complete", "--reason", "nearly", status=2
        ).err
    )
    assert active_key(connection) == "v1"
    revector.call(*waive, "--reason", "the judges are away", "--dry-run")
    assert active_key(connection) == "v1"
    revector.call(*waive, "--reason", "the judges are away")
    assert active_key(connection) == "v2"
    assert "waived evaluation: the judges are away" in revector.call("cutover", "history").out
    assert revector.call("log", "-n", "1", "--json").document["entries"][0]["detail"]["client_says"]["waived"] == {
        "evaluation": "the judges are away"
    }


@pytest.mark.usefixtures("two")
def test_where_approvals_are_required_only_approved_waivers_count(
    database: Database, connection: Connection, revector: Revector, tmp_path: Path
) -> None:
    cutover.change_policy(connection, {"evaluation": "required", "approvals": 1})
    with login_role(connection, database, "bob") as as_bob:
        bob = on(as_bob, tmp_path)
        revector.call("cutover", "request", "v2", "--reason", "better")
        bob.call("cutover", "approve", "v2")
        refused = revector.call(
            "cutover", "run", "v2", "--confirm", "v2", "--waive", "evaluation", "--reason", "in a hurry", status=1
        )
        assert "does not waive evaluation" in refused.err
        assert active_key(connection) == "v1"
        revector.call("cutover", "withdraw", "v2")
        revector.call("cutover", "request", "v2", "--reason", "judges away", "--waive", "evaluation")
        bob.call("cutover", "approve", "v2")
        revector.call("cutover", "run", "v2", "--confirm", "v2")
        assert active_key(connection) == "v2"


@pytest.mark.usefixtures("two")
def test_the_watch_keeps_the_way_back_and_rolls_back_when_told_so(
    connection: Connection, revector: Revector, logged: list[str]
) -> None:
    assert revector.call("cutover", "watch", "--once", "--json").document == {
        "watch": None, "rolled_back": None, "would_have_rolled_back": None,
    }  # fmt: skip
    revector.call("shadow", "start", "v2", "--confirm", "v2")
    revector.call("cutover", "run", "v2", "--confirm", "v2")
    add_chunks(connection, ["new"])
    assert "1 chunk missing in v1" in revector.call("cutover", "watch", "--once", "--no-keep").out
    kept = revector.call("cutover", "watch", "--once", "--json").document["watch"]
    assert (kept["missing"], kept["since"]["searches"], kept["overlap"]) == (0, 0, None)
    cutover.change_policy(connection, {"min_overlap": 0.5})
    assert "min_overlap cannot be judged yet" in revector.call("cutover", "watch", "--once").out
    connection.execute(
        """
        INSERT INTO shadow_queries (shadow_id, primary_version, k, primary_keys, candidate_keys, overlap, primary_ms)
        SELECT id, 'v2', 10, '{}', '{}', 0.1, 1 FROM shadows, generate_series(1, 50) WHERE stopped_at IS NULL
        """
    )
    told = revector.call("cutover", "watch", "--once", status=1).out
    assert "BROKEN min_overlap" in told
    assert "automatic rollback is off" in told
    assert "it would have rolled back to v1" in told
    omitted = revector.call("cutover", "watch", "--once", "--json", status=1).document["would_have_rolled_back"]
    assert omitted["version_key"] == "v1"
    assert omitted["reason"].startswith("min_overlap: mean overlap is 0.10")
    assert active_key(connection) == "v2"
    back = revector.call("cutover", "watch", "--auto-rollback", "--json", status=1).document
    assert (back["rolled_back"]["version_key"], back["watch"]["breaches"][0]["limit"]) == ("v1", "min_overlap")
    assert active_key(connection) == "v1"
    assert "automatic: min_overlap" in revector.call("cutover", "history").out
    for line in ("INFO watch of v2: no limit is broken", "WARNING watch of v2: broken: min_overlap",
                 "INFO cutover to v2, was v1", "INFO rollback to v1, was v2"):  # fmt: skip
        assert line in logged


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("as_json", [True, False])
def test_a_watch_says_that_somebody_else_rolled_back(
    connection: Connection, revector: Revector, as_json: bool
) -> None:
    revector.call("cutover", "run", "v2", "--confirm", "v2")
    watch = ("cutover", "watch", "--auto-rollback", "--no-keep", "--every", "0.1")
    process = revector.start(*watch, *(["--json"] if as_json else []))
    assert process.stderr is not None
    assert "v1 \u2192 v2, watched until" in process.stderr.readline()
    cutover.rollback(connection, confirm="v1", reason="too many complaints")
    found = finish(process, 1)
    if as_json:
        document = found.document
        assert document["watch"]["breaches"] == []
        back = document["rolled_back"]
        assert (back["version_key"], back["previous"], back["made_by"]) == ("v1", "v2", "postgres")
        assert back["changed"] is False
    else:
        assert "Rolled back to v1 by postgres at " in found.out
        assert found.out.endswith(": too many complaints\n")
