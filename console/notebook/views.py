"""Shows core's results in a notebook: a page for each, and its rows for a data frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from msgspec import structs

from revector.console.commands.backfill.status import eta
from revector.core.evaluation.reports.page import (
    Bar,
    Figures,
    Kind,
    Note,
    Part,
    ReportCell,
    ReportColumn,
    ReportPage,
    ReportTable,
    cells,
    columns,
    verdict_cell,
)
from revector.screens.wording import version
from revector.screens.wording.text import MARKS, counted, date_and_time, duration, milliseconds, shorten

if TYPE_CHECKING:
    from revector.core.audit import AuditEntry
    from revector.core.backfill.job.status import JobStatus
    from revector.core.cutover import Check, Flip
    from revector.core.evaluation.document import EvaluationSummary
    from revector.core.evaluation.judged_sets.judged_hits import JudgedHits
    from revector.core.evaluation.judged_sets.query_sets import QuerySetSummary
    from revector.core.evaluation.measures.thresholds import Thresholds
    from revector.core.index import IndexState
    from revector.core.overlap import Move
    from revector.core.registry import VersionStatus
    from revector.core.retrieval import Comparison, Hit, SearchResult

Record = Mapping[str, Any]
_SNIPPET = 120
_STATES: Mapping[str, Kind] = {"done": "pass", "failed": "fail", "interrupted": "inconclusive"}


def versions_page(found: Sequence[VersionStatus]) -> tuple[ReportPage, list[Record]]:
    """All versions with their counts."""
    keys = ("version_key", "encoder", "dimensions", "state", "embedded", "missing", "failed", "created_at")
    parts: tuple[Part, ...] = (Note("Register one: revector versions add KEY --encoder SPEC", "soft"),)
    if found:
        titles = [version.COLUMNS[key].label for key in keys]
        figures = ("dimensions", "embedded", "missing", "failed")
        parts = (
            ReportTable(columns(*titles, figures=figures), tuple(_version_cells(one, keys) for one in found)),
        )
    active = next((s.version.version_key for s in found if s.version.active), None)
    page = ReportPage(f"Versions: {active} is active" if active else "Versions: none is active", parts)
    return page, [{key: column.value(one) for key, column in version.COLUMNS.items()} for one in found]


def _version_cells(status: VersionStatus, keys: Sequence[str]) -> tuple[ReportCell, ...]:
    active = status.version.active
    shown: dict[str, str | ReportCell] = dict(zip(keys, version.cells(status, *keys), strict=True))
    shown["version_key"] = ReportCell(
        status.version.version_key, "strong" if active else "", mark="●" if active else ""
    )
    shown["missing"] = ReportCell(f"{status.missing:,}", "worse" if status.missing and active else "")
    shown["failed"] = ReportCell(f"{status.failed:,}", "fail" if status.failed else "")
    return cells(*shown.values())


def backfill_page(found: JobStatus, index: IndexState | None = None, *notes: Note) -> ReportPage:
    """The status of a backfill, with its index if it has one."""
    share = found.done / found.total if found.total else 1.0
    said = [f"{found.done:,} of {found.total:,} chunks"]
    if found.state in ("running", "proving"):
        said += [f"{found.rate:,.0f} chunks/s", counted(found.workers, "worker"), eta(found)]
    elif found.took_s is not None:
        said.append(f"took {duration(found.took_s)}")
    if found.failed:
        said.append(f"{found.failed:,} failed")
    if found.spent_usd:
        said.append(f"${found.spent_usd:,.4f} spent")
    parts: list[Part] = [Bar(min(1.0, share)), Note(" · ".join(said))]
    if found.throttle:
        parts.append(Note(f"Held: {found.throttle}", "inconclusive"))
    if found.error:
        parts.append(Note(found.error, "fail"))
    if index is not None and index.exists:
        parts.append(Note(f"Index {index.name}, {index.bytes / 1e6:,.1f} MB.", "soft"))
    return ReportPage(
        f"Backfill of {found.version_key}: {found.state}", (*parts, *notes), _STATES.get(found.state, "")
    )


def search_page(found: SearchResult) -> tuple[ReportPage, list[Record]]:
    """The hits of one version."""
    rows = tuple(
        cells(hit.rank, ReportCell(hit.source_id, "strong", below=_snippet(hit)), f"{hit.distance:.4f}")
        for hit in found.hits
    )
    table = ReportTable(columns("", "hit", "distance", figures=("", "distance")), rows)
    took = f"encoded in {milliseconds(found.encode_s)}, searched in {milliseconds(found.search_s)}"
    page = ReportPage(
        f"“{found.query}” by {found.version_key}",
        (table if rows else Note("No results."), Note(took, "soft")),
    )
    return page, [{"version_key": found.version_key, **structs.asdict(hit)} for hit in found.hits]


def comparison_page(found: Comparison, judged: JudgedHits | None, chart: str) -> tuple[ReportPage, list[Record]]:
    """Two versions' hits side by side, with rank moves and, if judged, grades."""
    grades = judged.grades if judged else {}
    sides = [
        [_compared(hit, move, grades) for hit, move in zip(result.hits, moves, strict=True)]
        for result, moves in (
            (found.primary, found.primary_moves), (found.candidate, found.candidate_moves),
        )
    ]  # fmt: skip
    nothing = cells("", "", "")
    head = (
        ReportColumn("", figures=True), ReportColumn(""), ReportColumn(f"{found.primary.version_key} (primary)"),
        ReportColumn("", figures=True), ReportColumn(""),
        ReportColumn(f"{found.candidate.version_key} (candidate)"),
    )  # fmt: skip
    o = found.overlap
    tau = "—" if o.kendall_tau is None else f"{o.kendall_tau:.2f}".replace("-", "−")
    parts: list[Part] = [
        Note(f"overlap@{o.k} {o.overlap:.2f} · Jaccard {o.jaccard:.2f} · RBO {o.rbo:.2f} · Kendall's tau {tau}"),
        *_judged_note(judged),
        ReportTable(head, tuple(left + right for left, right in zip_longest(*sides, fillvalue=nothing))),
        Figures(((f"Overlap by depth, 1 to {o.k}", chart),)),
        Note("▲2: two ranks better with the candidate. Ranks are compared; distances of two encoders cannot be."
             + (" ★2: judged relevant, grade 2; ✗: judged not relevant." if grades else ""), "soft"),
    ]  # fmt: skip
    records: list[Record] = [
        {"side": side, "version_key": result.version_key, **structs.asdict(hit), "primary_rank": move.before,
         "candidate_rank": move.after, "grade": grades.get(hit.chunk_id)}
        for side, result, moves in (
            ("primary", found.primary, found.primary_moves),
            ("candidate", found.candidate, found.candidate_moves),
        )
        for hit, move in zip(result.hits, moves, strict=True)
    ]  # fmt: skip
    return ReportPage(f"“{found.query}”", tuple(parts)), records


