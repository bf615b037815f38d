"""The texts of an evaluation: rows, chart ranges and sentences for verdict, caveats, gates, measures, queries."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from revector.core.evaluation.document import (
    Evaluation,
    GateResult,
    MeasureResult,
    QueryResult,
    Run,
    Verdict,
)
from revector.core.evaluation.judged_sets.query_sets import WHOLE_SET
from revector.core.evaluation.reports.wording import caveats, number, p_value, percent, run_settings, signed
from revector.screens.widgets.chart import Range
from revector.screens.widgets.table import Column, Row
from revector.screens.wording.facts import facts
from revector.screens.wording.text import date_and_time, printable, shorten
from revector.screens.wording.theme import CAUTION, FAINT, SIGNS, TITLE

OVERLAPS = ("overlap", "rbo", "jaccard", "kendall_tau")
"""Measures of rank overlap, which need no judgements."""

SEGMENTS = (
    Column("segment"),
    Column("n", 5, right=True),
    Column("primary", 7, right=True),
    Column("candidate", 9, right=True),
    Column("change", 7, right=True),
    Column("interval", 13),
    Column("p", 7, right=True),
)
SPREADS = (
    Column("segment"),
    Column("n", 6, right=True),
    Column("mean", 6, right=True),
    Column("5 %", 6, right=True),
    Column("median", 6, right=True),
    Column("95 %", 6, right=True),
)
QUERIES = (
    Column("query"),
    Column("prim. → cand.", 13),
    Column("change", 7, right=True),
    Column("RBO", 5, right=True),
    Column("overlap", 7, right=True),
)
_LOW, _MEDIAN, _HIGH = 1, 3, 5
"""The indexes of 5 %, the median and 95 % among the quantiles of an OverlapResult."""
_ANSWERS: dict[Verdict | None, str] = {
    "pass": "Pass: every gate passes",
    "fail": "Fail: a gate fails",
    "inconclusive": "Inconclusive: not enough data to decide",
    None: "No gates",
}
_MOST_QUERIES = 300
_WIDE = 100
"""From this width on the verdict is a sentence, else a word."""


def measures_of(found: Evaluation) -> list[str]:
    """The available measures: those of the judged queries, then those of rank overlap."""
    judged = dict.fromkeys(row.measure for row in found.measures)
    there = {row.measure for row in found.overlaps}
    return [*judged, *(name for name in OVERLAPS if name in there)]


def measure_words(measure: str, k: int) -> str:
    """A measure's name as people write it."""
    return {"overlap": f"overlap@{k}", "rbo": "RBO", "jaccard": "Jaccard", "kendall_tau": "tau"}.get(
        measure, printable(measure)
    )


# -- the verdict -------------------------------------------------------------------------------------------


def verdict_line(found: Evaluation, width: int) -> Text:
    """`✗ Fail: a gate fails.  embed-03 against embed-02 on cran, 200 of 225 judged`."""
    sign, colour = SIGNS[found.verdict]
    answer = _ANSWERS[found.verdict] if width >= _WIDE else _ANSWERS[found.verdict].partition(":")[0]
    text = Text(f"{sign} {answer}", f"bold {colour}", no_wrap=True, overflow="ellipsis")
    pair = f"{found.candidate.version_key} against {found.primary.version_key}"
    total = found.judged_queries + found.unjudged_queries
    text.append(f"  {printable(pair)}", "bold")
    text.append(f" on {printable(found.query_set)}, {found.judged_queries:,} of {total:,} judged", "not bold")
    return text


def caveat_lines(found: Evaluation, width: int, most: int) -> Text:
    """The caveats, in at most `most` lines: those that fit, and how many more there are."""
    said = [printable(one) for one in caveats(found)]
    shown = said if len(said) <= most else said[: most - 1]
    share = most // max(1, len(shown)) if shown is said else 1
    lines = []
    for one in shown:
        wrapped = textwrap.wrap(one, max(20, width), initial_indent="! ", subsequent_indent="  ") or ["!"]
        if len(wrapped) > share:
            wrapped[share - 1 :] = [shorten(wrapped[share - 1], width - 4).rstrip("…") + " … d"]
        lines += wrapped
    if len(said) > len(shown):
        lines.append(f"! {len(said) - len(shown)} more: press d")
    return Text("\n".join(lines), CAUTION, no_wrap=True, overflow="ellipsis")


