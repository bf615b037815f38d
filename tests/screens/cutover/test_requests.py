"""Requests, approvals and waivers on the Cutover tab, by real roles of the server."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import replace

import pytest
from psycopg.conninfo import make_conninfo
from textual.pilot import Pilot

from revector.core import cutover
from revector.core.audit import entries
from revector.core.cutover import Request
from revector.core.cutover.request_store import Approval
from revector.core.database import Database
from revector.core.roles import granting
from revector.core.roles.rights import EVERYTHING, Rights
from revector.screens.actions import offered
from revector.screens.cutover.actions import CutoverState
from revector.screens.cutover.dialogs import ReasonDialog, WaiveDialog
from revector.screens.tabs import ACTIONS
from revector.screens.widgets.confirm import Confirm
from tests.roles import login_roles
from tests.screens.frozen import NOW, OVERVIEW, situation
from tests.screens.support import (
    ALL_PASS,
    LARGE,
    SMALL,
    active_of,
    console,
    shown,
    type_text,
    until,
    until_gone,
    until_shown,
)

People = dict[str, Database]


@pytest.fixture
def people(own_library: Database) -> Iterator[People]:
    """The collection as an operator, an approver and a viewer see it; a cutover takes one approval."""
    with login_roles(own_library, "operator", "approver", "viewer") as names:
        with own_library.session("test") as owner:
            cutover.change_policy(owner, {"approvals": 1})
            for kind in ("operator", "approver", "viewer"):
                granting.grant(owner, names[kind], kind)  # type: ignore[arg-type]
        yield {
            kind: Database(make_conninfo(own_library.dsn, user=name), own_library.schema)
            for kind, name in names.items()
        }


def offers(pilot: Pilot[None]) -> set[str]:
    """The actions of the tab that are there now and change something."""
    app = pilot.app
    return {one.id for one in app.offers(app.situation) if one.tab == "6" and one.dangerous}  # type: ignore[attr-defined]


async def to_tab(pilot: Pilot[None]) -> None:
    await until_shown(pilot, "demo-256")
    await pilot.press("6")
    await until_shown(pilot, "guards of demo-256 ─ ", "checked")


async def test_request_approve_and_run(people: People, own_library: Database) -> None:
    async with console(people["operator"]).run_test(size=LARGE) as pilot:
        await to_tab(pilot)
        await until_shown(pilot, "12 of 13 pass", "Not requested yet; 1 approval")
        assert offers(pilot) == {"request-cutover"}
        await pilot.press("r")
        await until(pilot, lambda: isinstance(pilot.app.screen, ReasonDialog), "the dialog")
        await until_shown(pilot, "Request a cutover to demo-256", "A request needs a reason")
        await pilot.press("enter")  # Cancel has the focus
        await until(pilot, lambda: len(pilot.app.screen_stack) == 1, "nothing was requested")
        await pilot.press("r", "tab", "enter")
        assert len(pilot.app.screen_stack) == 2, "a reason is missing"
        await type_text(pilot, "better on [b]invoices")
        await pilot.press("enter")
        await until_shown(
            pilot, "✓ Requested the cutover to demo-256", "… OPEN waits for 1 approval", "better on [b]invoices"
        )
        assert offers(pilot) == {"withdraw"}, "nobody approves their own request"

    async with console(people["approver"]).run_test(size=SMALL) as pilot:
        await to_tab(pilot)
        await until(pilot, lambda: offers(pilot) == {"approve", "refuse"}, "what an approver may")
        await pilot.press("a")
        await until_shown(
            pilot, "Approve", "demo-64 → demo-256", "better on [b]invoices", "Type the version key to confirm"
        )
        await pilot.press("tab")
        await type_text(pilot, "demo-256")
        await pilot.press("tab")
        await type_text(pilot, "looked at it")
        await pilot.press("enter")
        await until_shown(pilot, "✓ Approved the cutover to demo-256: 1 of 1.", "guards 13/13")
        assert offers(pilot) == {"refuse"}
        await pilot.press("m", "m")
        await until_shown(pilot, "✓ APPROVED", "looked at it")

    async with console(people["operator"]).run_test(size=LARGE) as pilot:
        await to_tab(pilot)
        await until_shown(pilot, "✓ APPROVED", "looked at it", ALL_PASS, "u cut over")
        await pilot.press("u")
        await until_shown(pilot, "approved by", "Type the version key to confirm")
        await pilot.press("tab")
        await type_text(pilot, "demo-256")
        await pilot.press("enter")
        await until_shown(pilot, "✓ Cut over: demo-64 → demo-256 in")
    assert active_of(own_library) == "demo-256"


async def test_what_was_approved_and_then_changes_is_void(people: People, own_library: Database) -> None:
    with people["operator"].session("test") as connection:
        cutover.request(connection, "demo-256", reason="better")
    with people["approver"].session("test") as connection:
        cutover.approve(connection, "demo-256")
    async with console(people["operator"]).run_test(size=LARGE) as pilot:
        await to_tab(pilot)
        await until_shown(pilot, "✓ APPROVED", "u cut over")
        await pilot.press("u")
        await until_shown(pilot, "Type the version key to confirm")
        await pilot.press("escape")
        with own_library.session("test") as owner:
            cutover.change_policy(owner, {"min_recall": 0.8})
        await until_shown(pilot, "✗ VOID", "policy min_recall", "✗  fail  approvals")
        await until_gone(pilot, "u cut over")
        assert {"request-cutover", "withdraw"} == offers(pilot)
        await pilot.press("r", "tab")
        await type_text(pilot, "once more")
        await pilot.press("enter")
        await until_shown(pilot, "request 2", "… OPEN", "once more")
        await pilot.press("x")
        await until_shown(pilot, "Withdraw the request for demo-256")
        await pilot.press("tab", "enter")
        await until_shown(pilot, "✓ Withdrew the request for demo-256.", "Not requested yet")


async def test_an_approval_is_stopped_when_the_request_is_over(people: People) -> None:
    with people["operator"].session("test") as connection:
        cutover.request(connection, "demo-256", reason="better")
    async with console(people["approver"]).run_test(size=LARGE) as pilot:
        await to_tab(pilot)
        await until_shown(pilot, "a approve")
        await pilot.press("a", "tab")
        await type_text(pilot, "demo-256")
        await until_shown(pilot, "The key matches.")
        with people["operator"].session("test") as connection, connection.transaction():
            cutover.withdraw(connection, "demo-256")
            cutover.request(connection, "demo-256", reason="another one, which nobody has looked at")
        await until_shown(pilot, "✗ The request has ended")
        await pilot.press("enter")
        assert isinstance(pilot.app.screen, Confirm), "Enter does nothing"


async def test_a_viewer_reads_everything_and_is_offered_nothing(people: People) -> None:
    with people["operator"].session("test") as connection:
        cutover.request(connection, "demo-256", reason="better")
    app = console(people["viewer"])
    async with app.run_test(size=LARGE) as pilot:
        await to_tab(pilot)
        await until_shown(pilot, "… OPEN", "better", "12 of 13 pass", "none of this pair")
        assert offers(pilot) == set()
        await pilot.press("u", "R", "r", "a", "x", "w")
        assert len(app.screen_stack) == 1
        assert "r requests" not in shown(app)


def test_who_is_offered_what() -> None:
    """By the request as it stands: an action that the database would refuse is not there."""
    asked = Request(
        1, "embed-v2026-03", "ada", "", NOW, NOW + datetime.timedelta(days=3), "better", {}, {}, {}, (), 2, "",
        False, None, None, "",
    )  # fmt: skip
    approved = replace(asked, approvals=(Approval("bob", NOW, "", ""), Approval("eve", NOW, "", "")))
    void = replace(asked, void_because="gates changed")

    def there(request: Request | None, rights: Rights) -> set[str]:
        overview = replace(OVERVIEW, rights=rights)
        moment = situation(overview, "embed-v2026-03", tab="6", tabs=(CutoverState(request=request),))
        own = {"request-cutover", "approve", "withdraw", "refuse"}
        return {one.id for one in ACTIONS if one.id in own and offered(one, moment)}

    ada, bob = replace(EVERYTHING, role="ada"), replace(EVERYTHING, role="bob")
    approver = replace(bob, operate=False)
    assert there(None, ada) == {"request-cutover"}
    assert there(asked, ada) == {"withdraw"}
    assert there(asked, bob) == {"withdraw", "approve"}
    assert there(asked, approver) == {"refuse", "approve"}
    assert there(replace(asked, approvals=approved.approvals[:1]), bob) == {"withdraw"}, "nobody approves twice"
    assert there(approved, ada) == {"withdraw"}
    assert there(void, bob) == {"withdraw", "request-cutover"}
    assert there(replace(asked, expired=True), bob) == {"withdraw", "request-cutover"}
    assert there(asked, replace(ada, operate=False, approve=False)) == set()


async def test_one_guard_is_waived_by_its_name_and_with_a_reason(own_library: Database) -> None:
    with own_library.session("test") as connection:
        cutover.change_policy(connection, {"evaluation": "required"})
    app = console(own_library)
    async with app.run_test(size=SMALL) as pilot:
        await to_tab(pilot)
        await until_shown(pilot, "✗  fail  evaluation", "none of ", "12 of 13 pass")
        assert "cut-over" not in offers(pilot)
        await pilot.press("w")
        await until(pilot, lambda: isinstance(app.screen, WaiveDialog), "the dialog")
        await pilot.press("tab")
        await type_text(pilot, "complete")
        await until_shown(pilot, "✗ Guard 'complete' cannot be waived here")
        app.screen.query_one("#guard").value = ""  # type: ignore[attr-defined]
        await type_text(pilot, "evaluation")
        await until_shown(pilot, "A waiver needs a reason.")
        await pilot.press("enter")
        assert isinstance(app.screen, WaiveDialog)
        await pilot.press("tab")
        await type_text(pilot, "no queries yet")
        await pilot.press("enter")
        await until_shown(pilot, "12 of 13 pass, 1 waived", "u cut over")
        await pilot.press("u")
        await until_shown(pilot, "waived", "evaluation: no queries yet", "Type the version key to confirm")
        await pilot.press("tab")
        await type_text(pilot, "demo-256")
        await pilot.press("enter")
        await until_shown(pilot, "✓ Cut over: demo-64 → demo-256")
    with own_library.session("test") as connection:
        assert entries(connection, limit=1)[0].detail["client_says"]["waived"] == {"evaluation": "no queries yet"}


async def test_a_waiver_can_be_taken_back(own_library: Database) -> None:
    with own_library.session("test") as connection:
        cutover.change_policy(connection, {"evaluation": "required"})
    async with console(own_library).run_test(size=SMALL) as pilot:
        await to_tab(pilot)
        for reason, words in (("why not", "1 waived"), ("", "✗  fail  evaluation")):
            await pilot.press("w", "tab")
            await type_text(pilot, "evaluation")
            await pilot.press("tab")
            await type_text(pilot, reason)
            await pilot.press("enter")
            await until_shown(pilot, words)
        await until_gone(pilot, "u cut over")
