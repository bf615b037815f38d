"""The guards on the Cutover tab: which run again and when, the evidence beside them, and the dry run."""

from __future__ import annotations

import threading
from dataclasses import replace

from textual.pilot import Pilot

from revector.core import cutover
from revector.core.cutover import GUARDS, Check, Guard, Policy
from revector.core.database import Database
from revector.core.evaluation.judged_sets.query_sets import Query
from revector.screens.cutover.board import Board, minute_of, stamps_of
from revector.screens.cutover.facts import Facts
from revector.screens.evaluate.actions import EvaluateState
from revector.screens.situation import Situation
from revector.screens.widgets.page import LivePage
from tests.evaluations import judged_set, stored_evaluation
from tests.protocol_server import ProtocolServer
from tests.screens.frozen import OVERVIEW, situation
from tests.screens.support import ALL_PASS, LARGE, SMALL, console, shown, until, until_shown
from tests.versions import add_chunks, ready_version

NAMES = {rule.name for rule in GUARDS}
SLOW = {rule.name for rule in GUARDS if rule.slow}
FACTS = Facts("embed-v2026-02", "embed-v2026-03", Policy())


def moment(**changes: object) -> Situation:
    """The frozen snapshot with the candidate's figures changed."""
    first, second, third = OVERVIEW.versions
    return situation(replace(OVERVIEW, versions=(first, replace(second, **changes), third)), "embed-v2026-03")  # type: ignore[arg-type]


def checked(**verdicts: str) -> Check:
    """All guards pass but those named, with blanks as underscores."""
    found = {name.replace("_", " "): verdict for name, verdict in verdicts.items()}
    return Check(
        "embed-v2026-03",
        tuple(Guard(rule.name, found.get(rule.name, "pass"), "") for rule in GUARDS),  # type: ignore[arg-type]
    )


def board(check: Check | None = None) -> Board:
    """What was looked at in `moment()`."""
    now = moment()
    empty = Board("embed-v2026-03", stamps=stamps_of(now, FACTS), minute=minute_of(now))
    return empty.ended(check or checked(), {}, "14:02:11")


def test_only_what_has_changed_is_looked_at_again() -> None:
    now = moment()
    assert Board("embed-v2026-03").due(stamps_of(now, FACTS), 0) == NAMES
    assert board().due(stamps_of(now, FACTS), minute_of(now)) == set()
    more = moment(missing=1)
    assert board().due(stamps_of(more, FACTS), minute_of(more)) == {"complete"}, "a new chunk costs no encoding"
    assert board().due(stamps_of(now, FACTS), minute_of(now) + 1) == {"shadow", "replicas", "pinned"}
    stricter = replace(FACTS, policy=Policy(min_recall=0.99))
    assert board().due(stamps_of(now, stricter), minute_of(now)) == {"recall"}, "and nothing is paid for"
    other_index = moment()
    assert other_index.overview is not None
    indexes = {**OVERVIEW.indexes, "embed-v2026-03": replace(OVERVIEW.indexes["embed-v2026-03"], valid=False)}
    rebuilt = replace(other_index, overview=replace(other_index.overview, indexes=indexes))
    assert board().due(stamps_of(rebuilt, FACTS), minute_of(now)) == {
        "index valid",
        "index used",
        "warm",
        "recall",
    }


def test_what_was_not_run_is_looked_at_once_that_is_possible() -> None:
    found = board(checked(complete="fail", recall="inconclusive", warm="inconclusive", encoder="inconclusive"))
    assert found.unseen == SLOW
    assert set(found.known({"complete"})) == NAMES - SLOW - {"complete"}
    pending = replace(found, pending=("complete",)).told(Guard("complete", "fail", "again"))
    assert pending.pending == ()
    freed = replace(found, pending=("complete",)).told(Guard("complete", "pass", "now"))
    assert set(freed.pending) == SLOW, "they are shown as waiting"


def test_a_known_guard_keeps_its_verdict_while_an_earlier_one_fails() -> None:
    known = board().known({"complete"})
    again = board().ended(checked(complete="fail"), known, "14:03:00")
    assert again.unseen == frozenset()


async def to_tab(pilot: Pilot[None]) -> None:
    await until_shown(pilot, "demo-256")
    await pilot.press("6")
    await until_shown(pilot, "guards of demo-", "checked")


