"""The dialog for the format of a report."""

from __future__ import annotations

from typing import get_args

from revector.screens.evaluate.lists import REPORTS, ReportKind
from revector.screens.widgets.list_dialog import ListDialog
from revector.screens.widgets.table import Column, Row


class ExportDialog(ListDialog[ReportKind]):
    """Returns the format."""

    DEFAULT_CSS = "ExportDialog #box { max-width: 66; margin: 0 2; }"

    def __init__(self) -> None:
        rows = [Row(kind, (f".{end}", words)) for kind, (end, words) in REPORTS.items()]
        title = "write the evaluation to a new file in the working directory"
        super().__init__(title, "write", (Column("", 6), Column("what")), rows, header=False)

    def taken(self, key: str | None) -> ReportKind | None:
        return next((kind for kind in get_args(ReportKind) if kind == key), None)
