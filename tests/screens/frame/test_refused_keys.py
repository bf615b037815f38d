"""A key that does nothing now says why, and what is typed after a dangerous one is not taken for commands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from textual.command import CommandPalette
from textual.pilot import Pilot

from revector.console.app import RevectorApp
from revector.core.cutover import Guard
from revector.core.database import Database
from revector.core.roles.rights import EVERYTHING, Rights
from revector.core.settings import Settings
from revector.screens.actions import Action, offered, why_not
from revector.screens.compare.actions import CompareState
from revector.screens.cutover.actions import CutoverState
from revector.screens.cutover.board import Board
from revector.screens.cutover.pane import CutoverPane
from revector.screens.evaluate.actions import EvaluateState
from revector.screens.frame.refusals import Refusals
from revector.screens.frame.snapshots import Reading
from revector.screens.shadow.actions import ShadowState
from revector.screens.situation import Situation
from revector.screens.tabs import ACTIONS, TABS, refused
from tests.screens.frozen import NOWHERE, OVERVIEW, FrozenReader, check, situation
from tests.screens.support import LARGE, SMALL, add_candidate, console, shown, type_text, until, until_shown

VIEWER = Rights("[b]ada", view=True, operate=False, approve=False, administer=False)
NOBODY_NEEDS = {"runs", "open-cutover", "help", "palette", "quit", *(f"tab-{tab.key}" for tab in TABS)}
"""Actions that are there at every moment, whatever the role."""


def moments(action: Action) -> Iterable[Situation]:
    """Moments at which something lacks for an action on its tab."""
    tab = action.tab or "1"
    keys = [status.version.version_key for status in OVERVIEW.versions]
    single = replace(OVERVIEW, versions=OVERVIEW.versions[:1], jobs={}, log=())
    unknown = tuple(replace(s, version=replace(s.version, encoder_spec="")) for s in OVERVIEW.versions)
    yield situation(replace(OVERVIEW, versions=(), jobs={}, log=()), tab=tab)
    yield situation(single, tab=tab)
    for key in keys:
        for busy in (False, True):
            yield situation(
                OVERVIEW, key, tab=tab, working=frozenset(keys if busy else ()), tabs=(
                    EvaluateState(evaluating=busy, listing_runs=busy), CutoverState(flipping=busy),
                    ShadowState(shadowing=busy), CompareState(browsing=busy),
                ),
            )  # fmt: skip
            yield situation(replace(OVERVIEW, versions=unknown), key, tab=tab, tabs=(ShadowState(shadowing=busy),))
    yield situation(tab=tab, read_only=True)
    yield situation(tab=tab, live=False)
    yield situation(replace(OVERVIEW, rights=VIEWER), tab=tab)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.id)
def test_every_action_that_cannot_be_done_says_why(action: Action) -> None:
    reasons = [(moment, why_not(action, moment)) for moment in moments(action)]
    words = {reason for _, reason in reasons if reason is not None}
    assert bool(words) == (action.id not in NOBODY_NEEDS | {"older-query", "newer-query"})
    for reason in words:
        assert reason[0].islower(), "it goes on after the key and a colon"
        assert not reason.endswith(".")
        assert 10 < len(reason) <= 60, f"one line of the smallest terminal: {reason}"
    for moment, reason in reasons:
        if action.dangerous and (moment.state.read_only or moment.rights == VIEWER):
            assert reason in ("this session is read-only", f"your role {VIEWER.role} may not: ask an operator",
                              f"your role {VIEWER.role} may not: ask an approver")  # fmt: skip
        if not action.typing:
            assert offered(action, moment) == (reason is None)
            assert all(refused(key, moment) is not None for key in action.keys)


def test_which_reason_a_key_gives_that_has_several_actions() -> None:
    approver = replace(OVERVIEW, rights=replace(EVERYTHING, role="eve", operate=False))
    for overview, expected in ((OVERVIEW, "withdraw"), (approver, "refuse")):
        moment = situation(overview, tab="6")
        action = refused("x", moment)
        assert action is not None
        assert (action.id, why_not(action, moment)) == (expected, "there is no request")
    run = refused("r", situation(replace(OVERVIEW, rights=VIEWER), tab="2"))
    assert run is not None
    assert run.id == "run", "the tab's own, before the app's: r tries again, too"
    assert refused("u", situation(tab="8")) is None


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (("pass", "fail"), "1 guard fails: b"),
        (("fail", "inconclusive", "fail"), "2 guards fail: a, c"),
        (("pass", "inconclusive"), "1 guard is inconclusive: b"),
        (("inconclusive", "inconclusive"), "2 guards are inconclusive: a, b"),
        (("pass", "pass"), ""),
    ],
)
def test_what_stands_in_the_way_of_a_cutover(verdicts: tuple[str, ...], expected: str) -> None:
    guards = {name: Guard(name, verdict, "") for name, verdict in zip("abc", verdicts, strict=False)}  # type: ignore[arg-type]
    assert Board(guards=guards).verdict == expected
    assert Board(guards=guards, pending=tuple(guards)).verdict == "", "what is looked at again is not known"


def state(app: RevectorApp) -> dict[str, object]:
    """What keys could have changed."""
    compare = app.panes.get("3")
    return {
        "tab": app.tab,
        "candidate": app.selection,
        "part": getattr(app.panes.get("6"), "part", None),
        "k": getattr(compare, "k", None),
        "screens": len(app.screen_stack),
        "focus": app.focused,
    }


async def to_failing_guard(pilot: Pilot[None], app: RevectorApp) -> CutoverPane:
    """The Cutover tab over the frozen snapshot; one guard fails."""
    await pilot.press("down", "3")
    await until(pilot, lambda: app.tab == "3", "the Compare tab")
    await pilot.press("escape", "6")
    await until(pilot, lambda: app.selection == "embed-v2026-03" and app.tab == "6", "the tab")
    await app.workers.wait_for_complete()
    pane: CutoverPane = app.panes["6"]  # type: ignore[assignment]
    pane.checks.show_check(check(ready=False))
    await until_shown(pilot, "2 of 3 pass")
    return pane


async def all_handled(pilot: Pilot[None], app: RevectorApp) -> None:
    """Keys are handled in turn: when a later one has opened the palette, the earlier ones have done what they do."""
    await pilot.press("ctrl+p")
    await until(pilot, lambda: isinstance(app.screen, CommandPalette), "the palette")
    await pilot.press("escape")
    await until(pilot, lambda: not isinstance(app.screen, CommandPalette), "and back")


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_a_version_key_after_a_refused_cutover_changes_nothing(size: tuple[int, int]) -> None:
    app = RevectorApp(NOWHERE, Settings(), reader=FrozenReader())
    now = 1_000.0
    app.refusals.clock = lambda: now
    async with app.run_test(size=size) as pilot:
        await to_failing_guard(pilot, app)
        before = state(app)
        await pilot.press("u")
        await until_shown(pilot, "u: 1 guard fails: index used")
        assert "u: 1 guard" in shown(app).split("\n")[-1]
        await type_text(pilot, "embed-v2026-03?q][1")
        await pilot.press("enter")
        await all_handled(pilot, app)
        assert state(app) == before
        assert app.is_running
        await until_shown(pilot, "u: 1 guard fails: index used (keys are ignored until you pause)")

        await pilot.press("tab")  # to the box of a question that is not there
        await type_text(pilot, "embed-v2026-03")
        await pilot.press("enter")
        await all_handled(pilot, app)
        assert {**state(app), "focus": None} == {**before, "focus": None}

        now += 2.0
        await pilot.press("right_square_bracket")
        await until(pilot, lambda: app.selection == "embed-v2026-04", "after the pause a key is a key")
        await until_shown(pilot, "? help")


def test_each_letter_that_is_swallowed_begins_the_pause_once_more() -> None:
    now = 1_000.0
    refusals = Refusals(lambda: now)
    assert not refusals.deaf
    refusals.refuse("u", situation(tab="6"))
    for _ in range(20):
        now += 1.9
        assert refusals.deaf
        assert refusals.text.startswith("u: the guards are not checked yet")
        refusals.swallow()
    assert refusals.text.count("ignored") == 1
    now += 2.0
    assert not refusals.deaf
    assert refusals.text
    now += 4.0
    assert not refusals.text


async def test_escape_ends_the_pause_and_ctrl_keys_work_in_it() -> None:
    app = RevectorApp(NOWHERE, Settings(), reader=FrozenReader())
    app.refusals.clock = lambda: 1_000.0
    async with app.run_test(size=SMALL) as pilot:
        await to_failing_guard(pilot, app)
        await pilot.press("u", "1")
        await all_handled(pilot, app)
        assert app.tab == "6"
        await pilot.press("1")
        await all_handled(pilot, app)
        assert app.tab == "6", "the palette's own Escape is not ours"
        await pilot.press("escape", "1")
        await until(pilot, lambda: app.tab == "1", "the keys are there again")


async def test_after_a_refused_key_that_is_not_dangerous_the_next_one_counts() -> None:
    app = RevectorApp(NOWHERE, Settings(), reader=FrozenReader())
    app.refusals.clock = lambda: 1_000.0
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "embed-v2026-03")
        await pilot.press("u")
        await until_shown(pilot, "u: this version is the active one")
        await pilot.press("6")
        await until(pilot, lambda: app.tab == "6", "the next key")
        await until_shown(pilot, "? help")


async def test_a_click_on_what_is_no_longer_offered_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = FrozenReader()
    app = RevectorApp(NOWHERE, Settings(), reader=reader)
    app.refusals.clock = lambda: 1_000.0
    async with app.run_test(size=LARGE) as pilot:
        await pilot.press("down", "2")
        await until_shown(pilot, "r run  o options")
        place = shown(app).split("\n")[-1].index("r run  o options")
        monkeypatch.setattr(app.footer, "show", lambda _actions, _situation: None)  # as before the next frame
        reader.latest = Reading(replace(OVERVIEW, rights=VIEWER), reader.latest.received, lost=False)
        await pilot.click("Footer", offset=(place, 0))
        await until_shown(pilot, "r: your role [b]ada may not: ask an operator")
        assert app.refusals.deaf, "as after the key"


async def test_the_reason_goes_by_itself_and_is_never_markup() -> None:
    reader = FrozenReader()
    app = RevectorApp(NOWHERE, Settings(), reader=reader)
    now = 1_000.0
    app.refusals.clock = lambda: now
    async with app.run_test(size=SMALL) as pilot:
        reader.change(Reading(replace(OVERVIEW, rights=VIEWER), reader.latest.received, lost=False))
        await pilot.press("2")
        await until(pilot, lambda: app.tab == "2", "the Backfill tab")
        await pilot.press("r")
        await until_shown(pilot, "r: your role [b]ada may not: ask an operator")
        now += 10
        app.draw_frame()
        await until_shown(pilot, "? help")


async def test_a_read_only_console_says_so_and_offers_nothing(library: Database) -> None:
    app = console(Database(library.dsn, library.schema, read_only=True))
    app.refusals.clock = lambda: 1_000.0
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "demo-256")
        await pilot.press("2")
        await until(pilot, lambda: app.tab == "2", "the Backfill tab")
        assert "r run" not in shown(app)
        await pilot.press("r")
        await until_shown(pilot, "r: this session is read-only")


async def test_letters_in_a_text_box_are_letters_after_a_refused_key(own_library: Database) -> None:
    with own_library.session("test") as connection:
        add_candidate(connection)
    app = console(own_library)
    app.refusals.clock = lambda: 1_000.0
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "demo-new")
        await pilot.press("end", "2")
        await until(pilot, lambda: app.tab == "2", "the Backfill tab")
        await pilot.press("p")
        await until_shown(pilot, "p: no backfill is running")
        await pilot.click("TabBar", offset=(shown(app).split("\n")[1].index("3 Compare"), 0))
        await until(pilot, lambda: app.tab == "3", "the Compare tab, by the mouse")
        await pilot.click("QueryBox")
        await type_text(pilot, "refund")
        assert app.query_one("QueryBox").value == "refund"  # type: ignore[attr-defined]
        await pilot.press("enter")
        await until(pilot, lambda: app.situation.of(CompareState).compared, "searched")
        assert "keys are ignored" not in shown(app), "and Enter is the box's"
