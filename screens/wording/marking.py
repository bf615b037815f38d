"""Marks the words of a query in a text, in all their English forms, as Postgres' full text search finds them."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Any

from rich.text import Text

from revector.screens.wording.theme import CAUTION

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORD = re.compile(r"\w+")
_COMMON_WORDS = (
    "a an and are as at be by can do does for from get has have how i if in into is it its my no not of on or our so "
    "that the their there they this to was we what when where which who why will with you your"
)
"""Words that are in every text; marking them would hide the others."""
MARK = f"bold underline {CAUTION}"


def marked(shown: str, query: str) -> Text:
    """A printable text with the query's words marked: bold and underlined, not only coloured."""
    text = Text(shown)
    wanted = _stems(query)
    runs = [run for run in _WORD.findall(_normal(query)) if _unspaced(run)]
    if wanted or runs:
        for start, end in _places(shown, wanted, runs):
            text.stylize(MARK, start, end)
    return text


def _places(shown: str, wanted: frozenset[str], runs: list[str]) -> Iterator[tuple[int, int]]:
    known: dict[str, list[tuple[int, int]]] = {}
    for found in _WORD.finditer(shown):
        word, start = found.group(), found.start()
        if word not in known:
            known[word] = list(_within(word, wanted, runs))
        yield from ((start + first, start + last) for first, last in known[word])


def _within(word: str, wanted: frozenset[str], runs: list[str]) -> Iterator[tuple[int, int]]:
    """The parts of a word to mark: all of it, or the parts that are in the query for a script without blanks."""
    normal = _normal(word)
    if not _unspaced(normal):
        if _stem(normal) in wanted:
            yield 0, len(word)
    elif len(normal) == len(word):  # otherwise offsets in the normal form do not fit the word
        for run in runs:
            if (at := normal.find(run)) >= 0:
                yield at, at + len(run)


def _stems(query: str) -> frozenset[str]:
    words = [word for word in _WORD.findall(_normal(query)) if not _unspaced(word)]
    common = _COMMON_WORDS.split()
    return frozenset(_stem(word) for word in words if word not in common) or frozenset(map(_stem, words))


def _normal(text: str) -> str:
    """The word without case and accents."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if not unicodedata.combining(c)))


def _unspaced(word: str) -> bool:
    """Whether a word is in a script without blanks between words (Chinese, Japanese)."""
    return any(unicodedata.east_asian_width(character) == "W" for character in word)


@cache
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")


def _stem(word: str) -> str:
    return str(_stemmer().stemWord(word))
