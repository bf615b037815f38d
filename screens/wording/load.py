"""What a load of vectors came to, in words, for the command line and for tab 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from revector.screens.wording.text import chunks

if TYPE_CHECKING:
    from revector.core.vectors.load import LoadReport


def report_lines(report: LoadReport) -> tuple[str, str]:
    """What became of the rows of the file, and what the version lacks now."""
    rows = f"{report.rows:,} row" if report.rows == 1 else f"{report.rows:,} rows"
    return (
        f"{report.version_key}: {rows} of {report.source}: {report.stored:,} stored, {report.present:,} had a vector "
        f"already, {report.unknown:,} for unknown chunks, {report.duplicates:,} duplicate, {report.bad:,} bad.",
        f"{report.version_key} is {report.state}, {chunks(report.missing)} missing.",
    )


def next_words(report: LoadReport) -> str:
    """What is left to a backfill."""
    what = f"embeds the {chunks(report.missing)} missing, proves" if report.missing else "proves"
    return f"Next: {what} that none is missing, and build the index:"
