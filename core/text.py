"""Makes text from documents, users and servers safe to show: no control sequences, nothing invisible."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

MARKS = {"pass": "✓", "warn": "!", "fail": "✗", "inconclusive": "?"}
"""The mark of each verdict."""

_MOST_MARKS = 3
"""The maximum of combining marks shown on one character; more (no script needs them) would cover other lines."""

_DELETE = "\x7f"
_PRESENTATION = ("\ufe0e", "\ufe0f")
"""Variation selectors for emoji, which change the width differently in each terminal, so they are removed."""


def printable(text: str, *, lines: bool = False) -> str:
    """The text with everything that a terminal would interpret or not draw replaced by something visible.

    Control characters become their symbols (␛, ␊, ␉), bidi overrides, invisible and unassigned characters their
    code point (‹202E›). `lines` keeps line ends, and turns tabs into four blanks.
    """
    if text.isascii() and text.isprintable():
        return text
    if lines:
        text = text.replace("\r\n", "\n").expandtabs(4)
    shown = []
    marks = _MOST_MARKS  # a mark without a base character would combine with whatever precedes the text
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


def shorten(text: str, length: int) -> str:
    """The text cut to a number of characters, with an ellipsis if cut."""
    return text if len(text) <= length else text[: max(0, length - 1)] + "…"


def quote(text: str) -> str:
    """Text from outside, quoted for a message: its first 80 characters."""
    return repr(text if len(text) <= 80 else f"{text[:80]}…")


def counted(number: int, one: str, many: str = "") -> str:
    """`1 query`, `2,000 queries`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def in_words(value: object) -> str:
    """A value of JSON for people: `none`, `v2`, `demo (by ann, number 1)`."""
    if value in (None, "", {}, []):
        return "none"
    match value:
        case Mapping():
            named = ((name, of, in_words(of)) for name, of in value.items())
            return ", ".join(
                f"{name} ({text})" if isinstance(of, Mapping | list) and of else f"{name} {text}"
                for name, of, text in named
            )
        case list():
            return "; ".join(map(in_words, value))
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
    return str(value)
