"""The result of a load of vectors, in words, for the command line and tab 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from revector.core.text import counted
from revector.screens.wording.text import chunks

if TYPE_CHECKING:
    from revector.core.vectors.report import LoadReport

_LISTED = 20


def report_lines(report: LoadReport) -> tuple[str, ...]:
    """What happened to the rows of the files, what the version lacks now, and which texts had errors."""
    rows = counted(report.rows, "row")
    said = []
    if report.compared:
        said.append(f"{counted(report.compared, 'row')} compared with the encoder: the same vectors.")
    if report.not_compared:
        said.append(f"Not {'all ' if report.compared else ''}compared with the encoder: {report.not_compared}.")
    errors = [f"{one.id} has no vector: {one.error}" for one in report.without[:_LISTED]]
    if len(report.without) > _LISTED:
        errors.append(f"and {len(report.without) - _LISTED:,} more; --json lists them all")
    return (
        f"{report.version_key}: {rows} of {report.source}: {report.stored:,} stored, {report.present:,} had a vector "
        f"already, {report.unknown:,} for unknown chunks, {report.duplicates:,} duplicate, {report.bad:,} bad.",
        *said,
        *errors,
        f"{report.version_key} is {report.state}, {chunks(report.missing)} missing.",
    )


def next_words(report: LoadReport) -> str:
    """What is left to a backfill."""
    what = f"embed the {chunks(report.missing)} missing, prove" if report.missing else "prove"
    return f"Next: {what} that the version is complete, and build the index:"
