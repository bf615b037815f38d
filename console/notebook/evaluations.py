"""How evaluations are shown in a notebook: verdict, gates, measures with their intervals, overlap, moved queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from revector.console.notebook.page import Cell, Figures, Kind, Note, Page, Part, Table
from revector.console.notebook.views import Record, cells, columns, verdict_cell
from revector.core.evaluation.reports import charts
from revector.core.evaluation.reports.wording import (
    WORDS,
    caveats,
    interval,
    number,
    p_value,
    percent,
    run_settings,
    shortened,
    signed,
)
from revector.screens.wording.text import MARKS, date_and_time

if TYPE_CHECKING:
    from revector.core.evaluation.document import Evaluation, EvaluationSummary, MeasureResult, QueryResult

_MOST_QUERIES = 20
_OVERLAPS = {"overlap": "overlap@{k}", "jaccard": "Jaccard", "rbo": "RBO", "kendall_tau": "Kendall's tau"}
_CHARTED = ("overlap", "rbo")


def evaluation_page(e: Evaluation) -> tuple[Page, list[Record]]:
    """The page of one evaluation. Its rows are the measures by segment."""
    primary, candidate = e.primary.version_key, e.candidate.version_key
    kind: Kind = e.verdict or ""
    mark = f"{MARKS[e.verdict]} " if e.verdict else ""
    judges = ", ".join(e.judges) or "nobody"
    parts: list[Part] = [
        Note(
            f"Query set {e.query_set}: {e.judged_queries:,} judged queries, {e.unjudged_queries:,} without a judgement"
            f" · {e.judgements:,} judgements by {judges} · evaluation {e.id}, {date_and_time(e.created_at)}", "soft",
        ),
        *(Note(text, "inconclusive") for text in caveats(e)),
        *_gates(e), *_measures(e), *_overlaps(e), *_queries(e),
        Note(f"Primary: {run_settings(e.primary)}. Candidate: {run_settings(e.candidate)}.", "soft"),
    ]  # fmt: skip
    title = f"{mark}{WORDS[e.verdict]}: {candidate} against {primary}"
    return Page(title, tuple(parts), kind), [asdict(row) for row in e.measures]


def evaluations_page(found: Sequence[EvaluationSummary]) -> tuple[Page, list[Record]]:
    """The evaluations, newest first."""
    rows = tuple(
        cells(
            one.id, one.query_set, one.primary, one.candidate,
            verdict_cell(one.verdict) if one.verdict else Cell("no gates", "soft"), date_and_time(one.created_at),
            one.created_by,
        )
        for one in found
    )  # fmt: skip
    titles = ("id", "query set", "primary", "candidate", "verdict", "at", "by")
    table = Table(columns(*titles, figures=("id",)), rows)
    return Page("Evaluations" if found else "Nothing was evaluated yet", (table,) if found else ()), [
        asdict(one) for one in found
    ]


def _gates(e: Evaluation) -> list[Part]:
    if not e.gates:
        return []
    rows = tuple(
        cells(verdict_cell(gate.verdict), Cell(gate.name, "strong"), gate.detail)
        for gate in sorted(e.gates, key=lambda gate: ("fail", "inconclusive", "pass").index(gate.verdict))
    )
    return [Table(columns("verdict", "gate", "because"), rows, caption="Gates")]


def _measures(e: Evaluation) -> list[Part]:
    if not e.measures:
        return []
    names = list(dict.fromkeys(row.measure for row in e.measures))
    of = {name: [row for row in e.measures if row.measure == name] for name in names}
    between = f"candidate − primary, with {percent(e.confidence)} intervals"
    titles = ("measure", "segment", "queries", "primary", "candidate", "difference",
              f"{percent(e.confidence)} interval", "p")  # fmt: skip
    return [
        Figures(
            (
                *((f"{name}: {between}", charts.difference_chart(rows, e.confidence)) for name, rows in of.items()),
                (f"{names[0]}: change of every query, largest gain first", charts.change_chart(e.queries, names[0])),
            )
        ),
        Note("A filled mark has an interval that leaves zero out. Intervals and p are those of Student's paired "
             "t-test, each row by itself; only gates are corrected for their number.", "soft"),
        Table(columns(*titles, figures=titles[2:]), tuple(map(_measure, e.measures)),
              caption="Measures by segment", folded=True),
    ]  # fmt: skip


def _measure(row: MeasureResult) -> tuple[Cell, ...]:
    sure = row.low is not None and row.high is not None and (row.low > 0 or row.high < 0)
    kind: Kind = ("better" if row.difference > 0 else "worse") if sure else ""
    return cells(
        row.measure, Cell(row.segment, "strong" if row.segment == "all" else ""), f"{row.queries:,}",
        number(row.primary), number(row.candidate), Cell(signed(row.difference), kind), interval(row.low, row.high),
        p_value(row.p_value),
    )  # fmt: skip


def _overlaps(e: Evaluation) -> list[Part]:
    drawn = []
    for measure in _CHARTED:
        name = _OVERLAPS[measure].format(k=e.k)
        if rows := [row for row in e.overlaps if row.measure == measure]:
            drawn.append((f"{name}: how many queries", charts.distribution_chart(rows, name)))
    titles = ("rankings", "segment", "queries", "mean", "5 %", "median", "95 %")
    rows_of = tuple(
        cells(
            _OVERLAPS[row.measure].format(k=e.k), row.segment, f"{row.queries:,}", number(row.mean),
            *(number(row.quantiles[place]) for place in (1, 3, 5)),
        )
        for row in e.overlaps
    )  # fmt: skip
    if not drawn:
        return []
    return [
        Figures(tuple(drawn)),
        Table(columns(*titles, figures=titles[2:]), rows_of,
              caption="Rank overlap by segment, judged queries or not", folded=True),
    ]  # fmt: skip


def _queries(e: Evaluation) -> list[Part]:
    moved = [query for query in e.queries if query.overlap < 1 or query.rbo < 1]
    if not moved:
        return []
    measure = e.measures[0].measure if e.measures else ""
    titles = ("query", "segment", measure or "measure", f"overlap@{e.k}", "RBO", "unjudged")
    return [
        Table(
            columns(*titles, figures=titles[2:]),
            tuple(_query(query, measure) for query in moved[:_MOST_QUERIES]),
            caption=f"The queries that moved most, {min(len(moved), _MOST_QUERIES):,} of {len(moved):,}", folded=True,
        )
    ]  # fmt: skip


def _query(query: QueryResult, measure: str) -> tuple[Cell, ...]:
    before, after = query.primary.get(measure), query.candidate.get(measure)
    kind: Kind = (
        "" if before is None or after is None or before == after else "better" if after > before else "worse"
    )
    change = "–" if before is None or after is None else f"{number(before)} → {number(after)}"
    return cells(
        Cell(shortened(query.text, 200), below=query.id), query.segment, Cell(change, kind), number(query.overlap),
        number(query.rbo), f"{query.primary_unjudged} / {query.candidate_unjudged}",
    )  # fmt: skip
