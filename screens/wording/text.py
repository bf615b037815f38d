"""Text from documents, users and servers, made fit for a terminal: shown, never obeyed.

No Textual here: the command line uses it too.
"""

from __future__ import annotations

import datetime
import unicodedata

MARKS = {"pass": "✓", "warn": "!", "fail": "✗", "inconclusive": "?"}
"""What stands before a verdict."""

_MOST_MARKS = 3
"""Combining marks on one character that are drawn; more (no script needs them) would pile up over other lines."""

_DELETE = "\x7f"
_PRESENTATION = ("\ufe0e", "\ufe0f")
"""Ask for an emoji as text or picture, and with that for a width on which terminals differ: left out."""


def printable(text: str, *, lines: bool = False) -> str:
    """The text with everything that a terminal would obey or not draw replaced by something to see.

    Control characters become their symbols (␛, ␊, ␉), bidi overrides, invisible and unassigned characters their
    code point (‹202E›). `lines` keeps line ends; tabs are four blanks then.
    """
    if text.isascii() and text.isprintable():
        return text
    if lines:
        text = text.replace("\r\n", "\n").expandtabs(4)
    shown = []
    marks = _MOST_MARKS  # a mark that nothing comes before would sit on whatever is left of the text
    for character in unicodedata.normalize("NFC", text):
        if character in _PRESENTATION:
            continue
        if unicodedata.category(character) in ("Mn", "Me"):
            shown.append(character if marks < _MOST_MARKS else f"‹{ord(character):04X}›")
            marks += 1
        elif character == "\n" and lines:
            shown.append(character)
            marks = _MOST_MARKS
        else:
            shown.append(_visible(character))
            marks = 0
    return "".join(shown)


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    if character < " ":
        return chr(0x2400 + ord(character))
    if character == _DELETE:
        return "␡"
    if unicodedata.category(character) == "Zs":
        return " "
    return f"‹{ord(character):04X}›"


def first_line(text: str) -> str:
    """The first line that has anything in it, printable: the title of a document."""
    head = text[:2_000].lstrip()
    return printable(head.splitlines()[0] if head else "(empty)")


def shorten(text: str, length: int) -> str:
    """The text cut to a number of characters, with an ellipsis where something is missing."""
    return text if len(text) <= length else text[: max(0, length - 1)] + "…"


def chunks(count: int) -> str:
    """`1 chunk`, `2,056 chunks`."""
    return f"{count:,} chunk" if count == 1 else f"{count:,} chunks"


def clock(moment: datetime.datetime) -> str:
    """`14:02:11`, in the time zone of the person at the keyboard."""
    return f"{moment.astimezone():%H:%M:%S}"


def time_now() -> str:
    """The time of day."""
    return clock(datetime.datetime.now(datetime.UTC))


def date_and_time(moment: datetime.datetime | None) -> str:
    """`2026-03-01 14:02`, in the time zone of the person at the keyboard; a dash for never."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M}" if moment else "—"


def duration(seconds: float | None) -> str:
    """`8 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`; a dash when it is not known."""
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


def size(count: float) -> str:
    """`38.2 MB`, in powers of a thousand."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1_000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1_000
    return f"{count:,.1f} TB"
