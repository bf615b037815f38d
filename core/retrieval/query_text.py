"""The operators in a hybrid search's text: "phrases", -words and OR.

The database reads them (`read_query` in core/migrations/sql/words.sql). Here is only what must be known before: whether
something is excluded, and what the encoder gets, since a vector of `tea -milk` lies nearer to milk than one of `tea`.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(r'(-?)"([^"]*)"?|(-?)[^\s"!&|()-][^\s"!&|()]*|-+')
_MAY_EXCLUDE = re.compile(r'(?:^|[\s"!&|()])-[^\s!&|()-]')
"""What is at every excluded token: a long text without one need not be read token by token, which takes 10 ms."""


_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]{2}")
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese, which are written without spaces between words."""

UNSPACED_NOTE = (
    "Postgres takes a run of Chinese, Japanese or Thai without spaces for one word: by words only the very same run is "
    "found, and all else by vectors."
)


def is_unspaced(text: str) -> bool:
    """Whether a text has words of a script without spaces between them."""
    return _UNSPACED.search(text) is not None


def excludes(text: str) -> bool:
    """Whether the text has a `-word` or a `-"phrase"`; a dash before a blank or within a word is none."""
    return _MAY_EXCLUDE.search(text) is not None and any(_is_excluded(token) for token in _TOKEN.finditer(text))


def without_operators(text: str) -> str:
    """The text without quotation marks and without what it excludes; as it is when nothing else would be left."""
    if '"' not in text and _MAY_EXCLUDE.search(text) is None:
        return text

    def kept(token: re.Match[str]) -> str:
        if _is_excluded(token):
            return ""
        return token[0] if token[2] is None else token[2]

    return _TOKEN.sub(kept, text).strip() or text


def each_word_once(text: str) -> str:
    """The text with each of its words once, which is all that the list by words looks at; as it is with operators."""
    if '"' in text or excludes(text):
        return text
    return " ".join(dict.fromkeys(text.split()))


def _is_excluded(token: re.Match[str]) -> bool:
    return "-" in (token[1], token[3])