def _compared(hit: Hit, move: Move, grades: Mapping[int, int]) -> tuple[ReportCell, ...]:
    label = move.label
    kind: Kind = "better" if label[0] in "▲n" else "worse" if label[0] in "▼g" else "soft"
    grade = grades.get(hit.chunk_id)
    star = "" if grade is None else f"★{grade}" if grade else "✗"
    return cells(
        hit.rank, ReportCell(label, kind), ReportCell(hit.source_id, "strong", mark=star, below=_snippet(hit))
    )


def _judged_note(judged: JudgedHits | None) -> list[Note]:
    if judged is None or not judged.judges:
        return []
    said = f"A judged query of {judged.query_set}, by {', '.join(judged.judges)}: {judged.relevant:,} relevant"
    if judged.primary_ndcg is not None and judged.candidate_ndcg is not None:
        said += f" · nDCG@{judged.k} {judged.primary_ndcg:.3f} → {judged.candidate_ndcg:.3f}"
    return [Note(said)]


def query_sets_page(found: Sequence[QuerySetSummary]) -> tuple[ReportPage, list[Record]]:
    """The query sets."""
    titles = ("query set", "queries", "segments", "judgements", "judges", "updated")
    rows = tuple(
        cells(
            ReportCell(one.name, "strong"), f"{one.queries:,}",
            ReportCell(f"{len(one.segments):,}", below=_some(one.segments)), f"{one.judgements:,}",
            ", ".join(one.judges) or "—", date_and_time(one.updated_at),
        )
        for one in found
    )  # fmt: skip
    table: Part = ReportTable(columns(*titles, figures=("queries", "judgements")), rows)
    if not found:
        table = Note("Import one: revector queries import NAME --queries FILE --qrels FILE", "soft")
    return ReportPage("Query sets" if found else "There is no query set yet", (table,)), [
        asdict(one) for one in found
    ]


