"""The console offers what its role may do, and says which role that is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from psycopg.conninfo import make_conninfo

from revector.console.app import RevectorApp
from revector.core.database import Database
from revector.core.roles import granting
from revector.core.roles.rights import EVERYTHING, Rights
from revector.core.settings import Settings
from revector.screens.actions import offered
from revector.screens.cutover.actions import CutoverState
from revector.screens.evaluate.actions import EvaluateState
from revector.screens.frame.help import listed
from revector.screens.frame.snapshots import Reading
from revector.screens.tabs import ACTIONS, BY_ID
from revector.screens.wording.next_step import next_step
from tests.roles import login_roles
from tests.screens.frozen import NOWHERE, OVERVIEW, FrozenReader, situation
from tests.screens.support import LARGE, SMALL, active_of, console, shown, until, until_shown

VIEWER = Rights("ada", view=True, operate=False, approve=False, administer=False)
OPERATOR = replace(VIEWER, operate=True)
APPROVER = replace(VIEWER, approve=True)
CLEARED = CutoverState(cleared="embed-v2026-03")


def allowed(rights: Rights) -> set[str]:
    """The actions that change something and are offered to that role, at some moment of the console's."""
    overview = replace(OVERVIEW, rollback_to="embed-v2026-03", rights=rights)
    moments = [
        situation(overview, key, tab=tab, tabs=(CLEARED, EvaluateState(evaluating=evaluating)))
        for key in ("embed-v2026-02", "embed-v2026-03", "embed-v2026-04")
        for tab in "123456"
        for evaluating in (False, True)
    ]
    return {a.id for a in ACTIONS if a.dangerous or a.needs for moment in moments if offered(a, moment)}


def test_what_each_role_is_offered() -> None:
    assert {"run", "pause", "cancel", "judge", "evaluate", "cut-over", "roll-back"} <= allowed(EVERYTHING)
    assert allowed(VIEWER) == set()
    assert allowed(OPERATOR) == {one for one in allowed(EVERYTHING) if BY_ID[one].needs != "approve"}
    assert allowed(APPROVER) == {one for one in allowed(EVERYTHING) if BY_ID[one].needs == "approve"}


def test_the_help_and_the_advice_of_a_viewer() -> None:
    moment = situation(replace(OVERVIEW, rights=VIEWER), "embed-v2026-04", tab="2")
    assert not [action.id for action in listed(moment) if action.dangerous]
    assert moment.selected is not None
    assert next_step(moment, moment.selected) == "Nothing: it continues by itself."
    idle = situation(replace(OVERVIEW, rights=VIEWER, jobs={}), "embed-v2026-04")
    assert next_step(idle, moment.selected) == "Backfill it: ask an operator."


def test_an_action_that_needs_an_approver() -> None:
    approve = replace(BY_ID["cut-over"], needs="approve")
    for rights, there in ((VIEWER, False), (OPERATOR, False), (APPROVER, True), (EVERYTHING, True)):
        moment = situation(replace(OVERVIEW, rights=rights), "embed-v2026-03", tab="6", tabs=(CLEARED,))
        assert offered(approve, moment) == there


@pytest.mark.parametrize("size", [LARGE, SMALL])
@pytest.mark.parametrize(
    ("rights", "word"),
    [(VIEWER, "viewer"), (OPERATOR, "operator"), (APPROVER, "approver"), (EVERYTHING, "READ/WRITE")],
)
async def test_the_header_says_the_role(rights: Rights, word: str, size: tuple[int, int]) -> None:
    app = RevectorApp(NOWHERE, Settings(), reader=FrozenReader(replace(OVERVIEW, rights=rights)))
    async with app.run_test(size=size) as pilot:
        await until_shown(pilot, "embed-v2026-03")
        assert f" ─ {word} ─ " in shown(app).splitlines()[0]


async def test_rights_that_are_taken_while_the_console_is_open() -> None:
    reader = FrozenReader()
    app = RevectorApp(NOWHERE, Settings(), reader=reader)
    async with app.run_test(size=LARGE) as pilot:
        await pilot.press("6")
        await until_shown(pilot, "READ/WRITE")
        reader.change(Reading(replace(OVERVIEW, rights=VIEWER), reader.latest.received, lost=False))
        await until_shown(pilot, " ─ viewer ─ ")
        await app.action_act("roll-back")
        await app.action_act("judge")
        assert len(app.screen_stack) == 1


async def test_a_viewer_becomes_an_operator(own_library: Database) -> None:
    """With a real role: what it may not do is not on the screen, and is there as soon as it was granted."""
    with login_roles(own_library, "ada") as names, own_library.session("test") as owner:
        granting.grant(owner, names["ada"], "viewer")
        app = console(Database(make_conninfo(own_library.dsn, user=names["ada"]), own_library.schema))
        async with app.run_test(size=LARGE) as pilot:
            await until_shown(pilot, "demo-256", " ─ viewer ─ ")
            await pilot.press("2")
            await until(pilot, lambda: app.tab == "2", "the Backfill tab")
            assert not {"run", "pause", "set"} & {action.id for action in app.offers(app.situation)}
            await pilot.press("6")
            await until_shown(pilot, "complete")  # a viewer sees the guards
            await pilot.press("u", "R", "escape")
            assert len(app.screen_stack) == 1
            granting.grant(owner, names["ada"], "operator")
            await until_shown(pilot, " ─ operator ─ ")
            await pilot.press("2")
            await until(
                pilot, lambda: "set" in {action.id for action in app.offers(app.situation)}, "what an operator may"
            )
    assert active_of(own_library) == "demo-64"
