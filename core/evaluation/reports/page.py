"""The content of a report or notebook cell, rendered as HTML, Markdown or text.

The HTML is self-contained: its own style, charts as SVG, no script, nothing loaded from elsewhere. Text takes the
surrounding colour, and the few meaningful hues are readable on white and on black, since a media query does not
know JupyterLab's theme.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar, Literal

from revector.core.text import MARKS, printable

if TYPE_CHECKING:
    import jinja2

Kind = Literal["", "pass", "fail", "inconclusive", "better", "worse", "soft", "strong"]
"""What a text means, which decides its style: a verdict, a rank moved up or down, less or more emphasis."""


@dataclass(frozen=True)
class ReportCell:
    """A text in a table, with `mark` before it and `below` under it in small type."""

    text: str
    kind: Kind = ""
    mark: str = ""
    below: str = ""


@dataclass(frozen=True)
class ReportColumn:
    """The head of a column, and whether its cells are figures."""

    title: str
    figures: bool = False


@dataclass(frozen=True)
class ReportTable:
    """Rows under a head. `caption` is a heading; a `folded` table shows only its caption until opened."""

    part: ClassVar[str] = "table"
    columns: tuple[ReportColumn, ...]
    rows: tuple[tuple[ReportCell, ...], ...]
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
    """Progress, 0 to 1."""

    part: ClassVar[str] = "bar"
    share: float


@dataclass(frozen=True)
class Figures:
    """Charts, each an SVG element made by revector, with captions."""

    part: ClassVar[str] = "figures"
    charts: tuple[tuple[str, str], ...]


Part = ReportTable | Note | Bar | Figures


@dataclass(frozen=True)
class ReportPage:
    """A page: a headline and its parts."""

    title: str
    parts: tuple[Part, ...] = ()
    kind: Kind = ""

    def html(self) -> str:
        """The page as one HTML element. Everything in it is escaped; control characters are made visible."""
        return _template("page.html.j2").render(page=self, opened=False).strip()

    def document(self) -> str:
        """The page as a whole HTML document, with all tables open."""
        return _template("document.html.j2").render(page=self, opened=True).strip() + "\n"


@cache
def _template(name: str) -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("revector.core.evaluation.reports", "."),
        autoescape=True,
        finalize=_finalized,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _finalized(value: object) -> object:
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def cells(*texts: object) -> tuple[ReportCell, ...]:
    """Plain cells."""
    return tuple(text if isinstance(text, ReportCell) else ReportCell(str(text)) for text in texts)


def columns(*titles: str, figures: Iterable[str] = ()) -> tuple[ReportColumn, ...]:
    """Columns by title; those in `figures` are aligned to the right."""
    wanted = set(figures)
    return tuple(ReportColumn(title, title in wanted) for title in titles)


def verdict_cell(verdict: Literal["pass", "fail", "inconclusive"]) -> ReportCell:
    """A verdict with its mark."""
    return ReportCell(verdict, verdict, mark=MARKS[verdict])
