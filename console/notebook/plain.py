"""A page as lines of text, for `print` and for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from revector.console.context import aligned
from revector.core.evaluation.reports.page import Bar, Figures, Note, Part, ReportPage, ReportTable
from revector.core.text import printable

_BAR = 30


def plain_text(page: ReportPage) -> str:
    """The page as lines for a terminal, without charts."""
    return "\n".join([printable(page.title), *(line for part in page.parts for line in _lines(part))])


def _lines(part: Part) -> list[str]:
    if isinstance(part, Note):
        return [printable(f"! {part.text}" if part.kind == "inconclusive" else part.text)]
    if isinstance(part, Bar):
        full = round(_BAR * part.share)
        return [f"{'█' * full}{'░' * (_BAR - full)} {part.share:.0%}"]
    if isinstance(part, Figures):
        return []
    return ["", *([printable(part.caption)] if part.caption else []), *_table_lines(part)]


def _table_lines(table: ReportTable) -> Iterator[str]:
    from rich.table import Column

    columns = [
        Column(printable(column.title), justify="right" if column.figures else "left", no_wrap=True)
        for column in table.columns
    ]
    texts = [[filter(None, (cell.mark, cell.text, cell.below)) for cell in row] for row in table.rows]
    return aligned(([" ".join(map(printable, cell)) for cell in row] for row in texts), *columns, wrap=False)
