"""Text from documents, users and servers, made safe for a terminal.

No Textual here: the command line uses it too.
"""

from __future__ import annotations

import datetime

from revector.core.text import MARKS as MARKS
from revector.core.text import counted as counted
from revector.core.text import printable as printable
from revector.core.text import shorten as shorten


def first_line(text: str) -> str:
    """The first non-blank line, printable: the title of a document."""
    head = text[:2_000].lstrip()
    return printable(head.splitlines()[0] if head else "(empty)")


def chunks(count: int) -> str:
    """`1 chunk`, `2,056 chunks`."""
    return counted(count, "chunk")


def clock(moment: datetime.datetime) -> str:
    """`14:02:11`, in the local time zone."""
    return f"{moment.astimezone():%H:%M:%S}"


def time_now() -> str:
    """The time of day."""
    return clock(datetime.datetime.now(datetime.UTC))


def date_and_time(moment: datetime.datetime | None) -> str:
    """`2026-03-01 14:02`, in the local time zone; a dash for never."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M}" if moment else "—"


def duration(seconds: float | None) -> str:
    """`8 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`; a dash when unknown."""
    if seconds is None:
        return "—"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((place for place, (count, _) in enumerate(parts) if count), len(parts) - 1)
    shown = [f"{count} {unit}" for count, unit in parts[first : first + 2] if count]
    return " ".join(shown) or "0 s"


def milliseconds(seconds: float) -> str:
    """`1.8 ms`; whole numbers from a hundred on."""
    value = seconds * 1_000
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.1f} ms"


def figure(value: float | None) -> str:
    """`0.92`; a dash when unknown."""
    return "—" if value is None else f"{value:.2f}"


def size(count: float) -> str:
    """`38.2 MB`, in powers of a thousand."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1_000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1_000
    return f"{count:,.1f} TB"
