"""Our one chart: plotext in a widget that draws when its data or its size change, and at no other time.

plotext has one figure for the whole process, so that only the screen's own thread draws. Its import takes longer
than a frame may, and happens in a thread when a chart first has something to draw.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from rich.text import Text
from textual.content import Content
from textual.widget import Widget

from screens.background import in_background
from screens.text import printable
from screens.theme import BAD, FAINT

_SMALLEST = (12, 4)
_TALL = 12
_TICK_WIDTH = 6
MARKERS = ("dot", "x", "+", "o")
"""What a series is drawn with: series differ by that and by their label, not only by colour."""


@dataclass(frozen=True)
class Series:
    """Values at x = `first`, `first` + 1 …"""

    values: tuple[float, ...]
    label: str = ""
    first: int = 1


class Chart(Widget):
    """One chart with its title in the border, and a sentence where there is nothing to draw yet."""

    DEFAULT_CSS = """
    Chart { border: round $border-blurred; border-title-color: $secondary; color: $foreground; min-height: 5; }
    """

    def __init__(
        self,
        title: str,
        *,
        nothing: str,
        limits: tuple[float, float] | None = None,
        id: str | None = None,  # noqa: A002
    ) -> None:
        super().__init__(id=id)
        self.border_title = Content(title)
        self._nothing = nothing
        self._limits = limits
        self._series: tuple[Series, ...] = ()
        self._drawn: tuple[object, ...] = ()
        self._picture = Text(nothing, FAINT)
        self.builds = 0
        """How often plotext has drawn."""

    def plot(self, series: Sequence[Series]) -> None:
        """Make these the series."""
        self._series = tuple(series)
        self._draw()

    def on_resize(self) -> None:
        """Draw for the new size."""
        self._draw()

    def render(self) -> Text:
        """The last drawing."""
        return self._picture

    def _draw(self) -> None:
        wanted = (self._series, self.content_size)
        if wanted == self._drawn or not self.is_attached or not self.content_size.width:
            return
        width, height = self.content_size
        if not any(series.values for series in self._series):
            self._picture = Text(self._nothing, FAINT)
        elif width < _SMALLEST[0] or height < _SMALLEST[1]:
            self._picture = Text("(no room)", FAINT)
        elif "plotext" not in sys.modules:
            in_background(
                self, "plotext", lambda _tell: import_module("plotext"), lambda _module: self._draw(), self._fail
            )
            return
        else:
            self._picture = Text(build(self._series, width, height, self._limits), no_wrap=True)
            self.builds += 1
        self._drawn = wanted
        self.refresh()

    def _fail(self, error: Exception) -> None:
        self._picture = Text(f"No chart: {printable(str(error))}", BAD)
        self.refresh()


def build(series: Sequence[Series], width: int, height: int, limits: tuple[float, float] | None = None) -> str:
    """The series drawn by plotext, without colours: lines of exactly that width and height."""
    import plotext  # type: ignore[import-untyped]

    plotext.terminal.limit(False, False)  # or it would cut the chart to the terminal it believes to be in
    figure = plotext.figure
    figure.clear()
    figure.plot_size(width, height)
    figure.axes(False, side=1)  # the upper and the right one
    if height < _TALL:
        figure.axes(False, axis="x")
    for one, marker in zip(series, MARKERS, strict=False):
        signal = figure.signal(range(one.first, one.first + len(one.values)), one.values, marker=marker)
        signal.lines(True)
        if one.label:
            signal.label(printable(one.label))
        figure.draw(signal)
    lower, upper = limits or (0.0, 4.0 * max(1, -(-max(max(one.values, default=0) for one in series) // 4)))
    figure.ruler("y").lim(lower, upper)
    values = [lower + (upper - lower) * part / 4 for part in range(0, 5, 1 if height >= _TALL else 2)]
    figure.ruler("y").ticks(values, [f"{value:.2f}" if upper <= 1 else f"{value:,.0f}" for value in values])
    first = min(one.first for one in series)
    last = max(one.first + len(one.values) - 1 for one in series)
    step = max(1, -(-(last - first) * _TICK_WIDTH // width))
    figure.ruler("x").ticks(list(range(first, last + 1, step)))
    return str(figure.build().string(True)).rstrip("\n")
