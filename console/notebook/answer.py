"""The return value of the notebook's Console methods: core's object, and how a notebook shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from revector.console.notebook.kernel import current_cell
from revector.console.notebook.plain import plain_text
from revector.core.evaluation.reports.page import ReportPage

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Answer(Generic[T]):
    """`data` is core's object, `page` how it is shown, `table` its rows; `shown_in` is the cell that already shows
    it."""

    data: T
    page: ReportPage
    table: tuple[Mapping[str, Any], ...]
    shown_in: int | None = None

    def rows(self) -> list[dict[str, Any]]:
        """The rows as plain dictionaries: `pandas.DataFrame(answer.rows())`."""
        return [dict(row) for row in self.table]

    def __repr__(self) -> str:
        return plain_text(self.page)

    def _repr_html_(self) -> str:
        return self.page.html()

    def _ipython_display_(self) -> None:
        """Show nothing in the cell that already showed it live: it would appear twice."""
        if self.shown_in is None or self.shown_in != current_cell():
            raise NotImplementedError  # IPython uses the next best representation


@dataclass(frozen=True, repr=False)
class Picture:
    """A screen of the console as SVG. `tab` is its name, `size` columns and lines."""

    tab: str
    size: tuple[int, int]
    svg: str

    def __repr__(self) -> str:
        return f"revector: {self.tab}, {self.size[0]}×{self.size[1]}"

    def _repr_html_(self) -> str:
        """As an image: its style cannot affect the page, and untrusted notebooks show it too."""
        import base64

        data = base64.b64encode(self.svg.encode()).decode()
        return f'<img alt="{self!r}" style="max-width: 100%" src="data:image/svg+xml;base64,{data}">'
