"""The page of an evaluation: verdict, caveats, gates, measures with intervals, rank overlap, queries that moved."""

from __future__ import annotations

from collections.abc import Iterable

from revector.core.evaluation.document import Evaluation, MeasureResult, QueryResult, Run
from revector.core.evaluation.reports import charts
from revector.core.evaluation.reports.page import (
    Figures,
    Kind,
    Note,
    Part,
    ReportCell,
    ReportPage,
    ReportTable,
    cells,
    columns,
    verdict_cell,
)
from revector.core.evaluation.reports.wording import (
    NOTHING,
    WORDS,
    caveats,
    interval,
    number,
    p_value,
    percent,
    run_settings,
    signed,
)
from revector.core.text import MARKS, counted, shorten

_MOST_JUDGES = 10
_MOST_TARGETS = 200
_CHARTED = ("overlap", "rbo")


def evaluation_page(e: Evaluation, *, queries: int = 100) -> ReportPage:
    """The page of an evaluation, with at most that many of the queries that moved most."""
    judges = ", ".join(e.judges[:_MOST_JUDGES]) or "nobody"
    if len(e.judges) > _MOST_JUDGES:
        judges += f" and {len(e.judges) - _MOST_JUDGES} others"
    level = f", on {e.level}s" if e.level else ""
    about = (
        f"Query set {e.query_set} (revision {e.query_set_revision}): "
        f"{counted(e.judged_queries, 'judged query', 'judged queries')}, {e.unjudged_queries:,} without a judgement · "
        f"{counted(e.judgements, 'judgement')} by {judges}{level} · "
        f"evaluation {e.id}, {e.created_at:%Y-%m-%d %H:%M %Z}, by {e.created_by}"
    )
    mark = f"{MARKS[e.verdict]} " if e.verdict else ""
    return ReportPage(
        f"{mark}{WORDS[e.verdict]}: {e.candidate.version_key} against {e.primary.version_key}",
        (
            Note(about, "soft"),
            *(Note(text, "inconclusive") for text in caveats(e)),
            *_gates(e),
            *_measures(e),
            *_overlaps(e),
            *_queries(e, queries),
            *_unknown_targets(e),
            Note(f"Primary: {_run(e.primary)}. Candidate: {_run(e.candidate)}.", "soft"),
        ),
        e.verdict or "",
    )


def _gates(e: Evaluation) -> Iterable[Part]:
    if e.gates:
        rows = (
            cells(verdict_cell(gate.verdict), ReportCell(gate.name, "strong"), gate.detail)
            for gate in sorted(e.gates, key=lambda gate: ("fail", "inconclusive", "pass").index(gate.verdict))
        )
        yield ReportTable(columns("verdict", "gate", "because"), tuple(rows), "Gates")


def _measures(e: Evaluation) -> Iterable[Part]:
    if not e.measures:
        return
    of = {row.measure: [other for other in e.measures if other.measure == row.measure] for row in e.measures}
    between = f"candidate − primary, with {percent(e.confidence)} intervals, filled where that leaves zero out"
    yield Figures(
        (
            *((f"{name}: {between}", charts.difference_chart(rows, e.confidence)) for name, rows in of.items()),
            *((f"{name}: change of every query, largest gain first", charts.change_chart(e.queries, name))
              for name in of),
        )
    )  # fmt: skip
    titles = ("measure", "segment", "queries", "primary", "candidate", "difference",
              f"{percent(e.confidence)} interval", "p")  # fmt: skip
    yield ReportTable(
        columns(*titles, figures=titles[2:]), tuple(map(_measure, e.measures)), "Measures by segment", folded=True
    )
    yield Note(
        "Intervals and p are those of Student's paired t-test over the queries, each row by itself; only gates are "
        "corrected for their number.",
        "soft",
    )


def _measure(row: MeasureResult) -> tuple[ReportCell, ...]:
    sure = row.low is not None and row.high is not None and (row.low > 0 or row.high < 0)
    kind: Kind = ("better" if row.difference > 0 else "worse") if sure else ""
    return cells(
        row.measure, ReportCell(row.segment, "strong" if row.segment == "all" else ""), f"{row.queries:,}",
        number(row.primary), number(row.candidate), ReportCell(signed(row.difference), kind),
        interval(row.low, row.high), p_value(row.p_value),
    )  # fmt: skip


def _overlaps(e: Evaluation) -> Iterable[Part]:
    if not e.overlaps:
        return
    names = {"overlap": f"overlap@{e.k}", "jaccard": "Jaccard", "rbo": f"RBO, p {e.rbo_p:g}", "kendall_tau": "tau"}
    of = {name: [row for row in e.overlaps if row.measure == name] for name in _CHARTED}
    yield Figures(
        tuple(
            (f"{names[name]}: how many queries", charts.distribution_chart(rows, names[name]))
            for name, rows in of.items()
            if rows
        )
    )
    titles = ("rankings", "segment", "queries", "mean", "least", "5 %", "25 %", "median", "75 %", "95 %", "most")
    rows = (
        cells(
            names[row.measure], row.segment, f"{row.queries:,}", number(row.mean),
            *(number(value) for value in row.quantiles),
        )
        for row in e.overlaps
    )  # fmt: skip
    caption = "Rank overlap by segment, judged queries or not"
    yield ReportTable(columns(*titles, figures=titles[2:]), tuple(rows), caption, folded=True)


def _queries(e: Evaluation, most: int) -> Iterable[Part]:
    moved = [query for query in e.queries if query.overlap < 1 or query.rbo < 1]
    if not moved:
        return
    measures = tuple(dict.fromkeys(row.measure for row in e.measures))
    titles = ("query", "segment", *measures, f"overlap@{e.k}", "RBO", "tau", "unjudged")
    rows = (
        cells(
            ReportCell(shorten(query.text, 300), below=shorten(query.id, 60)), shorten(query.segment, 60),
            *(_change(query, measure) for measure in measures), number(query.overlap), number(query.rbo),
            number(query.kendall_tau), f"{query.primary_unjudged} / {query.candidate_unjudged}",
        )
        for query in moved[:most]
    )  # fmt: skip
    caption = f"The queries that moved most, {min(len(moved), most):,} of {len(moved):,}"
    yield ReportTable(columns(*titles, figures=titles[2:]), tuple(rows), caption, folded=True)
    yield Note(f"Unjudged: how many of the top {e.k} of primary / candidate nobody judged.", "soft")


def _change(query: QueryResult, measure: str) -> ReportCell:
    before, after = query.primary.get(measure), query.candidate.get(measure)
    if before is None or after is None:
        return ReportCell(NOTHING)
    kind: Kind = "" if before == after else "better" if after > before else "worse"
    return ReportCell(f"{number(before)} → {number(after)}", kind)


def _unknown_targets(e: Evaluation) -> Iterable[Part]:
    if e.unknown_targets:
        rows = (
            cells(shorten(target, 200), shorten(query, 60)) for query, target in e.unknown_targets[:_MOST_TARGETS]
        )
        caption = f"Judged, but not in the collection: {counted(len(e.unknown_targets), 'target')}"
        yield ReportTable(columns("target", "query"), tuple(rows), caption, folded=True)


def _run(run: Run) -> str:
    return (
        f"run {run.id} of {run.encoder}, revision {run.encoder_revision}, {run_settings(run)}, in {run.seconds:,.1f} s "
        f"from {run.started_at:%Y-%m-%d %H:%M:%S %Z}, by {run.created_by}"
    )
