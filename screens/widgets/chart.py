"""The chart widget: plotext, drawn only when data or size change.

plotext has one figure for the whole process, so only the screen's own thread draws. Its import takes longer than a
frame, so it happens in a thread when a chart first has something to draw.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rich.text import Text
from textual.content import Content
from textual.widget import Widget

from revector.screens.widgets.background import in_background
from revector.screens.wording.text import printable, shorten
from revector.screens.wording.theme import BAD, FAINT

_SMALLEST = (12, 4)
_TALL = 12
_TICK_WIDTH = 6
_FINE = 0.1
"""Axes with a smaller maximum are labelled with three decimals."""
MARKERS = ("dot", "x", "+", "o")
"""The markers of series: series differ by marker and label, not only by colour."""


@dataclass(frozen=True)
class Series:
    """Values at x = `first`, `first` + 1 …"""

    values: tuple[float, ...]
    label: str = ""
    first: int = 1


@dataclass(frozen=True)
class Range:
    """The spread of one row's values: from `low` to `high`, with their `mean` drawn as `marker`."""

    label: str
    low: float
    mean: float
    high: float
    marker: str = "o"


class Chart(Widget):
    """One chart with its title in the border, and a sentence when there is nothing to draw yet."""

    DEFAULT_CSS = """
    Chart { border: round $border-blurred; border-title-color: $secondary; color: $foreground; min-height: 5;
            border-subtitle-color: $secondary; }
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
        self._series: tuple[Series, ...] | tuple[Range, ...] = ()
        self._drawn: tuple[object, ...] = ()
        self._picture = Text(nothing, FAINT)
        self.builds = 0
        """How often plotext has drawn."""

    def plot(self, series: Sequence[Series]) -> None:
        self._series = tuple(series)
        self._draw()

    def plot_ranges(
        self, ranges: Sequence[Range], nothing: str, limits: tuple[float, float] | None = None
    ) -> None:
        """Set the rows, each a line from low to high with its mean; `nothing` says why there are none.

        `limits` of the axis replace the chart's own.
        """
        if (nothing, limits or self._limits) != (self._nothing, self._limits):
            self._nothing, self._limits, self._drawn = nothing, limits or self._limits, ()
        self._series = tuple(ranges)
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def render(self) -> Text:
        return self._picture

    def _draw(self) -> None:
        wanted = (self._series, self.content_size)
        if wanted == self._drawn or not self.is_attached or not self.content_size.width:
            return
        width, height = self.content_size
        if not any(isinstance(one, Range) or one.values for one in self._series):
            self._picture = Text(self._nothing, FAINT)
        elif width < _SMALLEST[0] or height < _SMALLEST[1]:
            self._picture = Text("(no room)", FAINT)
        elif "plotext" not in sys.modules:
            in_background(
                self, "plotext", lambda _tell: import_module("plotext"), lambda _module: self._draw(), self._fail
            )
            return
        else:
            ranges = [one for one in self._series if isinstance(one, Range)]
            series = [one for one in self._series if isinstance(one, Series)]
            limits = self._limits
            drawn = build_ranges(ranges, width, height, limits) if ranges else build(series, width, height, limits)
            self._picture = Text(drawn, no_wrap=True)
            self.builds += 1
        self._drawn = wanted
        self.refresh()

    def _fail(self, error: Exception) -> None:
        self._picture = Text(f"No chart: {printable(str(error))}", BAD)
        self.refresh()


def _figure(width: int, height: int) -> Any:
    import plotext

    plotext.terminal.limit(False, False)  # otherwise it would cut the chart to the size of the terminal it detects
    figure = plotext.figure
    figure.clear()
    figure.plot_size(width, height)
    figure.axes(False, side=1)  # the upper and the right one
    if height < _TALL:
        figure.axes(False, axis="x")
    return figure


def build(series: Sequence[Series], width: int, height: int, limits: tuple[float, float] | None = None) -> str:
    """The series drawn by plotext without colours, with exactly that width and height."""
    figure = _figure(width, height)
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


def build_ranges(ranges: Sequence[Range], width: int, height: int, limits: tuple[float, float] | None) -> str:
    """One line for each row by plotext, `----o----`, without colours; rows that do not fit are left out.

    The last line then says how many are missing.
    """
    figure = _figure(width, height)
    room = height - (2 if height >= _TALL else 1)
    shown = list(ranges[:room])
    lower, upper = limits or (0.0, 1.0)
    labels = [shorten(printable(one.label), max(6, width // 3)) for one in shown]
    if len(shown) < len(ranges):
        del shown[-1]
        labels[-1] = f"+{len(ranges) - len(shown)} more"
    if lower < 0 < upper:
        zero = figure.signal([0, 0], [0.5, len(labels) + 0.5], marker="│")
        zero.lines(True)
        figure.draw(zero)
    for place, one in enumerate(shown):
        line = len(labels) - place
        spread = figure.signal([one.low, one.high], [line, line], marker="-")
        spread.lines(True)
        figure.draw(spread)
        figure.draw(figure.signal([one.mean], [line], marker=one.marker))
    figure.ruler("y").lim(0.5, len(labels) + 0.5)
    figure.ruler("y").ticks(list(range(len(labels), 0, -1)), labels)
    figure.ruler("x").lim(lower, upper)
    values = [lower + (upper - lower) * part / 4 for part in range(5)]
    form = f"{'+' if lower < 0 else ''}.{2 if upper >= _FINE else 3}f"
    figure.ruler("x").ticks(values, [format(value, form) if value else "0" for value in values])
    return str(figure.build().string(True)).rstrip("\n")
