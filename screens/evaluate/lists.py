"""The lists of the Evaluate screen: evaluations, stored runs and query sets; and reports written to files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.text import Text

from revector.core.database import Connection
from revector.core.evaluation.document import Evaluation, EvaluationSummary, Run, evaluations
from revector.core.evaluation.judged_sets.query_sets import QuerySetSummary, query_sets
from revector.core.evaluation.runs.store import runs
from revector.screens.compare.export import write_file
from revector.screens.widgets.table import Column, Row
from revector.screens.wording.text import date_and_time, printable
from revector.screens.wording.theme import SIGNS

MOST = 200
"""How many evaluations and runs are listed, newest first."""

EVALUATIONS = (
    Column("verdict", 14),
    Column("id", 5, right=True),
    Column("query set"),
    Column("primary"),
    Column("candidate"),
    Column("time", 16),
    Column("by", 10, from_width=100),
)
RUNS = (
    Column("", 1),
    Column("run", 5, right=True),
    Column("version"),
    Column("query set"),
    Column("top", 4, right=True),
    Column("search", 9),
    Column("chunks", 11, right=True, from_width=90),
    Column("seconds", 7, right=True, from_width=100),
    Column("time", 16),
)

ReportKind = Literal["markdown", "html", "junit", "json"]
REPORTS: dict[ReportKind, tuple[str, str]] = {
    "markdown": ("md", "Markdown, for a pull request"),
    "html": ("html", "HTML with charts, one file on its own"),
    "junit": ("xml", "JUnit XML: the gates as tests"),
    "json": ("json", "JSON: every figure, every query"),
}
"""The file's extension, and its purpose."""


@dataclass(frozen=True)
class Lists:
    """The lists, newest first."""

    evaluations: tuple[EvaluationSummary, ...] = ()
    runs: tuple[Run, ...] = ()
    sets: tuple[QuerySetSummary, ...] = ()


def read_lists(connection: Connection, candidate: str | None, sets: tuple[QuerySetSummary, ...] | None) -> Lists:
    """Read the lists; evaluations of one candidate only when its key is given.

    `sets` are those already known: counting all judgements takes longer than the rest.
    """
    return Lists(
        tuple(evaluations(connection, candidate=candidate, limit=MOST)),
        tuple(runs(connection, limit=MOST)),
        tuple(query_sets(connection)) if sets is None else sets,
    )


def evaluation_row(one: EvaluationSummary, shown: int | None) -> Row:
    """The row of an evaluation, bold for the shown one."""
    sign, colour = SIGNS[one.verdict]
    style = "bold" if one.id == shown else ""
    cells = (str(one.id), one.query_set, one.primary, one.candidate, date_and_time(one.created_at), one.created_by)
    return Row(
        str(one.id),
        (Text(f"{sign} {one.verdict or 'no gates'}", colour), *(Text(printable(cell), style) for cell in cells)),
    )


def run_row(run: Run, marked: int | None) -> Row:
    """The row of a run, with a mark for the marked one."""
    search = "exact" if run.exact else f"ef {run.ef_search}" if run.ef_search else "index"
    search += " hybrid" if run.hybrid else ""
    return Row(
        str(run.id),
        (
            "●" if run.id == marked else "",
            str(run.id),
            run.version_key,
            run.query_set,
            str(run.k),
            "pilot" if run.sample else search,
            f"{run.chunks:,}",
            f"{run.seconds:,.1f}",
            date_and_time(run.finished_at),
        ),
    )


def write_report(found: Evaluation, kind: ReportKind, folder: Path) -> Path:
    """Write a new file, `evaluation-<id>-<query set>-<time>`; returns its path. Raises RefusedError when it cannot."""
    if kind == "json":
        import msgspec

        text = msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"
    else:
        from revector.core.evaluation.reports import report

        text = report(found, kind)
    return write_file(f"{found.id} {found.query_set}", folder, REPORTS[kind][0], text, prefix="evaluation")
