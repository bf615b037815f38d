"""Pictures of the tabs in both sizes, over a snapshot built by hand."""

from __future__ import annotations

import datetime
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot

from revector.console.app import RevectorApp
from revector.core.chunks import document_uuid
from revector.core.evaluation.judged_sets.query_sets import QuerySetSummary
from revector.core.explain import ChunkFacts
from revector.core.settings import Settings
from revector.core.vectors.report import LoadReport
from revector.screens.compare.explain_page import explain_page
from revector.screens.compare.hit_page import hit_page
from revector.screens.compare.query_picker import QueryPicker
from revector.screens.compare.query_sets import Choices
from tests.screens.frozen import (
    NOW,
    NOWHERE,
    OVERVIEW,
    FrozenReader,
    browsing,
    comparison,
    detail,
    explanation,
    facts,
    job,
    judged,
    letters,
)
from tests.screens.support import LARGE, SMALL, type_text, until

pytestmark = pytest.mark.parametrize("size", [LARGE, SMALL], ids=["large", "small"])


@pytest.fixture(autouse=True)
def fixed_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr("revector.screens.cutover.checking.time_now", lambda: "14:02:11")
    monkeypatch.setattr("revector.screens.frame.snapshots.Reading.age", lambda _reading: 0.0)
    yield
    monkeypatch.undo()
    time.tzset()


def frozen() -> RevectorApp:
    return RevectorApp(NOWHERE, Settings(label="search-eu"), reader=FrozenReader())


Before = Callable[[Pilot[None]], Awaitable[None]]


async def at_versions(pilot: Pilot[None]) -> None:
    app: RevectorApp = pilot.app  # type: ignore[assignment]
    await pilot.press("down")
    await until(pilot, lambda: app.selection == "embed-v2026-03", "selected")


async def at_compare(pilot: Pilot[None]) -> None:
    app: RevectorApp = pilot.app  # type: ignore[assignment]
    await pilot.press("down", "3")
    await until(pilot, lambda: "3" in app.panes, "the tab")
    pane: Any = app.panes["3"]
    pane.query_one("QueryBox").value = "rotate an api key"
    pane.control.show(comparison())
    await until(pilot, lambda: pane.query_one("Chart").builds, "the chart")


async def at_judged(pilot: Pilot[None]) -> None:
    """A query of a query set, judged, of a pair that was evaluated."""
    app: RevectorApp = pilot.app  # type: ignore[assignment]
    await at_compare(pilot)
    await app.workers.wait_for_complete()  # what is known of the pair: nothing, without a database
    await pilot.pause()
    pane: Any = app.panes["3"]
    pane.pair._facts_of = ("embed-v2026-02", "embed-v2026-03")
    pane.pair.browsing = browsing()
    pane.pair._set_facts(facts())
    pane.control.show(comparison())
    pane.control.show_judgements(judged())
    await pilot.press("n")
    await pilot.pause()


async def at_segments(pilot: Pilot[None]) -> None:
    await at_judged(pilot)
    await pilot.press("m", "escape")  # where all parts are on the screen, m says so in the footer
    await pilot.pause()


async def at_hit(pilot: Pilot[None]) -> None:
    await at_judged(pilot)
    chunk = ChunkFacts(3, document_uuid("guide/3.md"), {"lang": "en", "title": "\x1b[31mred"}, NOW)
    hit = comparison().primary.hits[2]
    await pilot.app.push_screen(hit_page(hit, False, comparison(), judged(), lambda: chunk))
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


async def at_diff(pilot: Pilot[None]) -> None:
    await at_judged(pilot)
    await pilot.press("d")
    await pilot.pause()


async def at_explain(pilot: Pilot[None]) -> None:
    await at_judged(pilot)
    one = [("primary", explanation("embed-v2026-02", 1, 5)), ("candidate", explanation("embed-v2026-03", 2, 1))]
    await pilot.app.push_screen(explain_page(comparison().primary.hits[2], lambda: one, 5))
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


