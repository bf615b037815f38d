"""Where a query's words stand in a text."""

from __future__ import annotations

import re

from rich.text import Text

from screens.text import printable
from screens.theme import CAUTION

_STYLE = f"bold underline {CAUTION}"
_MOST_TERMS = 60
_ENDINGS = ("ing", "ed", "es", "s", "e")
_LEAST_STEM = 4
_TOO_COMMON = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by can do does for from had has have how i if in into is it its me my not of on or so "
        "that the their them then there these they this to was we were what when where which who why will with you "
        "your",
    )
)


def terms_of(query: str) -> tuple[str, ...]:
    """The words that are looked for, lower-case and each once; the commonest only when there are no others."""
    words = tuple(dict.fromkeys(re.findall(r"\w+", query.casefold())))
    telling = tuple(word for word in words if word not in _TOO_COMMON and (len(word) > 1 or not word.isascii()))
    return (telling or words)[:_MOST_TERMS]


def marked(text: str, query: str) -> Text:
    """The text, printable, with the query's words underlined, in their simple English forms too."""
    found = Text(printable(text, lines=True))
    terms = terms_of(query)
    if terms:
        # The longest first: an alternation takes the first that fits.
        stems = sorted({_stem(term) for term in terms} | set(terms), key=len, reverse=True)
        words = "|".join(map(re.escape, stems))
        found.highlight_regex(re.compile(rf"\b(?:{words})(?:{'|'.join(_ENDINGS)})?\b", re.IGNORECASE), _STYLE)
    return found


def _stem(term: str) -> str:
    for ending in _ENDINGS:
        if term.endswith(ending) and len(term) - len(ending) >= _LEAST_STEM:
            return term[: -len(ending)]
    return term
