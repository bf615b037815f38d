"""The one table of actions, and that nothing is offered beside it."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter

import pytest
from textual.binding import Binding

from revector.console.app import RevectorApp
from revector.core.database import Database
from revector.core.settings import Settings
from revector.screens.actions import Action, label_of, offered, shown_keys
from revector.screens.backfill.actions import BackfillState
from revector.screens.compare.actions import CompareState
from revector.screens.cutover.actions import CutoverState
from revector.screens.frame.footer import Footer
from revector.screens.frame.help import listed
from revector.screens.frame.palette import provider_of
from revector.screens.situation import Situation
from revector.screens.tabs import ACTIONS, BY_ID, TABS
from tests.screens.frozen import NOWHERE, OVERVIEW, FrozenReader, check, comparison, situation
from tests.screens.support import LARGE, shown, until, until_shown

CLEARED = CutoverState(cleared="embed-v2026-03")


def test_every_action_is_there_once() -> None:
    assert len(BY_ID) == len(ACTIONS)
    assert all(action.help.endswith(".") and action.label for action in ACTIONS)


@pytest.mark.parametrize("tab", [tab.key for tab in TABS])
@pytest.mark.parametrize("typing", [False, True])
@pytest.mark.parametrize("live", [False, True])
def test_no_key_means_two_things(tab: str, typing: bool, live: bool) -> None:
    moment = situation(
        selection="embed-v2026-04",
        tab=tab,
        typing=typing,
        live=live,
        tabs=(CompareState(compared=True), CutoverState(cleared="embed-v2026-04")),
    )
    taken: dict[str, str] = {}
    for action in ACTIONS:
        if offered(action, moment):
            for key in shown_keys(action, moment):
                assert key not in taken, f"{key} means {taken[key]} and {action.id}"
                taken[key] = action.id


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.id)
async def test_every_action_has_its_handler(action: Action) -> None:
    app = frozen_app()
    tab = next((tab for tab in TABS if tab.key == action.tab), None)
    target = app if tab is None else tab.load()(app.services)
    names = action.do.__code__.co_names
    assert callable(attrgetter(".".join(names))(target))


def frozen_app(*, read_only: bool = False) -> RevectorApp:
    database = Database(NOWHERE.dsn, NOWHERE.schema, read_only=read_only)
    return RevectorApp(database, Settings(), reader=FrozenReader())


def bound(app: RevectorApp) -> dict[str, str]:
    """What keys do at this moment by the app's own bindings: key to action id."""
    found = {}
    for key, active in app.screen.active_bindings.items():
        if active.node is app:
            assert active.binding.action.startswith("act('"), f"{key} is not of the table"
            found[key] = active.binding.action[5:-2]
    return found


def all_shown_bindings(app: RevectorApp) -> set[str]:
    return {key for key, active in app.screen.active_bindings.items() if active.binding.show}


def in_footer(moment: Situation) -> str:
    actions = sorted(
        (action for action in ACTIONS if action.footer and offered(action, moment)),
        key=lambda action: (action.id in ("help", "quit"), ACTIONS.index(action)),
    )
    return "".join(f"{label_of(shown_keys(action, moment)[0])} {action.label}  " for action in actions)


@pytest.mark.parametrize("tab", [tab.key for tab in TABS])
@pytest.mark.parametrize("read_only", [False, True])
async def test_bindings_footer_help_and_palette_are_the_table(tab: str, read_only: bool) -> None:
    app = frozen_app(read_only=read_only)
    async with app.run_test(size=(200, 50)) as pilot:
        await pilot.press(tab)
        await until(pilot, lambda: app.tab == tab, "the tab")
        footer = app.query_one(Footer)
        # A tab that is shown for the first time learns its size, and with it what it offers, a moment later.
        await until(pilot, lambda: footer.render().plain == in_footer(app.situation), "the footer is the table")
        moment = app.situation
        offers = [action for action in ACTIONS if offered(action, moment)]
        assert offers, "nothing is offered"

        table = {key: action.id for action in offers for key in shown_keys(action, moment)}
        del table["ctrl+c"]  # copies what is selected with the mouse; leaves when nothing is
        assert bound(app) == table
        for key in all_shown_bindings(app):
            assert key in bound(app), f"{key} is shown and not of the table"
        assert footer.render().plain == in_footer(moment)
        assert set(offers) <= set(listed(moment))
        provider = provider_of(app.offers(moment), moment)(app.screen)
        discovered = [hit async for hit in provider.discover()]
        assert len(discovered) == len([action for action in offers if action.id != "palette"])
        await pilot.press("question_mark")
        await pilot.resize_terminal(110, 130)
        await until(pilot, lambda: "In lists:" in shown(app), "the help to its end")
        # Without the frame of the page, and the visible parts of the tab.
        text = " ".join(" ".join(line.ljust(110)[4:-4] for line in shown(app).split("\n")).split())
        for action in ACTIONS:
            there = " ".join(action.help.split()) in text
            assert there == (not (action.dangerous and read_only)), action.id


