"""Chunks: the pieces of a document that get vectors, and their keys.

A chunk's row id means nothing outside one database. Its semantic key is always the same for the same text at the
same place of the same document, so judgements, comparisons and caches refer to it. What this module computes may
never change without a new key scheme; golden tests pin it.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import uuid
from collections.abc import Iterator
from functools import lru_cache

from semantic_text_splitter import MarkdownSplitter, TextSplitter

DOCUMENT_NAMESPACE = uuid.UUID("7c1b9f0e-5a52-4d0c-9a54-3f6a1d2e8b47")
"""The namespace of document ids. Never changes: every semantic key contains a document id."""

_LINE_ENDS = re.compile("\r\n|[\r\x85\u2028\u2029]")
# A single space needs no change, and nearly all blanks are single: three times as fast as "[ …]+".
_BLANKS = re.compile("[\t\v\f\u1680][ \t\v\f\u1680]*| [ \t\v\f\u1680]+")

_OTHER_ASCII = ("\r", "\t", "\v", "\f", "  ")

# Unicode's White_Space, which is what the splitter trims. Python's isspace() would add U+001C to U+001F.
_WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)

# For each chunk's end the splitter searches the rest of a run without a boundary, so its time is quadratic in such
# a run: 10 MB of one letter took 270 s, 1.2 MB of Han without punctuation 70 s. Cut into windows first, 10 MB of
# either take 2 and 9 s. Texts of up to this many chunks are not cut into windows.
_WINDOW_CHUNKS = 32
_WINDOW_ENDS = ("\n\n", "\n\r\n", "\n", " ")


def normalise(text: str) -> str:
    r"""The form of a text that its semantic key is made from. Exactly, and in this order:

    1. Unicode normalisation form NFKC.
    2. Every line end becomes `\n`: `\r\n` (one line end), and each remaining `\r`, U+0085, U+2028 and U+2029.
    3. Every run of blanks becomes one space. Blanks are space, `\t`, `\v`, `\f` and U+1680; the other spaces of
       Unicode (U+00A0, U+3000 …) are spaces already after step 1. A line end is no blank, so that lines stay
       lines, their number too, and a line keeps one space where it had blanks at its start or end.
    4. Spaces and `\n` are taken off both ends of the whole text.

    Line ends and blanks together are Unicode's White_Space. Everything else stays, zero-width characters and
    controls included. Idempotent. A character that a later Unicode assigns may get another NFKC form by it; for
    those that are assigned today NFKC is stable by Unicode's policy.
    """
    if text.isascii() and not any(other in text for other in _OTHER_ASCII):
        return text.strip(" \n")  # the same as below, in a tenth of the time
    text = unicodedata.normalize("NFKC", text)
    text = _LINE_ENDS.sub("\n", text)
    return _BLANKS.sub(" ", text).strip(" \n")


def document_uuid(source_id: str) -> uuid.UUID:
    """The `document_id` of a document: the uuid5 of the caller's id, taken as it is, in DOCUMENT_NAMESPACE."""
    return uuid.uuid5(DOCUMENT_NAMESPACE, source_id)


def semantic_key(document_id: uuid.UUID, chunk_no: int, text: str) -> str:
    """The sha256, in hex, of `document_id:chunk_no:normalised text` in UTF-8; chunks count from 0.

    Two texts that differ only in what `normalise` removes have the same key. Raises UnicodeEncodeError for a lone
    surrogate, which a `Document` never contains.
    """
    return hashlib.sha256(f"{document_id}:{chunk_no}:{normalise(text)}".encode()).hexdigest()


def content_sha256(text: str) -> bytes:
    """The sha256 of the content itself, not normalised: equal texts get equal vectors from one encoder."""
    return hashlib.sha256(text.encode()).digest()


def split(text: str, *, markdown: bool, characters: int) -> list[str]:
    """Cut a text into chunks of at most `characters` characters, at the best available boundaries.

    Markdown is cut along its headings and blocks, other text along lines, sentences and words. Chunks are trimmed
    and never blank; together they contain every character of the text that is not White_Space, in order. A blank
    text gives no chunks.
    """
    splitter = _splitter(markdown, characters)
    return [
        chunk
        for window in _windows(text, characters * _WINDOW_CHUNKS)
        for chunk in splitter.chunks(window)
        if chunk.strip(_WHITE_SPACE)
    ]


@lru_cache(maxsize=8)
def _splitter(markdown: bool, characters: int) -> TextSplitter | MarkdownSplitter:
    return MarkdownSplitter(characters) if markdown else TextSplitter(characters)


def _windows(text: str, size: int) -> Iterator[str]:
    """Parts of at most `size` characters that end, if possible, at the end of a paragraph, line or word."""
    start = 0
    while len(text) - start > size:
        # Only in the second half: a window that ends early would leave small chunks.
        half, limit = start + size // 2, start + size
        ends = (text.rfind(end, half, limit) + len(end) for end in _WINDOW_ENDS if end in text[half:limit])
        stop = next(ends, limit)
        yield text[start:stop]
        start = stop
    yield text[start:]
