"""Vectors in a provider's batch answers: lines of JSON, each with the `custom_id` that was sent and its response.

OpenAI's form, which others follow. Lines with an error in place of a vector are no rows; they are listed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from revector.core.errors import UsageError
from revector.core.vectors.slices import (
    KEY_LENGTH,
    IdKind,
    NoVector,
    Slice,
    VectorFile,
    as_chunk_ids,
    as_source_ids,
    key_array,
    slice_rows,
)
from revector.core.vectors.source import fingerprint, opened, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LONGEST_LINE = 16 * 1024 * 1024
_MOST_ERRORS = 100_000
_LONGEST_ERROR = 300
_INTEGER = re.compile(r"[0-9]{1,19}")


class _Embedding(msgspec.Struct):
    embedding: list[float] | str


class _Body(msgspec.Struct):
    data: list[_Embedding] | None = None
    error: Any = None


class _Response(msgspec.Struct):
    status_code: int = 200
    body: _Body | None = None


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: Any = None


_DECODER = msgspec.json.Decoder(_Line)


@dataclass(frozen=True)
class AnswerFile(VectorFile):
    """A file of batch answers."""

    path: Path

    def slices(self, start: int) -> Iterator[Slice]:
        """All rows from `start` on."""
        dimensions = self.dimensions or 0
        size = slice_rows(dimensions, 4)
        for first, rows in self._rows(start, self.rows, size):
            vectors, bad = np.zeros((len(rows), dimensions), np.float32), {}
            for row, (_, found) in enumerate(rows):
                if len(found) == dimensions:
                    vectors[row] = found
                else:
                    bad[row] = f"has {len(found):,} dimensions in place of {dimensions:,}"
            yield Slice(first, self._ids([one for one, _ in rows], first), vectors, bad)

    def ids(self, start: int, stop: int) -> Iterator[NDArray[Any]]:
        """The ids of the rows from `start` to before `stop`."""
        for first, rows in self._rows(start, stop, slice_rows(self.dimensions or 1, 4)):
            yield self._ids([one for one, _ in rows], first)

    def _rows(self, start: int, stop: int, size: int) -> Iterator[tuple[int, list[tuple[str, Any]]]]:
        waiting: list[tuple[str, Any]] = []
        row = 0
        for number, line in _lines(self.path):
            found = _read(self.path, number, line)
            if isinstance(found, NoVector):
                continue
            row += 1
            if row <= start:
                continue
            waiting.append(found)
            if len(waiting) == size or row == stop:
                yield row - len(waiting), waiting
                waiting = []
            if row == stop:
                return
        if row < stop:
            raise UsageError(f"{self.name} was cut off while it was read.", "Write it again.")

    def _ids(self, ids: list[str], first: int) -> NDArray[Any]:
        if self.id_kind == "source ids":
            return as_source_ids(ids, first, self.name)
        if self.id_kind == "semantic keys":
            return key_array([one.encode() for one in ids], first, self.name)
        if not all(map(_INTEGER.fullmatch, ids)):
            return key_array(
                [one.encode() for one in ids], first, self.name
            )  # which names the one that is neither
        return as_chunk_ids(np.array(ids, dtype="S19").astype(np.uint64), first, self.name)


def open_answers(path: Path, ids_are: IdKind | None = None) -> AnswerFile:
    """Open a file of batch answers, and read it once. Raises UsageError for one with a line that is no answer."""
    found, rows, dimensions, kind = hashlib.sha256(), 0, None, ids_are
    without: list[NoVector] = []
    for number, line in _lines(path):
        found.update(line)
        answer = _read(path, number, line)
        if isinstance(answer, NoVector):
            if len(without) < _MOST_ERRORS:
                without.append(answer)
            continue
        custom_id, vector = answer
        rows += 1
        dimensions = dimensions or len(vector)
        kind = kind or ("semantic keys" if len(custom_id) == KEY_LENGTH else "chunk ids")
    name = fingerprint("answers", found.digest(), kind or "")
    return AnswerFile(shown(path), rows, dimensions, kind or "semantic keys", name, path, without=tuple(without))


def is_answers(magic: bytes) -> bool:
    """Whether a file's first bytes may be those of a line of JSON."""
    return magic.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines that are not empty, with their numbers from 1."""
    with opened(path) as raw, io.BufferedReader(raw, 1024 * 1024) as file:
        number = 0
        while line := file.readline(_LONGEST_LINE + 1):
            number += 1
            if len(line) > _LONGEST_LINE:
                raise UsageError(
                    f"{shown(path)}: line {number:,} has more than {_LONGEST_LINE:,} bytes.",
                    "Expected an answer with one vector a line.",
                )
            if line := line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").strip():
                yield number, line


def _read(path: Path, number: int, line: bytes) -> tuple[str, NDArray[np.float64] | list[float]] | NoVector:
    """A line's id and vector, or what went wrong with it."""
    try:
        found = _DECODER.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{shown(path)}: line {number:,} is not a batch's answer: {str(error)[:200]}.",
            "Expected OpenAI's form: a custom_id, and response.body.data with one embedding.",
        ) from None
    body = found.response.body if found.response else None
    wrong = found.error or (body.error if body else None)
    if wrong is None and found.response is not None and found.response.status_code >= 400:
        wrong = f"status {found.response.status_code}"
    if wrong is not None:
        return NoVector(found.custom_id, _in_words(wrong))
    data = body.data if body else None
    if not data or len(data) > 1:
        return NoVector(found.custom_id, f"the answer has {len(data or []):,} vectors in place of one")
    vector = data[0].embedding
    if isinstance(vector, list):
        return found.custom_id, vector
    try:
        return found.custom_id, np.frombuffer(base64.b64decode(vector, validate=True), "<f4").astype(np.float64)
    except (binascii.Error, ValueError):
        return NoVector(found.custom_id, "the vector is not base64 of float32s")


def _in_words(error: object) -> str:
    """What a provider says: OpenAI's error is an object, others' is text."""
    said = error.get("message") or error.get("code") if isinstance(error, dict) else error
    return " ".join(str(said or error).split())[:_LONGEST_ERROR]
