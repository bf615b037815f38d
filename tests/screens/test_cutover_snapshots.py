"""Pictures of the Cutover tab in both sizes, over facts built by hand."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from textual.pilot import Pilot

from revector.console.app import RevectorApp
from revector.core.cutover import GUARDS, Check, CutoverEntry, Guard, Policy, Request, Watch
from revector.core.cutover.limits import Breach
from revector.core.cutover.request_store import Approval
from revector.core.evaluation.document import EvaluationSummary
from revector.core.overview import Overview
from revector.core.retrieval.counts import SearchFigures
from revector.core.serving import Process
from revector.core.settings import Settings
from revector.screens.cutover.board import Board
from revector.screens.cutover.facts import Facts
from revector.screens.cutover.pane import CutoverPane
from tests.screens.frozen import NOW, NOWHERE, OVERVIEW, YESTERDAY, FrozenReader, check
from tests.screens.support import LARGE, SMALL, until
from tests.screens.test_shadow_snapshots import report
from tests.screens.test_snapshots import fixed_clock

__all__ = ["fixed_clock"]

Before = Callable[[Pilot[None]], Awaitable[None]]
SIZES = pytest.mark.parametrize("size", [LARGE, SMALL], ids=["large", "small"])

OLD, NEW = "embed-v2026-02", "embed-v2026-03"
HOUR = datetime.timedelta(hours=1)
FLIPPED = NOW - datetime.timedelta(minutes=3, seconds=20)
REQUEST = Request(
    7, NEW, "ada", "ada@ops-1", YESTERDAY, NOW + 49 * HOUR, "better on [b]invoices[/] \x1b[31mand refunds", {},
    {"warm": "the nightly restart cleared the buffers"}, {},
    (Approval("bob", NOW - HOUR, "bob@ops-2", "worst 20 read"),), 2, "", False, None, None, "",
)  # fmt: skip
ENTRIES = (
    CutoverEntry(2, FLIPPED, "cutover", OLD, NEW, "ada", "better on invoices", 7, "ada", ["bob", "eve"],
                 {"warm": "restarted"}, NOW + 20 * HOUR, None, ""),
    CutoverEntry(1, YESTERDAY, "cutover", None, OLD, "postgres", "", None, None, [], {}, None, None, ""),
)  # fmt: skip
FACTS = Facts(
    OLD, NEW, Policy(approvals=2, shadow_queries=5_000), REQUEST,
    EvaluationSummary(12, "support", OLD, NEW, "pass", YESTERDAY, "ada"), report(), None,
    (
        Process(411, "web-1", "shop", OLD, False, YESTERDAY, None, None),
        Process(412, "web-2", "shop", OLD, True, YESTERDAY, None, OLD),
    ),
    ENTRIES[1:],
)  # fmt: skip
WATCH = Watch(
    2, NEW, OLD, FLIPPED, NOW + 20 * HOUR, NOW, 0, SearchFigures(120_300, 0.004, 0.0, 4.1, 9.8, 21.5),
    SearchFigures(2_110, 0.09, 0.001, 4.4, 11.2, 30.1), 0.81, 0.74, 210,
    (Breach("max_empty_rate_rise", "9.0% of searches find nothing, 0.4% before; 1.0% more may"),), (),
)  # fmt: skip


def frozen(overview: Overview = OVERVIEW) -> RevectorApp:
    return RevectorApp(NOWHERE, Settings(label="search-eu"), reader=FrozenReader(overview))


def flipped() -> Overview:
    """The second version answers users since a few minutes."""
    first, second, third = OVERVIEW.versions
    return replace(
        OVERVIEW,
        versions=(
            replace(first, version=replace(first.version, active=False, state="previous")),
            replace(second, version=replace(second.version, active=True, state="active")),
            third,
        ),
        rollback_to=OLD,
    )


async def pane_of(pilot: Pilot[None], key: str) -> CutoverPane:
    """The tab with that candidate, when no read is running."""
    app: RevectorApp = pilot.app  # type: ignore[assignment]
    app.selection = key
    await pilot.press("6")
    await until(pilot, lambda: "6" in app.panes and app.tab == "6", "the tab")
    pane: CutoverPane = app.panes["6"]  # type: ignore[assignment]
    await until(pilot, lambda: pane.checks.check_error is not None, "there is no database to look at")
    return pane


async def at_failing(pilot: Pilot[None]) -> None:
    pane = await pane_of(pilot, NEW)
    pane.checks.show_facts(replace(FACTS, request=None))
    pane.checks.show_check(check(ready=False))
    await pilot.pause()


async def at_filling(pilot: Pilot[None]) -> None:
    pane = await pane_of(pilot, NEW)
    pane.checks.show_facts(replace(FACTS, policy=Policy(), request=None))
    pane.checks.show_check(check())
    names = [rule.name for rule in GUARDS]
    known = {name: Guard(name, "pass", f"what was found of {name}") for name in names[:-2]}
    pane.checks.board = Board(NEW, known, pending=tuple(names[-2:]))
    pane.draw()
    await pilot.pause()


async def at_request(pilot: Pilot[None]) -> None:
    pane = await pane_of(pilot, NEW)
    pane.checks.show_facts(FACTS)
    waived = Guard("warm", "fail", "12 of 90 pages of 5 searches", "revector index prewarm", "restarted")
    missing = Guard("approvals", "fail", "1 of 2 approvals (bob)", "Another role has to approve it")
    pane.checks.show_check(Check(NEW, (*check().guards, waived, missing)))
    pane.part = "approvals"
    pane.changed()
    await pilot.pause()


async def at_void(pilot: Pilot[None]) -> None:
    pane = await pane_of(pilot, NEW)
    void = replace(REQUEST, void_because="gates changed from support.toml 5c1e to support.toml 90b2")
    pane.checks.show_facts(replace(FACTS, request=void))
    pane.checks.show_check(check())
    pane.part = "approvals"
    pane.changed()
    await pilot.pause()


async def at_broken(pilot: Pilot[None]) -> None:
    pane = await pane_of(pilot, OLD)
    late = Process(412, "web-2", "shop", OLD, False, YESTERDAY, 200.0, None)
    facts = Facts(
        NEW, OLD, Policy(max_empty_rate_rise=0.01, min_overlap=0.5), watch=WATCH,
        processes=(replace(late, version_key=NEW, pid=411, behind_s=None), late), history=ENTRIES,
    )  # fmt: skip
    pane.checks.board, pane.checks.check_error = Board(), None
    pane.checks.show_facts(facts)
    await pilot.pause()


@SIZES
@pytest.mark.parametrize("before", [at_failing, at_filling, at_request, at_void])
def test_cutover(snap_compare: Callable[..., bool], size: tuple[int, int], before: Before) -> None:
    assert snap_compare(frozen(), terminal_size=size, run_before=before)


@SIZES
def test_watch(snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    assert snap_compare(frozen(flipped()), terminal_size=size, run_before=at_broken)