async def test_slow_guards_are_not_run_at_every_snapshot(own_library: Database, provider: ProtocolServer) -> None:
    spec = f"openai:house-model?price=0&base_url={provider.base_url}"
    with own_library.session("test") as connection:
        ready_version(own_library, connection, "demo-paid", spec)
    app = console(own_library)
    async with app.run_test(size=LARGE) as pilot:
        await until_shown(pilot, "demo-paid")
        before = len(provider.requests)
        await pilot.press("6")
        await until_shown(pilot, f"guards of demo-paid ─ {ALL_PASS} ─ checked")
        paid = len(provider.requests)
        assert paid > before, "the encoder guard has encoded"
        with own_library.session("test") as connection:
            add_chunks(connection, ["one more"])
        await until_shown(pilot, "12 of 13 pass", "1 missing", "✓ pass encoder 16 of 16")
        with own_library.session("test") as connection:
            connection.execute("DELETE FROM document_chunks WHERE content = 'one more'")
        await until_shown(pilot, f"{ALL_PASS} ─ checked")
        assert len(provider.requests) == paid
        await pilot.press("g")
        await until(pilot, lambda: len(provider.requests) > paid, "asked for, it encodes again")
        await until_shown(pilot, f"{ALL_PASS} ─ checked")


async def test_guards_fill_in_one_by_one_and_nothing_waits(
    own_library: Database, provider: ProtocolServer
) -> None:
    spec = f"openai:house-model?price=0&base_url={provider.base_url}"
    with own_library.session("test") as connection:
        ready_version(own_library, connection, "demo-slow", spec)
    provider_may_go = threading.Event()
    provider.meet = lambda: provider_may_go.wait(30)
    app = console(own_library)
    try:
        async with app.run_test(size=LARGE) as pilot:
            await until_shown(pilot, "demo-slow")
            await pilot.press("6")
            await until_shown(
                pilot, "10 of 13 pass ─ checking …", "… encoder checking …", "… recall waits", "✓ pass complete"
            )
            await pilot.press("right_square_bracket")
            await until_shown(pilot, f"guards of demo-256 ─ {ALL_PASS}")
            await pilot.press("left_square_bracket")
            await until_shown(pilot, "guards of demo-slow ─ 10 of 13 pass ─ checking …")
            provider_may_go.set()
            await until_shown(pilot, f"guards of demo-slow ─ {ALL_PASS} ─ checked", "u cut over")
    finally:
        provider_may_go.set()


async def test_the_dry_run_shows_the_sql_and_changes_nothing(own_library: Database) -> None:
    app = console(own_library)
    async with app.run_test(size=(100, 60)) as pilot:
        await to_tab(pilot)
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, LivePage) and app.screen.ready, "the page")
        await until_shown(
            pilot, "dry run of the cutover to demo-256", "Every guard passes or is waived.", "BEGIN;", "lock_flip()",
            "CASE WHEN version_key = 'demo-256'", "COMMIT;",
        )  # fmt: skip
    with own_library.session("test") as connection:
        assert [one.to_version for one in cutover.history(connection)] == ["demo-64"]


async def test_the_evidence_opens_where_it_is_told(own_library: Database) -> None:
    with own_library.session("test") as connection:
        queries = judged_set(connection, "support", [Query("q1", "rotate an api key", "how-to")], {})
        first = stored_evaluation(connection, queries, "demo-64", "demo-256")
        stored_evaluation(connection, queries, "demo-256", "demo-64")  # newer, and of another pair
    app = console(own_library)
    async with app.run_test(size=SMALL) as pilot:
        await to_tab(pilot)
        await pilot.press("m")
        await until_shown(pilot, f"without gates {first.id} on support", "none of this version; none required")
        await pilot.press("enter")
        await until(pilot, lambda: app.tab == "4" and app.situation.of(EvaluateState).evaluated, "the evaluation")
        assert app.panes["4"].shown.id == first.id  # type: ignore[attr-defined]
        await pilot.press("6", "s")
        await until(pilot, lambda: app.tab == "5", "the Shadow tab")


async def test_every_guard_in_full(library: Database) -> None:
    app = console(library)
    async with app.run_test(size=(100, 120)) as pilot:
        await to_tab(pilot)
        await pilot.press("enter")
        await until_shown(pilot, *(" ".join(rule.about.split()[:6]) for rule in GUARDS), "again inside the flip")
        assert "cannot be waived" in shown(app)
