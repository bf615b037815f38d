"""Charts as SVG: of an evaluation, differences with intervals, overlap distributions and changes by query; of a
comparison, overlap by depth.

Not made by matplotlib: its SVG has one fixed colour for text and axes, so a page cannot be both light and dark; it
has no titles for screen readers and tooltips; and it takes 60 MB. These charts use the colour of the surrounding
text (`currentColor`), have a title on every mark, and need no script and no font. Better and worse differ by side
and hue, significant and not by filled and hollow: never by colour alone.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from math import ceil, floor, log10
from statistics import fmean

from revector.core.evaluation.document import MeasureResult, OverlapResult, QueryResult
from revector.core.evaluation.reports.wording import interval, number, percent, signed
from revector.core.text import counted, printable, shorten

_BETTER = "#2f81d8"
_WORSE = "#d4691e"
_WIDTH = 560
"""Two fit side by side on a page of 1,200."""
_LABELS = 125
"""The space for segment names on the left, and for figures on the right."""
_ROW = 26
_MOST_ROWS = 40
_MOST_BARS = 360


def difference_chart(results: Sequence[MeasureResult], confidence: float) -> str:
    """One measure's differences with confidence intervals, one row for each segment, as an SVG element.

    A mark is filled when its interval excludes zero, else hollow.
    """
    shown = results[:_MOST_ROWS]
    ends = [0.0, *(value for row in shown for value in (row.low, row.high, row.difference) if value is not None)]
    ticks = _ticks(min(ends), max(ends))
    measure = results[0].measure if results else "Measure"
    svg = _svg(
        _ROW * (len(shown) + 1) + 10 + _ROW * (len(results) > len(shown)),
        f"{measure}: candidate − primary by segment",
        f"Means with {percent(confidence)} confidence intervals. "
        + " ".join(f"{row.segment}: {signed(row.difference)} ({interval(row.low, row.high)})." for row in shown),
    )
    x = _scale(ticks[0], ticks[-1], _LABELS, _WIDTH - _LABELS)
    bottom = _ROW * len(shown) + 6
    for tick in ticks:
        _line(svg, x(tick), 4, x(tick), bottom, 0.6 if tick == 0 else 0.15)
        _text(svg, x(tick), bottom + 16, f"{tick:+g}".replace("-", "−") if tick else "0", "middle")
    for position, row in enumerate(shown):
        y = _ROW * position + _ROW / 2 + 4
        sure = row.low is not None and row.high is not None and (row.low > 0 or row.high < 0)
        colour = "currentColor" if row.difference == 0 else _BETTER if row.difference > 0 else _WORSE
        mark = _put(svg, "g", stroke=colour, stroke_width=2)
        queries = counted(row.queries, "query", "queries")
        _put(mark, "title").text = printable(
            f"{row.segment}: {signed(row.difference)}, {interval(row.low, row.high)}, {queries}"
        )
        if row.low is not None and row.high is not None:
            for x1, y1, x2, y2 in (
                (x(row.low), y, x(row.high), y),
                (x(row.low), y - 4, x(row.low), y + 4),
                (x(row.high), y - 4, x(row.high), y + 4),
            ):
                _put(mark, "line", x1=x1, y1=y1, x2=x2, y2=y2)
        # The whisker shows through a hollow mark: the page's background colour is not known here.
        _put(mark, "circle", cx=x(row.difference), cy=y, r=5, fill=colour if sure else "none")
        _text(svg, _LABELS - 10, y + 4, shorten(row.segment, 16), "end")
        _text(svg, _WIDTH - _LABELS + 12, y + 4, f"{signed(row.difference)}  n {row.queries:,}")
    _rest(svg, bottom + 16 + _ROW, len(results) - len(shown))
    return ET.tostring(svg, encoding="unicode")


def distribution_chart(results: Sequence[OverlapResult], name: str) -> str:
    """One overlap measure's histograms over the queries, one row for each segment, as an SVG element. A tick marks
    the mean."""
    shown = results[:_MOST_ROWS]
    low, high = (-1.0, 1.0) if shown and shown[0].measure == "kendall_tau" else (0.0, 1.0)
    height = 44
    svg = _svg(
        height * len(shown) + 26 + _ROW * (len(results) > len(shown)),
        f"{name} of primary and candidate by segment",
        "Histograms over the queries. "
        + " ".join(f"{row.segment}: mean {number(row.mean)}, median {number(row.quantiles[3])}." for row in shown),
    )
    x = _scale(low, high, _LABELS, _WIDTH - _LABELS)
    for position, row in enumerate(shown):
        floor_y = height * (position + 1)
        most = max(row.histogram, default=0) or 1
        step = (high - low) / len(row.histogram) if row.histogram else 1
        for place, count in enumerate(row.histogram):
            left = low + place * step
            tall = (height - 10) * count / most
            bar = _put(
                svg, "rect", x=x(left) + 0.5, y=floor_y - tall, width=x(left + step) - x(left) - 1, height=tall,
                fill=_BETTER, fill_opacity=0.75,
            )  # fmt: skip
            _put(bar, "title").text = f"{left:.1f} to {left + step:.1f}: {counted(count, 'query', 'queries')}"
        _line(svg, x(low), floor_y, x(high), floor_y, 0.4)
        _put(svg, "path", d=f"M{x(row.mean):.1f} {floor_y + 1} l-4 6 h8 z", fill="currentColor")
        _text(svg, _LABELS - 10, floor_y - 8, shorten(row.segment, 16), "end")
        _text(svg, x(high) + 12, floor_y - 8, f"{number(row.mean)}  n {row.queries:,}")
    for tick in (low, (low + high) / 2, high):
        _text(svg, x(tick), height * len(shown) + 22, f"{tick:g}".replace("-", "−"), "middle")
    _rest(svg, height * len(shown) + 22 + _ROW, len(results) - len(shown))
    return ET.tostring(svg, encoding="unicode")


def change_chart(queries: Sequence[QueryResult], measure: str) -> str:
    """Every judged query's candidate − primary in one measure, from the largest gain to the largest loss, as SVG.

    With more than 360 queries, a bar is the mean of several neighbours.
    """
    changes = sorted(
        (
            (query.candidate[measure] - query.primary[measure], query.id)
            for query in queries
            if measure in query.primary and measure in query.candidate
        ),
        reverse=True,
    )
    better = sum(change > 0 for change, _ in changes)
    worse = sum(change < 0 for change, _ in changes)
    together = ceil(len(changes) / _MOST_BARS) or 1
    groups = [changes[start : start + together] for start in range(0, len(changes), together)]
    bars = [
        (fmean(change for change, _ in group), group[0][1] if together == 1 else f"{len(group)} queries")
        for group in groups
    ]
    svg = _svg(
        240,
        f"{measure}: change of every query",
        f"{better:,} better, {len(changes) - better - worse:,} equal, {worse:,} worse."
        + (f" A bar is the mean of {together} queries." if together > 1 else ""),
    )
    ticks = _ticks(min([0.0, *(change for change, _ in bars)]), max([0.0, *(change for change, _ in bars)]))
    y = _scale(ticks[-1], ticks[0], 12, 210)
    for tick in ticks:
        _line(svg, 54, y(tick), _WIDTH - 10, y(tick), 0.6 if tick == 0 else 0.15)
        _text(svg, 46, y(tick) + 4, f"{tick:+g}".replace("-", "−") if tick else "0", "end")
    wide = (_WIDTH - 64) / max(len(bars), 1)
    for position, (change, name) in enumerate(bars):
        bar = _put(
            svg, "rect", x=54 + wide * position + wide * 0.05, y=min(y(0), y(change)), width=wide * 0.9,
            height=abs(y(change) - y(0)), fill=_BETTER if change > 0 else _WORSE,
        )  # fmt: skip
        _put(bar, "title").text = printable(f"{name}: {signed(change)}")
    _text(svg, 54, 232, f"▲ {better:,} better")
    _text(svg, _WIDTH / 2, 232, f"{len(changes) - better - worse:,} equal", "middle")
    _text(svg, _WIDTH - 10, 232, f"▼ {worse:,} worse", "end")
    return ET.tostring(svg, encoding="unicode")


def depth_chart(overlaps: Sequence[float]) -> str:
    """overlap@1 to overlap@k of two rankings of one query, 0 to 1, as an SVG element: a bar for each depth."""
    svg = _svg(
        150,
        "Overlap by depth",
        "What both rankings share of their first items. "
        + " ".join(f"{depth}: {number(value)}." for depth, value in enumerate(overlaps, 1)),
    )
    y = _scale(1, 0, 12, 120)
    for tick in (0.0, 0.5, 1.0):
        _line(svg, 54, y(tick), _WIDTH - 10, y(tick), 0.6 if tick == 0 else 0.15)
        _text(svg, 46, y(tick) + 4, f"{tick:g}", "end")
    wide = (_WIDTH - 64) / max(len(overlaps), 1)
    named = ceil(len(overlaps) / 20) or 1
    for place, value in enumerate(overlaps):
        bar = _put(
            svg, "rect", x=54 + wide * place + wide * 0.1, y=y(value), width=wide * 0.8, height=y(0) - y(value),
            fill=_BETTER, fill_opacity=0.75,
        )  # fmt: skip
        _put(bar, "title").text = f"overlap@{place + 1}: {number(value)}"
        if (place + 1) % named == 0:
            _text(svg, 54 + wide * (place + 0.5), 138, f"{place + 1}", "middle")
    return ET.tostring(svg, encoding="unicode")


def _rest(svg: ET.Element, y: float, count: int) -> None:
    if count:
        _text(svg, _WIDTH / 2, y, f"… and {count:,} more segments, not drawn", "middle")


def _ticks(low: float, high: float) -> list[float]:
    """Up to eight round numbers for the ticks of a range, including zero if it is in the range."""
    span = (high - low) or 0.01
    step = 10.0 ** floor(log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)
    return [round(step * tick, 12) for tick in range(floor(low / step + 1e-9), ceil(high / step - 1e-9) + 1)] or [
        0.0
    ]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Maps low to start and high to end; a single value to the middle."""
    if low == high:
        return lambda _: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _svg(height: float, title: str, description: str) -> ET.Element:
    svg = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_WIDTH} {height:g}",
            "width": str(_WIDTH),
            "height": f"{height:g}",
            "role": "img",
            "font-family": "system-ui, sans-serif",
            "font-size": "12",
        },
    )
    _put(svg, "title").text = printable(title)
    _put(svg, "desc").text = printable(description)
    return svg


def _put(parent: ET.Element, tag: str, **attributes: str | float) -> ET.Element:
    return ET.SubElement(
        parent,
        tag,
        {
            name.replace("_", "-"): value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
            for name, value in attributes.items()
        },
    )


def _line(svg: ET.Element, x1: float, y1: float, x2: float, y2: float, opacity: float) -> None:
    _put(svg, "line", x1=x1, y1=y1, x2=x2, y2=y2, stroke="currentColor", stroke_opacity=opacity)


def _text(svg: ET.Element, x: float, y: float, text: str, anchor: str = "start") -> None:
    _put(svg, "text", x=x, y=y, text_anchor=anchor, fill="currentColor").text = printable(text)