def gate_lines(gates: Sequence[GateResult]) -> RenderableType:
    """Each gate with its mark, its name, and the figures behind it below."""
    if not gates:
        return Text("No gates, so no verdict. Name a gates file: r, then gates.", FAINT)
    grid = Grid.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for gate in gates:
        sign, colour = SIGNS[gate.verdict]
        words = Text(f"{printable(gate.name)} ", "bold")
        words.append(f"{gate.verdict}\n", colour)
        grid.add_row(Text(sign, colour), words.append(printable(gate.detail), "not bold"))
    return grid


def gates_title(gates: Sequence[GateResult]) -> str:
    """` gates ─ 1 of 2 pass `."""
    passed = sum(gate.verdict == "pass" for gate in gates)
    return f" gates ─ {passed} of {len(gates)} pass " if gates else " gates "


# -- segments ----------------------------------------------------------------------------------------------


def segment_rows(found: Evaluation, measure: str) -> list[Row]:
    """The measure by segment, of the judged queries: means, difference, interval, p."""
    return [_measure_row(row) for row in found.measures if row.measure == measure]


def _measure_row(row: MeasureResult) -> Row:
    style = {"+": SIGNS["pass"][1], "x": SIGNS["fail"][1]}.get(_marker(row), "")
    sign = {"+": "▲", "x": "▼"}.get(_marker(row), "")
    return Row(
        row.segment,
        (
            row.segment,
            f"{row.queries:,}",
            number(row.primary),
            number(row.candidate),
            Text(f"{sign}{signed(row.difference)}", style),
            "–" if row.low is None or row.high is None else f"{signed(row.low)}…{signed(row.high)}",
            p_value(row.p_value),
        ),
    )


def _marker(row: MeasureResult) -> str:
    """`+` if the interval is above zero, `x` if below, `o` if it contains zero."""
    if row.low is None or row.high is None:
        return "o"
    return "+" if row.low > 0 else "x" if row.high < 0 else "o"


def spread_rows(found: Evaluation, measure: str) -> list[Row]:
    """The distribution of a rank overlap measure over the queries of each segment."""
    return [
        Row(
            row.segment,
            (
                row.segment,
                f"{row.queries:,}",
                f"{row.mean:.3f}",
                *(f"{row.quantiles[place]:.2f}" for place in (_LOW, _MEDIAN, _HIGH)),
            ),
        )
        for row in found.overlaps
        if row.measure == measure
    ]


def ranges_of(found: Evaluation, measure: str) -> tuple[list[Range], tuple[float, float], str]:
    """The chart of a measure: one range for each segment, the axis limits, and the legend."""
    if measure in OVERLAPS:
        rows = [row for row in found.overlaps if row.measure == measure]
        limits = (-1.0, 1.0) if measure == "kendall_tau" else (0.0, 1.0)
        spreads = [Range(row.segment, row.quantiles[_LOW], row.mean, row.quantiles[_HIGH]) for row in rows]
        return spreads, limits, "o mean  --- 90 % of the queries"
    ranges = [_interval(row) for row in found.measures if row.measure == measure]
    widest = max((max(abs(one.low), abs(one.high)) for one in ranges), default=0.0)
    edge = _round_up(widest)
    return ranges, (-edge, edge), "+ better  x worse  o unclear"


def _interval(row: MeasureResult) -> Range:
    low = row.difference if row.low is None else row.low
    high = row.difference if row.high is None else row.high
    return Range(row.segment, low, row.difference, high, _marker(row))


def _round_up(value: float) -> float:
    """The next of 1, 2, 4 and 8 times a power of ten, so that quarters of the axis are short numbers."""
    if value <= 0:
        return 0.01
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 8, 10) if value <= step * power * (1 + 1e-9))


# -- queries -----------------------------------------------------------------------------------------------


def worst_queries(found: Evaluation, measure: str, segment: str) -> list[QueryResult]:
    """The queries of a segment, largest loss first; for rank overlap, those that moved most.

    For a segment without judged queries, also those that moved most.
    """
    rows = [row for row in found.queries if segment in (WHOLE_SET, row.segment)]
    judged = [row for row in rows if measure in row.primary and measure in row.candidate]
    if measure not in OVERLAPS and judged:
        return sorted(judged, key=lambda row: (_change(row, measure), row.rbo, row.id))
    by = measure if measure in OVERLAPS else "rbo"

    def moved(row: QueryResult) -> tuple[float, float, str]:
        value = getattr(row, by)
        return (2.0 if value is None else value, row.rbo, row.id)

    return sorted(rows, key=moved)


