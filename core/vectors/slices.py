"""A file of vectors as slices of a few thousand rows, whatever its format.

Rows are numbered from 0, as in NumPy. Data from a file is untrusted until checked here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from revector.core.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from revector.core.registry import Storage

KEY_LENGTH = 64
"""Hex digits of a semantic key."""

_SLICE_ROWS = 8_192
_SLICE_BYTES = 8 * 1024 * 1024

_HEX = np.zeros(256, dtype=np.bool_)
_HEX[list(b"0123456789abcdefABCDEF")] = True

IdKind = Literal["chunk ids", "semantic keys", "source ids"]
ID_NAMES: dict[str, IdKind] = {"chunk_id": "chunk ids", "semantic_key": "semantic keys", "source_id": "source ids"}
"""What a column of ids is called, and what --ids-are takes."""


@dataclass(frozen=True)
class Slice:
    """Rows of a file: `ids` (n,) are int64 chunk ids, S64 semantic keys or source ids as objects, `vectors` (n, d) as
    in the file.

    `bad` maps rows of the slice to reasons, for rows that are not vectors of d numbers in the file.
    """

    first: int
    ids: NDArray[Any]
    vectors: NDArray[Any]
    bad: Mapping[int, str] = field(default_factory=dict)

    def head(self, rows: int) -> Slice:
        """Its first rows."""
        bad = {row: why for row, why in self.bad.items() if row < rows}
        return Slice(self.first, self.ids[:rows], self.vectors[:rows], bad)


@dataclass(frozen=True)
class NoVector:
    """A text for which a provider's batch answered an error in place of a vector."""

    id: Annotated[str, "its custom_id"]
    error: Annotated[str, "what the provider says"]


@dataclass(frozen=True)
class VectorFile:
    """An open, valid file of vectors. `name` is fit for a message; `dimensions` is None for a file without rows.

    `fingerprint` is of the content, ids included: the same for a copy under another name. `without` are lines that
    have an error in place of a vector; they are no rows.
    """

    name: str
    rows: int
    dimensions: int | None
    id_kind: IdKind
    fingerprint: str
    without: tuple[NoVector, ...] = field(default=(), kw_only=True)

    def slices(self, start: int) -> Iterator[Slice]:
        """All rows from `start` on. Raises UsageError for unreadable data and invalid ids."""
        raise NotImplementedError

    def ids(self, start: int, stop: int) -> Iterator[NDArray[Any]]:
        """The ids of the rows from `start` to before `stop`, without their vectors."""
        raise NotImplementedError


def slice_rows(dimensions: int, itemsize: int) -> int:
    """How many rows are read and stored at a time: a few thousand, fewer if vectors are long."""
    return max(1, min(_SLICE_ROWS, _SLICE_BYTES // max(1, dimensions * max(4, itemsize))))


def split_bad(part: Slice, storage: Storage) -> tuple[NDArray[np.float32], dict[int, str]]:
    """The vectors (n, d) as float32, and the rows that cannot be stored with the reason for each."""
    number = np.float32 if storage == "vector" else np.float16
    with np.errstate(all="ignore"):
        vectors = part.vectors.astype(np.float32, copy=False)
        stored = vectors.astype(number, copy=False).astype(np.float32, copy=False)
        squares = np.vecdot(stored, stored)
    # The sum may overflow or underflow for a good vector of huge or tiny numbers, so suspicious rows are checked
    # again.
    suspects = np.flatnonzero(~(np.isfinite(squares) & (squares > 0)))
    bad = dict(part.bad)
    for row in suspects.tolist():
        if row not in bad and (reason := _why_bad(part.vectors[row], stored[row], storage)):
            bad[row] = reason
    return vectors, bad


def _why_bad(given: NDArray[Any], stored: NDArray[np.float32], storage: Storage) -> str | None:
    if not (finite := np.isfinite(given)).all():
        place = int(np.argmin(finite))
        return f"has {given[place]} at position {place}"
    if not given.any():
        return "is all zeros (a cosine index would silently leave it out)"
    if not (finite := np.isfinite(stored)).all():
        place = int(np.argmin(finite))
        return f"has {given[place]:g} at position {place}, which is beyond the numbers of the type {storage}"
    return None if stored.any() else f"is all zeros as {storage}: its numbers are too small for that type"


def as_chunk_ids(ids: NDArray[Any], first: int, name: str) -> NDArray[np.int64]:
    """Integers of any width as int64. Raises UsageError naming the row of a number that is too large."""
    if ids.dtype.kind == "u" and ids.dtype.itemsize == 8 and (large := ids > np.iinfo(np.int64).max).any():
        row = int(large.argmax())
        raise bad_id(name, first + row, ids[row])
    return ids.astype(np.int64, copy=False)


def as_semantic_keys(ids: NDArray[np.bytes_], first: int, name: str) -> NDArray[np.bytes_]:
    """Keys (n,) of type S64 in lower case. Raises UsageError naming the row of an invalid key."""
    if not len(ids):
        return ids
    # A key that is too short ends in NULs, which are not hex digits.
    letters = np.ascontiguousarray(ids).view(np.uint8).reshape(len(ids), KEY_LENGTH)
    if not (good := _HEX[letters].all(axis=1)).all():
        row = int(good.argmin())
        raise bad_id(name, first + row, ids[row].decode(errors="replace"))
    return (letters | 0x20).view(f"S{KEY_LENGTH}").reshape(len(ids))  # lower case; digits have that bit already


def key_array(keys: Sequence[bytes], first: int, name: str) -> NDArray[np.bytes_]:
    """Like `as_semantic_keys`, for single keys."""
    for row, key in enumerate(keys):
        if len(key) != KEY_LENGTH:
            raise bad_id(name, first + row, key.decode(errors="replace"))
    return as_semantic_keys(np.array(keys, dtype=f"S{KEY_LENGTH}"), first, name)


def as_source_ids(ids: Sequence[str], first: int, name: str) -> NDArray[np.object_]:
    """Source ids (n,) as Python strings. Raises UsageError naming the row of an empty one."""
    for row, one in enumerate(ids):
        if not one or "\0" in one:
            raise bad_id(name, first + row, one)
    found = np.empty(len(ids), object)
    found[:] = ids
    return found


def id_text(one: Any) -> str:
    """An id for a message."""
    return one.decode(errors="replace") if isinstance(one, bytes) else str(one)


def bad_id(name: str, row: int, found: object) -> UsageError:
    """The error for an invalid id."""
    shown = str(found) if len(str(found)) <= KEY_LENGTH else f"{str(found)[:KEY_LENGTH]}…"
    return UsageError(
        f"{name}: the id of row {row:,} (counted from 0) is {shown!r}.",
        f"Expected all ids to be chunk ids (integers), or all semantic keys ({KEY_LENGTH} hex digits). "
        "For documents of one chunk they may be your own ids: --ids-are source_id",
    )
