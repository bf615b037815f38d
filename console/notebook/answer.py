"""What every method of the notebook's Console returns: core's own object, with a face for the notebook."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from revector.console.notebook.kernel import current_cell
from revector.console.notebook.plain import plain_text
from revector.core.evaluation.reports.page import ReportPage

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Answer(Generic[T]):
    """`data` is core's object, `page` how it is shown, `table` its rows; `shown_in` the cell that shows it already."""

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

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        return _bundle({"text/html": self.page.html, "text/plain": self.__repr__}, include, exclude)

    def _ipython_display_(self) -> None:
        """Nothing in the cell that drew it while it came about: it would stand there twice."""
        if self.shown_in is None or self.shown_in != current_cell():
            raise NotImplementedError  # IPython takes the next best way to show it


@dataclass(frozen=True, repr=False)
class Picture:
    """A screen of the console as SVG. `tab` is its name, `size` columns and lines."""

    tab: str
    size: tuple[int, int]
    svg: str

    def __repr__(self) -> str:
        return f"revector: {self.tab}, {self.size[0]}×{self.size[1]}"

    def _repr_html_(self) -> str:
        """As an image: its style cannot reach what is around it, and a notebook that is not trusted shows it too."""
        import base64

        data = base64.b64encode(self.svg.encode()).decode()
        return f'<img alt="{self!r}" style="max-width: 100%" src="data:image/svg+xml;base64,{data}">'

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        return _bundle({"text/html": self._repr_html_, "text/plain": self.__repr__}, include, exclude)


def _bundle(
    drawn: Mapping[str, Callable[[], str]], include: Collection[str] | None, exclude: Collection[str] | None
) -> dict[str, str]:
    return {
        kind: draw()
        for kind, draw in drawn.items()
        if (not include or kind in include) and kind not in (exclude or ())
    }