async def at_picker(pilot: Pilot[None]) -> None:
    await at_judged(pilot)
    sets = (
        QuerySetSummary("cran", "r1", 225, ("all",), 0, (), "ada", NOW),
        QuerySetSummary("support", "r1", 3, ("billing", "how-to"), 9, ("ada",), "ada", NOW),
    )
    await pilot.app.push_screen(QueryPicker(lambda _name: Choices(sets, browsing()), "support"))
    await pilot.app.workers.wait_for_complete()
    await pilot.press("down")
    await pilot.pause()


async def at_backfill(pilot: Pilot[None]) -> None:
    app: RevectorApp = pilot.app  # type: ignore[assignment]
    await pilot.press("end", "b")
    await until(pilot, lambda: "2" in app.panes and app.selection == "embed-v2026-04", "the tab")
    await app.workers.wait_for_complete()
    await pilot.pause()
    pane: Any = app.panes["2"]
    pane.job.show(detail(), letters())
    chart = pane.query_one("Chart")
    await until(pilot, lambda: chart.builds or not chart.is_on_screen, "the chart")


async def at_map(pilot: Pilot[None]) -> None:
    await at_backfill(pilot)
    pane: Any = pilot.app.panes["2"]  # type: ignore[attr-defined]
    pane._part = "map"
    pane.draw()
    await pilot.pause()


async def at_settings(pilot: Pilot[None]) -> None:
    await at_backfill(pilot)
    await pilot.press("s", "down", "down", "down", "enter")
    await pilot.pause()


async def at_load(pilot: Pilot[None]) -> None:
    await at_backfill(pilot)
    await pilot.press("L", "tab")
    await type_text(pilot, "exports/vectors.npy")


async def at_loading(pilot: Pilot[None]) -> None:
    await at_load(pilot)
    dialog: Any = pilot.app.screen
    dialog._set_loading(True)
    dialog._progress("loading embed-v2026-04", 1_200_000, 4_856_000)
    await pilot.pause()


async def at_loaded(pilot: Pilot[None]) -> None:
    await at_load(pilot)
    dialog: Any = pilot.app.screen
    rows = (4_856_000, 2_055_100, 2_800_000, 800, 90, 10, 900, "backfilling", 1_200_000)
    dialog._ended(LoadReport("embed-v2026-04", "vectors.npy", *rows))
    await pilot.pause()


async def at_run_options(pilot: Pilot[None]) -> None:
    """What Ray cannot do is chosen."""
    await at_backfill(pilot)
    await pilot.press("o", "up", "up", "up", "up", "space", "up", "space")
    await pilot.pause()


def half_done() -> RevectorApp:
    """The third version's backfill is held, and chunks have failed."""
    key = "embed-v2026-04"
    status = OVERVIEW.versions[2]
    since = NOW - datetime.timedelta(minutes=4)
    one = job(
        key, "running", 2_800_000, 4_856_000, failed=13, rate=3_100.0, eta_s=661.0, eta_low_s=540.0,
        eta_high_s=840.0, workers=2, spent_usd=1.2, throttle="standby b is 12 s behind, limit 5 s",
        throttle_since=since,
    )  # fmt: skip
    overview = replace(
        OVERVIEW,
        versions=(*OVERVIEW.versions[:2], replace(status, failed=13)),
        jobs={**OVERVIEW.jobs, key: one},
        rates={key: tuple(3_000.0 + 40 * (second % 17) for second in range(110))},
    )
    return RevectorApp(NOWHERE, Settings(label="search-eu"), reader=FrozenReader(overview))


@pytest.mark.parametrize(
    "before", [at_backfill, at_map, at_settings, at_load, at_loading, at_loaded, at_run_options]
)
def test_backfill(snap_compare: Callable[..., bool], size: tuple[int, int], before: Before) -> None:
    assert snap_compare(half_done(), terminal_size=size, run_before=before)


def test_versions(snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    assert snap_compare(frozen(), terminal_size=size, run_before=at_versions)


def test_compare(snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    assert snap_compare(frozen(), terminal_size=size, run_before=at_compare)


@pytest.mark.parametrize("before", [at_judged, at_segments, at_hit, at_diff, at_explain, at_picker])
def test_compare_judged(snap_compare: Callable[..., bool], size: tuple[int, int], before: Before) -> None:
    assert snap_compare(frozen(), terminal_size=size, run_before=before)
