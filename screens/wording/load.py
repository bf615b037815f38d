"""The result of a load of vectors, in words, for the command line and tab 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from revector.core.text import counted
from revector.screens.wording.text import chunks

if TYPE_CHECKING:
    from revector.core.vectors.load import LoadReport


def report_lines(report: LoadReport) -> tuple[str, str]:
    """What happened to the rows of the file, and what the version lacks now."""
    rows = counted(report.rows, "row")
    return (
        f"{report.version_key}: {rows} of {report.source}: {report.stored:,} stored, {report.present:,} had a vector "
        f"already, {report.unknown:,} for unknown chunks, {report.duplicates:,} duplicate, {report.bad:,} bad.",
        f"{report.version_key} is {report.state}, {chunks(report.missing)} missing.",
    )


def next_words(report: LoadReport) -> str:
    """What is left to a backfill."""
    what = f"embed the {chunks(report.missing)} missing, prove" if report.missing else "prove"
    return f"Next: {what} that the version is complete, and build the index:"
