"""What a cell shows, said once and drawn twice: as HTML for the notebook, as text for `print` and a terminal.

The HTML stands on its own: one style of its own, charts as SVG, no script, nothing loaded from elsewhere. Text has the
colour of the notebook around it and the few hues that mean something are readable on white and on black, since
JupyterLab's theme is not the one that the browser prefers and no media query would know it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal

from revector.screens.wording.text import printable

if TYPE_CHECKING:
    import jinja2

Kind = Literal["", "pass", "fail", "inconclusive", "better", "worse", "soft", "strong"]
"""What a text means, for its look: a verdict, a rank's way up or down, something of less or more weight."""

_UNWRAPPED = 10_000
_BAR = 30


@dataclass(frozen=True)
class Cell:
    """A text in a table; `mark` goes before it, `below` stands under it in small type."""

    text: str
    kind: Kind = ""
    mark: str = ""
    below: str = ""


@dataclass(frozen=True)
class Column:
    """The head of a column, and whether its cells are figures."""

    title: str
    figures: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under a head. `caption` is a heading; `folded` shows only that, until it is opened."""

    part: ClassVar[str] = "table"
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Note:
    """A sentence. Kind `inconclusive` is a warning."""

    part: ClassVar[str] = "note"
    text: str
    kind: Kind = ""


@dataclass(frozen=True)
class Bar:
    """How far something has come, 0 to 1."""

    part: ClassVar[str] = "bar"
    share: float


@dataclass(frozen=True)
class Figures:
    """Charts, each an SVG element made by revector itself, under their captions."""

    part: ClassVar[str] = "figures"
    charts: tuple[tuple[str, str], ...]


Part = Table | Note | Bar | Figures


@dataclass(frozen=True)
class Page:
    """What a cell shows: a headline and its parts."""

    title: str
    parts: tuple[Part, ...] = ()
    kind: Kind = ""

    def html(self) -> str:
        """As one HTML element. Everything in it is escaped; control characters are shown, not obeyed."""
        return _template().render(page=self).strip()

    def text(self) -> str:
        """In lines for a terminal; charts are left out."""
        return "\n".join([printable(self.title), *(line for part in self.parts for line in _lines(part))])


@cache
def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("revector.console.notebook", "."),
        autoescape=True,
        finalize=_finalized,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def _finalized(value: object) -> object:
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _lines(part: Part) -> list[str]:
    if isinstance(part, Note):
        return [printable(f"! {part.text}" if part.kind == "inconclusive" else part.text)]
    if isinstance(part, Bar):
        full = round(_BAR * part.share)
        return [f"{'█' * full}{'░' * (_BAR - full)} {part.share:.0%}"]
    if isinstance(part, Figures):
        return []
    return ["", *([printable(part.caption)] if part.caption else []), *_table_lines(part)]


def _table_lines(table: Table) -> list[str]:
    import rich.console
    import rich.table

    drawn = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    for column in table.columns:
        drawn.add_column(printable(column.title), justify="right" if column.figures else "left", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*(_cell_text(cell) for cell in row))
    page = rich.console.Console(
        width=_UNWRAPPED, markup=False, emoji=False, highlight=False, color_system=None,
        force_jupyter=False,  # else Rich shows it in the cell by itself
    )  # fmt: skip
    with page.capture() as captured:
        page.print(drawn)
    return [line.rstrip() for line in captured.get().splitlines()]


def _cell_text(cell: Cell) -> str:
    return " ".join(printable(text) for text in (cell.mark, cell.text, cell.below) if text)
