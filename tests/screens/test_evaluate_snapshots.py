"""Pictures of the Evaluate tab in both sizes, over an evaluation built by hand."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable

import pytest
from rich.text import Text
from textual.pilot import Pilot

from revector.console.app import RevectorApp
from revector.core.evaluation.document import (
    Evaluation,
    EvaluationSummary,
    GateResult,
    MeasureResult,
    OverlapResult,
    QueryResult,
    Run,
)
from revector.core.evaluation.judged_sets.query_sets import QuerySetSummary
from revector.core.evaluation.measures.thresholds import ThresholdRow, Thresholds
from revector.screens.evaluate.lists import Lists
from revector.screens.evaluate.pane import EvaluatePane
from revector.screens.evaluate.thresholds_page import ThresholdsPage
from revector.screens.widgets.chart import Chart
from tests.screens.frozen import NOW
from tests.screens.support import LARGE, SMALL, until
from tests.screens.test_snapshots import fixed_clock, frozen

__all__ = ["fixed_clock"]

Before = Callable[[Pilot[None]], Awaitable[None]]
SIZES = pytest.mark.parametrize("size", [LARGE, SMALL], ids=["large", "small"])
PAIR = ("embed-v2026-02", "embed-v2026-03")


@pytest.fixture(autouse=True)
def looks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("revector.screens.evaluate.reader._LOOK_EVERY_S", 3_600.0)


def run(number: int, key: str, **sample: object) -> Run:
    return Run(
        number, "search-log", "5c1e7a90b2d34f68", key, "static:wordllama-256", "r1", 100, False, False, 100,
        {"m": 16, "ef_construction": 64}, sample or None, 1_204_551, 225, "done", NOW, NOW, 12.4, "ada",
    )  # fmt: skip


def measures() -> tuple[MeasureResult, ...]:
    rows = [
        ("all", 200, 0.612, 0.655, 0.018, 0.068, 0.001),
        ("how-to", 80, 0.640, 0.702, 0.021, 0.103, 0.004),
        ("invoice", 70, 0.581, 0.530, -0.094, -0.008, 0.021),
        ("status", 49, 0.607, 0.622, -0.031, 0.061, 0.52),
    ]
    found = [
        MeasureResult(name, segment, n, one - shift, two - shift, two - one, low, high, p)
        for name, shift in (("nDCG@10", 0.0), ("P@10", 0.3))
        for segment, n, one, two, low, high, p in rows
    ]
    return (*found, MeasureResult("nDCG@10", "unclear", 1, 0.5, 0.5, 0.0, None, None, None))


def evaluation() -> Evaluation:
    gates = (
        GateResult(
            "no worse than active", "non-inferiority", "nDCG@10", "all", "pass", 200, 0.043, 0.018, 0.068, -0.02, 0.975,
            0.001, None, "+0.043 ≥ −0.020: the mean of candidate − primary in nDCG@10 over 200 queries lies above "
            "+0.018 and below +0.068, each at 97.5 % confidence (0.95 over 2 gates).",
        ),
        GateResult(
            "invoices are found", "floor", "P@10", "invoice", "inconclusive", 70, 0.23, 0.19, 0.27, 0.25, 0.975,
            0.3, 140, "0.230 < 0.250: the candidate's mean P@10 over 70 queries of invoice lies above 0.190 and below "
            "0.270. That is not conclusive; about 140 more queries would, with 80 % power.",
        ),
    )  # fmt: skip
    queries = tuple(
        QueryResult(
            f"q{n}", text, segment, 4, {"nDCG@10": one, "P@10": 0.3}, {"nDCG@10": two, "P@10": 0.3}, 3, 4,
            rbo + 0.05, rbo, rbo, 0.4,
        )
        for n, (text, segment, one, two, rbo) in enumerate(
            [
                ("where is my invoice for march", "invoice", 0.86, 0.21, 0.22),
                ("change the address on an invoice that was sent already", "invoice", 0.70, 0.44, 0.41),
                ("rotate an api key", "how-to", 0.50, 0.92, 0.48),
                ("is the api down", "status", 0.63, 0.63, 0.95),
            ]
        )
    )  # fmt: skip
    overlaps = tuple(
        OverlapResult(name, segment, n, mean, (0.1, 0.2, 0.4, mean, 0.8, 0.9, 1.0), (1,) * 10)
        for name in ("overlap", "rbo")
        for segment, n, mean in (("all", 225, 0.61), ("how-to", 90, 0.66), ("invoice", 80, 0.48))
    )
    return Evaluation(
        id=7,
        query_set="search-log",
        query_set_revision="5c1e7a90b2d34f68",
        primary=run(13, PAIR[0]),
        candidate=run(14, PAIR[1]),
        judges=("ada", "bob"),
        level="document",
        k=10,
        rbo_p=0.9,
        confidence=0.95,
        measures=measures(),
        overlaps=overlaps,
        gates=gates,
        verdict="inconclusive",
        queries=queries,
        judged_queries=200,
        unjudged_queries=25,
        judgements=1_840,
        unknown_targets=(("q7", "KB-1204"),),
        warnings=("The runs differ in ef_search: 40 of embed-v2026-02, 100 of embed-v2026-03.",),
        created_at=NOW,
        created_by="ada",
    )


def lists() -> Lists:
    ago = datetime.timedelta(hours=3)
    summaries = (
        EvaluationSummary(7, "search-log", *PAIR, "inconclusive", NOW, "ada"),
        EvaluationSummary(6, "search-log", *PAIR, "fail", NOW - ago, "bob"),
        EvaluationSummary(5, "smoke", *PAIR, "pass", NOW - 2 * ago, "ci"),
        EvaluationSummary(4, "smoke", *PAIR, None, NOW - 3 * ago, "ada"),
    )
    runs = (run(14, PAIR[1]), run(13, PAIR[0]), run(12, PAIR[1], says="A pilot."))
    sets = QuerySetSummary(
        "search-log", "5c1e7a90b2d34f68", 225, ("how-to", "invoice"), 1_840, ("ada", "bob"), "ada", NOW
    )
    return Lists(summaries, runs, (sets,))


async def at_nothing(pilot: Pilot[None]) -> None:
    app: RevectorApp = pilot.app  # type: ignore[assignment]
    await pilot.press("down", "4")
    await until(pilot, lambda: "4" in app.panes and app.selection == PAIR[1], "the tab")
    await app.workers.wait_for_complete()
    await pilot.pause()
    pane = pane_of(pilot)
    pane.reader.lists, pane.reader.opening = Lists(sets=lists().sets), False
    pane.control.say(Text())
    pane.draw()
    await pilot.pause()


def pane_of(pilot: Pilot[None]) -> EvaluatePane:
    pane = pilot.app.panes["4"]  # type: ignore[attr-defined]
    assert isinstance(pane, EvaluatePane)
    return pane


async def at_segments(pilot: Pilot[None]) -> None:
    await at_nothing(pilot)
    pane = pane_of(pilot)
    pane.reader.lists = lists()
    pane.reader.show(evaluation())
    await pilot.pause()
    chart = pane.query_one(Chart)
    await until(pilot, lambda: chart.builds or not chart.is_on_screen, "the chart")


async def at_intervals(pilot: Pilot[None]) -> None:
    await at_segments(pilot)
    pane = pane_of(pilot)
    await pilot.press("down", "down", "m", "escape")
    await until(pilot, lambda: pane.query_one(Chart).builds, "the chart")


async def at_queries(pilot: Pilot[None]) -> None:
    await at_segments(pilot)
    await pilot.press("down", "down", "enter")
    await pilot.pause()


async def at_overlap(pilot: Pilot[None]) -> None:
    await at_segments(pilot)
    await pilot.press("N")
    await pilot.pause()


async def at_gates(pilot: Pilot[None]) -> None:
    await at_segments(pilot)
    await pilot.press("m", "m", "m", "escape")
    await pilot.pause()


async def at_runs(pilot: Pilot[None]) -> None:
    await at_segments(pilot)
    await pilot.press("l", "down", "c")
    await pilot.pause()


async def at_dialog(pilot: Pilot[None]) -> None:
    await at_segments(pilot)
    await pilot.press("r", "down", "down", "down", "left")
    await pilot.pause()


async def at_thresholds(pilot: Pilot[None]) -> None:
    await at_segments(pilot)
    rows = tuple(
        ThresholdRow(1 - q, 0.4 + q / 2, 0.3 + q / 2, max(0.0, 0.8 - q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)
    )
    found = Thresholds("1 − cosine distance", 225, 1, (225, 225), rows, ThresholdRow(0.41, 0.82, 0.7431, 0.12))
    page = ThresholdsPage(PAIR, lambda _cut, _depth: found)
    await pilot.app.push_screen(page)
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()
    page.query_one("#cut").cursor_blink = False  # type: ignore[attr-defined]
    await pilot.pause()


@SIZES
@pytest.mark.parametrize(
    "before", [at_nothing, at_segments, at_queries, at_overlap, at_runs, at_dialog, at_thresholds]
)
def test_evaluate(snap_compare: Callable[..., bool], size: tuple[int, int], before: Before) -> None:
    assert snap_compare(frozen(), terminal_size=size, run_before=before)


@pytest.mark.parametrize("before", [at_intervals, at_gates])
def test_parts_in_turn(snap_compare: Callable[..., bool], before: Before) -> None:
    assert snap_compare(frozen(), terminal_size=SMALL, run_before=before)