def evaluations_page(found: Sequence[EvaluationSummary]) -> tuple[ReportPage, list[Record]]:
    """The evaluations, newest first."""
    rows = tuple(
        cells(
            one.id, one.query_set, one.primary, one.candidate,
            verdict_cell(one.verdict) if one.verdict else ReportCell("no gates", "soft"),
            date_and_time(one.created_at), one.created_by,
        )
        for one in found
    )  # fmt: skip
    titles = ("id", "query set", "primary", "candidate", "verdict", "at", "by")
    table = ReportTable(columns(*titles, figures=("id",)), rows)
    return ReportPage("Evaluations" if found else "No evaluations yet", (table,) if found else ()), [
        asdict(one) for one in found
    ]


def check_page(found: Check) -> tuple[ReportPage, list[Record]]:
    """The guards before a cutover."""
    rows = tuple(
        cells(verdict_cell(guard.verdict), guard.name, ReportCell(guard.detail, below=guard.remedy))
        for guard in found.guards
    )
    kind: Kind = "pass" if found.ready else "fail"
    title = f"{MARKS[kind]} {found.version_key} is {'ready' if found.ready else 'not ready'} for a cutover"
    page = ReportPage(title, (ReportTable(columns("", "guard", "because"), rows),), kind)
    return page, [asdict(guard) for guard in found.guards]


def flip_page(found: Flip) -> tuple[ReportPage, list[Record]]:
    """A completed cutover or rollback."""
    parts = [Note(f"In {milliseconds(found.seconds)}, in one transaction.", "soft")]
    if found.missing:
        text = f"{found.version_key} lacks {counted(found.missing, 'chunk')}: backfill it."
        parts.append(Note(text, "inconclusive"))
    done = "Cut over" if found.action == "cutover" else "Rolled back"
    if not found.changed:
        parts = [Note(f"By {found.made_by}, {date_and_time(found.at)}. Nothing was changed.", "soft"), *parts[1:]]
        done = "Already rolled back"
    title = f"✓ {done}: {found.previous or 'none'} → {found.version_key}"
    return ReportPage(title, tuple(parts), "pass"), [asdict(found)]


def thresholds_page(found: Thresholds, primary: str, candidate: str) -> tuple[ReportPage, list[Record]]:
    """Thresholds of the primary, and the candidate's equivalents."""
    titles = ("kept", f"cut of {primary}", f"same for {candidate}", "kept if copied")
    rows = tuple(
        cells(f"{row.kept:.1%}", f"{row.primary:.4f}", f"{row.candidate:.4f}", f"{row.if_copied:.1%}")
        for row in found.rows
    )
    parts: list[Part] = [
        Note(found.says),
        ReportTable(columns(*titles, figures=titles), rows),
    ]
    if words := found.answer(primary, candidate):
        parts.append(Note(words, "strong"))
    asked = (found.asked,) if found.asked else ()
    return ReportPage(f"Score thresholds: {primary} → {candidate}", tuple(parts)), [
        asdict(row) | {"asked": row is found.asked} for row in (*found.rows, *asked)
    ]


def log_page(found: Sequence[AuditEntry]) -> tuple[ReportPage, list[Record]]:
    """Who did what, newest first."""
    kinds: Mapping[str, Kind] = {"refused": "inconclusive", "failed": "fail"}
    rows = tuple(
        cells(
            date_and_time(one.at), one.client or one.actor, one.action, one.version_key or "",
            ReportCell(one.outcome, kinds.get(one.outcome, "")), one.reason,
        )
        for one in found
    )  # fmt: skip
    return ReportPage("Log", (ReportTable(columns("at", "who", "what", "version", "outcome", "reason"), rows),)), [
        asdict(one) for one in found
    ]


def _snippet(hit: Hit) -> str:
    """The beginning of a hit, without the source id, which is the title of many documents."""
    return shorten(" ".join(hit.content[:1_000].split()).removeprefix(hit.source_id).strip(), _SNIPPET)


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + ("…" if len(names) > most else "")
