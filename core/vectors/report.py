"""What happened to the rows of a load's files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from revector.core.registry import Version
from revector.core.vectors.sample import Compared
from revector.core.vectors.slices import NoVector, VectorFile


@dataclass(frozen=True)
class FileReport:
    """What happened to the rows of a file: rows = stored + present + unknown + duplicates + bad.

    `resumed_at` is the row at which this run continued.
    """

    version_key: Annotated[str, "the version that has them now"]
    source: Annotated[str, "the file, or how many"]
    rows: Annotated[int, "in the file, or in all"]
    stored: Annotated[int, "rows that are vectors of the version now"] = 0
    present: Annotated[int, "rows of chunks that had a vector"] = 0
    unknown: Annotated[int, "rows of no chunk"] = 0
    duplicates: Annotated[int, "rows of a chunk that an earlier row named"] = 0
    bad: Annotated[int, "rows that --skip-bad left out"] = 0
    missing: Annotated[int, "chunks that the version lacks now"] = 0
    state: Annotated[str, "of the version"] = ""
    resumed_at: int = 0
    compared: Annotated[int, "rows whose text was encoded again: the vectors were the same"] = 0

    @property
    def cursor(self) -> int:
        """The first row that is not finished."""
        return self.stored + self.present + self.unknown + self.duplicates + self.bad


@dataclass(frozen=True)
class LoadReport(FileReport):
    """What happened to the rows of all files."""

    not_compared: Annotated[str, "why rows were not compared with the encoder; empty when they were"] = ""
    without: Annotated[tuple[NoVector, ...], "texts for which a batch answered an error"] = ()
    files: Annotated[tuple[FileReport, ...], "each file"] = ()


def add_up(
    version: Version,
    files: Sequence[VectorFile],
    reports: Sequence[FileReport],
    compared: Sequence[Compared],
) -> LoadReport:
    """The report of a load of several files."""
    counts = ("rows", "stored", "present", "unknown", "duplicates", "bad", "compared")
    return LoadReport(
        version.version_key,
        reports[0].source if len(reports) == 1 else f"{len(reports):,} files",
        **{name: sum(getattr(report, name) for report in reports) for name in counts},
        resumed_at=reports[0].resumed_at if len(reports) == 1 else 0,
        missing=reports[-1].missing,
        state=reports[-1].state,
        not_compared=next((one.reason for one in compared if one.reason), ""),
        without=tuple(one for file in files for one in file.without),
        files=tuple(reports),
    )
