"""A page as lines of text, for `print` and for a terminal."""

from __future__ import annotations

from revector.core.evaluation.reports.page import Bar, Figures, Note, Part, ReportCell, ReportPage, ReportTable
from revector.core.text import printable

_UNWRAPPED = 10_000
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


def _table_lines(table: ReportTable) -> list[str]:
    import rich.console
    import rich.table

    drawn = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for column in table.columns:
        drawn.add_column(printable(column.title), justify="right" if column.figures else "left", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*(_cell_text(cell) for cell in row))
    page = rich.console.Console(
        width=_UNWRAPPED, markup=False, emoji=False, highlight=False, color_system=None,
        force_jupyter=False,  # otherwise Rich shows it in the cell
    )  # fmt: skip
    with page.capture() as captured:
        page.print(drawn)
    return [line.rstrip() for line in captured.get().splitlines()]


def _cell_text(cell: ReportCell) -> str:
    return " ".join(printable(text) for text in (cell.mark, cell.text, cell.below) if text)