def queries_title(found: Evaluation, measure: str, segment: str, rows: Sequence[QueryResult]) -> str:
    """The title of the list of queries: its measure, and how many queries lost and gained."""
    of = "" if segment == WHOLE_SET else f" of {printable(segment)}"
    if rows and measure in rows[0].primary:
        lost = sum(_change(row, measure) < 0 for row in rows)
        gained = sum(_change(row, measure) > 0 for row in rows)
        words = f"{lost:,} lost, {gained:,} gained, {len(rows) - lost - gained:,} the same"
        return f" worst queries{of} ─ {measure_words(measure, found.k)}: {words} "
    moved = sum(row.rbo < 1 - 1e-9 for row in rows)
    return f" queries{of} that moved most ─ {moved:,} of {len(rows):,} moved "


def query_rows(rows: Sequence[QueryResult], measure: str) -> list[Row]:
    """The rows of the first queries; no values for unjudged ones."""
    return [_query_row(row, measure) for row in rows[:_MOST_QUERIES]]


def _query_row(row: QueryResult, measure: str) -> Row:
    judged = measure in row.primary and measure in row.candidate
    values = f"{number(row.primary[measure])} → {number(row.candidate[measure])}" if judged else "not judged"
    if not judged and measure in OVERLAPS:
        values = "—"
    change = signed(_change(row, measure)) if judged else "—"
    return Row(row.id, (row.text, values, change, f"{row.rbo:.2f}", f"{row.overlap:.2f}"))


def _change(row: QueryResult, measure: str) -> float:
    return row.candidate[measure] - row.primary[measure]


# -- everything --------------------------------------------------------------------------------------------


def details_page(found: Evaluation) -> RenderableType:
    """Everything that is not on the screen: all caveats, settings of both runs, gates, every measure, rank
    overlap."""
    judges = ", ".join(found.judges) or "nobody"
    lines: list[tuple[str, str | Text]] = [
        ("evaluation", f"{found.id}, {date_and_time(found.created_at)}, by {found.created_by}"),
        ("query set", f"{found.query_set}, revision {found.query_set_revision}"),
        ("judged", f"{found.judged_queries:,} of {found.judged_queries + found.unjudged_queries:,} queries, "
         f"{found.judgements:,} judgements by {judges}"),
        ("level", found.level or "—"),
        ("intervals", f"at {percent(found.confidence)} confidence"),
    ]  # fmt: skip
    for role, run in (("primary", found.primary), ("candidate", found.candidate)):
        lines.append((role, f"{run.version_key}, {run.encoder}"))
        lines.append(
            ("", f"run {run.id}: {run_settings(run)}, {run.seconds:.1f} s, {date_and_time(run.finished_at)}")
        )
    notes = [Text(f"! {printable(one)}", CAUTION) for one in caveats(found)]
    parts: list[RenderableType] = [facts(lines), *([Text(), *notes] if notes else [])]
    parts += [Text("\ngates", TITLE), gate_lines(found.gates)]
    if found.measures:
        parts += [Text(f"\nmeasures, candidate − primary at {percent(found.confidence)} confidence", TITLE)]
        parts.append(
            _grid(
                ("measure", "segment", "n", "primary", "candidate", "change", "interval", "p"),
                [(row.measure, *_measure_row(row).cells) for row in found.measures],
            )
        )
    parts += [Text(f"\nrank overlap of the first {found.k}, over all queries", TITLE)]
    parts.append(
        _grid(
            ("measure", "segment", "n", "mean", "5 %", "median", "95 %"),
            [(measure_words(name, found.k), *row.cells) for name in OVERLAPS for row in spread_rows(found, name)],
        )
    )
    return Group(*parts)


def run_page(run: Run) -> RenderableType:
    """All that is known about a run."""
    return facts(
        [
            ("version", run.version_key),
            ("encoder", f"{run.encoder}, revision {run.encoder_revision}"),
            ("query set", f"{run.query_set}, revision {run.query_set_revision}, {run.queries:,} queries"),
            ("searched", run_settings(run)),
            ("sample", str(run.sample["says"]) if run.sample else "none: the whole collection"),
            ("started", date_and_time(run.started_at)),
            ("ended", date_and_time(run.finished_at)),
            ("took", f"{run.seconds:.1f} s"),
            ("by", run.created_by),
        ]
    )


def _grid(head: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> RenderableType:
    grid = Grid.grid(padding=(0, 2, 0, 0))
    for place, title in enumerate(head):
        text = place < 2 or title == "interval"
        grid.add_column(no_wrap=True, overflow="ellipsis", justify="left" if text else "right")
    grid.add_row(*(Text(title, FAINT) for title in head))
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    return grid
