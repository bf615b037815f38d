"""`cutover check`, `cutover guards`, `cutover policy` and `index prewarm`."""

from __future__ import annotations

import pytest

from revector.core import cutover
from revector.core.cutover.policy import HELP
from revector.core.database import Connection, Database
from tests.console.cli.conftest import TEXTS
from tests.console.cli.program import Revector
from tests.versions import add_chunks, ready_version


@pytest.fixture
def ready(revector: Revector, database: Database, connection: Connection) -> Revector:
    """v1 active, v2 ready."""
    add_chunks(connection, TEXTS)
    for key in ("v1", "v2"):
        ready_version(database, connection, key)
    cutover.run(connection, "v1", confirm="v1")
    return revector


def test_every_guard_says_what_it_looks_at(library: Revector) -> None:
    found = library.call("cutover", "guards", "--json").document["guards"]
    assert [guard["name"] for guard in found] == [rule.name for rule in cutover.GUARDS]
    recall = next(guard for guard in found if guard["name"] == "recall")
    assert recall["settings"] == {"recall_queries": 400, "min_recall": 0.9, "recall_timeout_s": 30.0}
    assert (recall["waivable"], recall["in_flip"]) == (True, False)
    shown = library.call("cutover", "guards").out
    for rule in cutover.GUARDS:
        assert rule.about in shown
    assert "recall_queries=400, min_recall=0.9" in shown


def test_the_policy_is_shown_and_changed(ready: Revector) -> None:
    assert ready.call("cutover", "policy", "--json").document["settings"]["approvals"] == 0
    changed = ready.call(
        "cutover", "policy", "shadow_queries=100", "min_overlap=0.6", "--reason", "we want to see it", "--json"
    ).document["settings"]
    assert (changed["shadow_queries"], changed["min_overlap"]) == (100, 0.6)
    shown = ready.call("cutover", "policy").out
    for text in (*HELP, *HELP.values()):
        assert text in shown
    entry = ready.call("log", "-n", "1", "--json").document["entries"][0]
    assert (entry["action"], entry["reason"]) == ("cutover policy", "we want to see it")
    assert (
        ready.call("cutover", "policy", "min_overlap=none", "--json").document["settings"]["min_overlap"] is None
    )


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["min_recall=2"], "The setting min_recall cannot be '2'"),
        (["min_recal=0.5"], "min_recall"),
        (["min_recall"], "'min_recall' cannot be read as a setting"),
        (["=3"], "'=3' cannot be read as a setting"),
        (["approvals=1", "approvals=2"], "'approvals' is given twice"),
        (["approvals=\x1b[31m1"], "approvals cannot be"),
    ],
)
def test_what_is_no_policy_is_usage(library: Revector, given: list[str], text: str) -> None:
    assert text in library.call("cutover", "policy", *given, status=2).err
    assert library.call("cutover", "policy", "--json").document["settings"]["min_recall"] == 0.9


def test_a_policy_is_read_but_not_changed_in_a_read_only_session(library: Revector) -> None:
    reading = library.with_options("--read-only")
    assert reading.call("cutover", "policy", "--json").document["settings"]["approvals"] == 0
    assert "read-only" in reading.call("cutover", "policy", "approvals=1", status=1).err


def test_exit_statuses_of_a_check_and_its_waivers(ready: Revector) -> None:
    assert ready.call("cutover", "check", "v2", "--json").document["ready"] is True
    ready.call("cutover", "policy", "shadow_queries=100")
    assert "none of v1's queries" in ready.call("cutover", "check", "v2", status=1).out
    waived = ready.call("cutover", "check", "v2", "--waive", "shadow=nobody = searches at night")
    assert "waived: nobody = searches at night" in waived.out
    assert "v2 is ready." in waived.out
    found = ready.call("cutover", "check", "v2", "--waive", "shadow=at night", "--json").document
    assert {guard["name"]: guard.get("waived") for guard in found["guards"] if guard.get("waived")} == {
        "shadow": "at night"
    }
    assert found["ready"] is True

    ready.call("cutover", "policy", "shadow_queries=0", "recall_timeout_s=0.00001")
    assert "?  recall" in ready.call("cutover", "check", "v2", status=3).out
    assert "v2 is ready." in ready.call("cutover", "check", "v2", "--waive", "recall=measured by hand").out


@pytest.mark.parametrize(
    ("waiver", "text"),
    [
        ("complete=later", "'complete' cannot be waived"),
        ("recall=", "needs a reason"),
        ("recal=so", "recall"),
        ("recall", "'recall' cannot be read as --waive"),
    ],
)
def test_what_is_no_waiver_is_usage(library: Revector, waiver: str, text: str) -> None:
    assert text in library.call("cutover", "check", "v2", "--waive", waiver, status=2).err


def test_an_index_is_warmed(library: Revector) -> None:
    found = library.call("index", "prewarm", "v2", "--json").document
    assert (found["version_key"], found["how"], found["left_out"]) == ("v2", "reading", [])
    assert found["share"] == 1
    assert "of their pages in the server's cache" in library.with_options("--read-only").call(
        "index", "prewarm", "v2"
    ).out  # fmt: skip
    assert "no valid index" in library.call("index", "prewarm", "v3", status=1).err