@pytest.mark.parametrize("read_only", [False, True])
async def test_dangerous_actions_are_not_there_in_read_only_mode(read_only: bool) -> None:
    reader = FrozenReader(replace(OVERVIEW, rollback_to="embed-v2026-04"))
    database = Database(NOWHERE.dsn, NOWHERE.schema, read_only=read_only)
    app = RevectorApp(database, Settings(), reader=reader)
    async with app.run_test(size=LARGE) as pilot:
        await pilot.press("down", "6")
        await until(pilot, lambda: app.selection == "embed-v2026-03" and app.tab == "6", "the candidate")
        await app.workers.wait_for_complete()
        await pilot.pause()
        app.panes["6"].checks.show_check(check())  # type: ignore[attr-defined]
        await until(pilot, lambda: app.situation.of(CutoverState).cleared, "all guards pass")
        assert ("READ ONLY" in shown(app)) == read_only
        for action, words in (("cut-over", "u cut over"), ("roll-back", "R roll back")):
            assert (action in bound(app).values()) != read_only
            assert shown(app).count(words) == (0 if read_only else 2), "footer and button"
            await app.action_act(action)
            assert len(app.screen_stack) == (1 if read_only else 2)
            await pilot.press("escape")
        await pilot.press("u")
        assert len(app.screen_stack) == (1 if read_only else 2)
    dangerous = {action.id for action in ACTIONS if action.dangerous}
    assert dangerous == {
        "run", "pause", "cancel", "set", "more-workers", "fewer-workers", "retry-failures", "waive", "cut-over",
        "roll-back", "judge", "run-with", "stop-run", "load", "evaluate", "cancel-evaluation", "compare-runs",
        "shadow-start", "shadow-stop", "shadow-judge", "request-cutover", "approve", "withdraw", "refuse",
        "waive-guard",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("action", "moment"),
    [
        ("to-cutover", situation(selection="embed-v2026-03")),
        ("run", situation(selection="embed-v2026-04", tab="2")),
        ("pause", situation(selection="embed-v2026-04", tab="2")),
        ("set", situation(selection="embed-v2026-02", tab="2")),
        ("more-workers", situation(selection="embed-v2026-04", tab="2")),
        ("part", situation(selection="embed-v2026-04", tab="2", tight=True)),
        ("open-row", situation(selection="embed-v2026-04", tab="2", tabs=(BackfillState(rows=True),))),
        ("cut-over", situation(tab="6", selection="embed-v2026-03", tabs=(CLEARED,))),
        ("quit", Situation()),
        ("help", Situation()),
    ],
)
def test_offered(action: str, moment: Situation) -> None:
    assert offered(BY_ID[action], moment)


@pytest.mark.parametrize(
    ("action", "moment"),
    [
        ("to-cutover", situation(selection="embed-v2026-02")),
        ("run", situation(selection="embed-v2026-04", tab="2", working=frozenset({"embed-v2026-04"}))),
        ("pause", situation(selection="embed-v2026-03", tab="2")),
        ("more-workers", situation(selection="embed-v2026-02", tab="2")),
        ("waive", situation(selection="embed-v2026-04", tab="2")),
        ("part", situation(selection="embed-v2026-04", tab="2")),
        ("open-row", situation(selection="embed-v2026-04", tab="2")),
        ("set", situation(selection="embed-v2026-04", tab="2", read_only=True)),
        (
            "cut-over",
            situation(tab="6", selection="embed-v2026-03", tabs=(CutoverState(cleared="embed-v2026-04"),)),
        ),
        ("cut-over", situation(tab="6", selection="embed-v2026-03", tabs=(replace(CLEARED, flipping=True),))),
        ("cut-over", situation(tab="6", selection="embed-v2026-03", tabs=(CLEARED,), live=False)),
        ("roll-back", situation(tab="6")),
        ("details", situation(None)),
        ("open-hit", situation(tab="3")),
    ],
)
def test_not_offered(action: str, moment: Situation) -> None:
    assert not offered(BY_ID[action], moment)


async def test_the_palette_does_what_it_says() -> None:
    app = frozen_app()
    async with app.run_test(size=LARGE) as pilot:
        await pilot.press("ctrl+p")
        await until(pilot, lambda: len(app.screen_stack) == 2, "the palette")
        await pilot.press(*"Show Log".replace(" ", ""))
        await until(pilot, lambda: "Show Log" in shown(app), "the action is found")
        await pilot.press("enter")
        await until(pilot, lambda: app.tab == "8", "it is done")


async def test_the_mouse_does_what_keys_do() -> None:
    app = frozen_app()
    async with app.run_test(size=LARGE) as pilot:
        await pilot.click("TabBar", offset=(shown(app).split("\n")[1].index("6 Cutover"), 0))
        await until(pilot, lambda: app.tab == "6", "a tab by a click")
        await pilot.click("TabBar", offset=(2, 0))
        await until(pilot, lambda: app.tab == "1", "and back")
        await pilot.click("#versions", offset=(6, 2))
        await until(pilot, lambda: app.selection == "embed-v2026-03", "a row by a click")
        await pilot.click("Footer", offset=(shown(app).split("\n")[-1].index("backfill"), 0))
        await until(pilot, lambda: app.tab == "2", "an action by a click into the footer")
        await pilot.press("1")
        await until_shown(pilot, "[1 Versions]", "embed-v2026-03")
        await pilot.click("#versions", offset=(6, 2))
        await until(pilot, lambda: len(app.screen_stack) == 2, "Enter by a click on the row under the cursor")


async def test_letters_are_letters_while_somebody_types() -> None:
    app = frozen_app()
    async with app.run_test(size=LARGE) as pilot:
        await pilot.press("3", "slash")
        await until(pilot, lambda: app.situation.state.typing, "the query box has the focus")
        await pilot.press("q", "1", "question_mark", "e")
        assert app.query_one("QueryBox").value == "q1?e"  # type: ignore[attr-defined]
        assert app.tab == "3"
        assert "^q quit" in shown(app)
        app.panes["3"].control.show(comparison())  # type: ignore[attr-defined]
        await pilot.pause()
        assert "q quit" in shown(app)


def test_bindings_are_made_from_the_table() -> None:
    bindings = [binding for binding in RevectorApp.BINDINGS if isinstance(binding, Binding)]
    assert [binding.action for binding in bindings] == [f"act('{action.id}')" for action in ACTIONS]
