"""Pictures of the Shadow tab in both sizes, over a report built by hand."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from textual.pilot import Pilot

from revector.core.shadow import Latency, ShadowReport, ShadowRun
from revector.core.shadow.report import Disagreement, OpenBreaker, SegmentFigures
from revector.screens.shadow.pane import ShadowPane
from tests.screens.frozen import NOW
from tests.screens.support import LARGE, SMALL, until
from tests.screens.test_snapshots import fixed_clock, frozen

__all__ = ["fixed_clock"]

Before = Callable[[Pilot[None]], Awaitable[None]]
SIZES = pytest.mark.parametrize("size", [LARGE, SMALL], ids=["large", "small"])
RUN = ShadowRun(
    4,
    "embed-v2026-03",
    3,
    0.1,
    "stored",
    14.0,
    NOW - datetime.timedelta(days=2),
    "ada",
    "before the cutover",
    None,
)
QUERIES = (
    ("how do I rotate an api key", "how-to", 0.1, 0.08),
    ("[bold]invoice[/] \x1b[31m2026-0117", "invoice", 0.2, 0.24),
    (None, "", 0.4, 0.41),
    ("is the api down", "status", 0.7, 0.66),
)


def report() -> ShadowReport:
    primary, candidate = Latency(1.84, 3.2, 7.9), Latency(2.11, 5.4, 121.4)
    return ShadowReport(
        RUN, 128_400, 12_840, 12_655, 120, 65, (), 10_000, NOW - datetime.timedelta(days=1), NOW,
        0.81, 0.74, 0.78, 0.62, (12, 40, 96, 130, 233, 410, 800, 1_466, 2_511, 2_702, 1_600), primary, candidate,
        (
            SegmentFigures("invoice", 2_200, 0.62, 0.58, primary, candidate),
            SegmentFigures("how-to", 5_100, 0.84, 0.81, primary, candidate),
            SegmentFigures("", 2_700, 0.91, 0.88, primary, candidate),
        ),
        tuple(
            Disagreement(
                number, NOW, text, "5c1e7a90b2d34f681122", segment, 10, "embed-v2026-02", overlap, rbo, ("a",), ("b",)
            )
            for number, (text, segment, overlap, rbo) in enumerate(QUERIES)
        ),
        65,
        (("no answer in 2 s", 60), ("HTTP 503", 5)),
    )  # fmt: skip


def pane_of(pilot: Pilot[None]) -> ShadowPane:
    pane = pilot.app.panes["5"]  # type: ignore[attr-defined]
    assert isinstance(pane, ShadowPane)
    return pane


async def shows(pilot: Pilot[None], found: ShadowReport | None) -> None:
    await pilot.press("5")
    await until(pilot, lambda: "5" in pilot.app.panes, "the tab")  # type: ignore[attr-defined]
    await pilot.app.workers.wait_for_complete()  # nothing can be read: there is no database
    await pilot.pause()
    pane = pane_of(pilot)
    pane.look = lambda: None  # type: ignore[method-assign]
    pane._show_report(found)
    await pilot.pause()
    pane.focus_main()
    await pilot.pause()


async def at_nothing(pilot: Pilot[None]) -> None:
    await shows(pilot, None)


async def at_report(pilot: Pilot[None]) -> None:
    await shows(pilot, report())


async def at_open_breaker(pilot: Pilot[None]) -> None:
    await shows(pilot, replace(report(), breaker=(OpenBreaker("web-1:7/a", NOW, "no answer in 2 s"),)))
    await pilot.press("m", "m", "escape")
    await pilot.pause()


async def at_segments(pilot: Pilot[None]) -> None:
    await at_report(pilot)
    await pilot.press("m", "escape")
    await pilot.pause()


async def at_stopped(pilot: Pilot[None]) -> None:
    await shows(pilot, replace(report(), run=replace(RUN, stopped_at=NOW), errors=()))


async def at_dialog(pilot: Pilot[None]) -> None:
    await at_nothing(pilot)
    await pilot.press("s")
    await pilot.pause()


@SIZES
@pytest.mark.parametrize("before", [at_nothing, at_report, at_open_breaker, at_stopped, at_dialog])
def test_shadow(snap_compare: Callable[..., bool], size: tuple[int, int], before: Before) -> None:
    assert snap_compare(frozen(), terminal_size=size, run_before=before)


def test_segments_have_a_screen_of_their_own(snap_compare: Callable[..., bool]) -> None:
    assert snap_compare(frozen(), terminal_size=SMALL, run_before=at_segments)
