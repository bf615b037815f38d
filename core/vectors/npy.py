"""Vectors in an array of a file (.npy) and their ids in a second one (.npy or text), read a slice at a time.

By plain reads, not by a memory map: mapped pages count as the process's memory, and a file truncated meanwhile
would kill the process with SIGBUS.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from revector.core.errors import UsageError
from revector.core.vectors.slices import (
    KEY_LENGTH,
    IdKind,
    Slice,
    VectorFile,
    as_chunk_ids,
    as_semantic_keys,
    as_source_ids,
    bad_id,
    key_array,
    slice_rows,
)
from revector.core.vectors.source import NPY_MAGIC, digest, fingerprint, opened, read_magic, shown

if TYPE_CHECKING:
    from io import FileIO

    from numpy.typing import NDArray

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_ID_ROWS = 8_192
_BLOCK = 1024 * 1024
_INTEGERS = re.compile(rb"(?:[0-9]{1,19}\n)+")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Array:
    """An array in a file: its shape, its type, and where its numbers begin.

    With `half_of_float` the numbers are the upper halves of float32s (bfloat16, which NumPy lacks).
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    half_of_float: bool = False

    def read(self, file: FileIO, start: int, stop: int) -> NDArray[Any]:
        """The entries of the first axis from `start` up to, not including, `stop`."""
        found = np.empty((stop - start, *self.shape[1:]), self.dtype)
        file.seek(self.offset + start * (found.nbytes // max(1, stop - start)))
        bytes_left = memoryview(found.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        while bytes_left:
            count = file.readinto(bytes_left)
            if not count:
                raise UsageError(f"{shown(self.path)} was cut off while it was read.", "Write it again.")
            bytes_left = bytes_left[count:]
        return (found.astype(np.uint32) << 16).view(np.float32) if self.half_of_float else found


@dataclass(frozen=True)
class ArrayFile(VectorFile):
    """Vectors in an array of a file, with their ids in an array or in lines."""

    vectors: Array
    id_file: Ids

    def slices(self, start: int) -> Iterator[Slice]:
        """All rows from `start` on."""
        size = slice_rows(self.vectors.shape[1], self.vectors.dtype.itemsize)
        with opened(self.vectors.path) as file:
            for ids in self.id_file.read(start, self.rows, size):
                yield Slice(start, ids, self.vectors.read(file, start, start + len(ids)))
                start += len(ids)

    def ids(self, start: int, stop: int) -> Iterator[NDArray[Any]]:
        """The ids of the rows from `start` to before `stop`."""
        return self.id_file.read(start, stop, _ID_ROWS)


def open_npy(path: Path, ids: Path, ids_are: IdKind | None = None) -> ArrayFile:
    """Open a file of vectors and the file of its ids. Raises UsageError for invalid files."""
    vectors = _open_array(path)
    if len(vectors.shape) != 2:
        raise UsageError(
            f"{shown(path)} has an array of shape {vectors.shape}.", "Expected one vector a row: shape (n, d)."
        )
    if vectors.dtype.kind != "f" or vectors.dtype.itemsize not in (2, 4, 8):
        raise UsageError(
            f"{shown(path)} has numbers of type {vectors.dtype}.", "Expected float16, float32 or float64."
        )
    return with_ids("npy", vectors, open_ids(ids, ids_are))


def open_ids(path: Path, ids_are: IdKind | None) -> Ids:
    """Open a file of ids, .npy or text."""
    if read_magic(path).startswith(NPY_MAGIC):
        return ArrayIds.of(_open_array(path), ids_are)
    return TextIds.open(path, ids_are)


def with_ids(form: str, vectors: Array, ids: Ids) -> ArrayFile:
    """Vectors with their ids. Raises UsageError unless there is one for each."""
    rows, dimensions = vectors.shape
    if ids.rows != rows:
        raise UsageError(
            f"{shown(vectors.path)} has {rows:,} vectors, and {shown(ids.path)} has {ids.rows:,} ids.",
            "Expected one id a vector, in the same order.",
        )
    more = ["source ids"] if ids.kind == "source ids" else []
    content = fingerprint(form, digest(vectors.path), ids.digest, *more)
    return ArrayFile(shown(vectors.path), rows, dimensions, ids.kind, content, vectors, ids)


def _open_array(path: Path) -> Array:
    with opened(path) as file:
        # A header is short; do not trust the length in a hostile file.
        head = io.BytesIO(file.read(_BLOCK))
        try:
            version = np.lib.format.read_magic(head)
            if version not in _HEADERS:
                raise ValueError(
                    f"its format version is {version[0]}.{version[1]}, which is for structured arrays"
                )
            with warnings.catch_warnings(action="ignore"):
                shape, by_column, dtype = _HEADERS[version](head)
        except Exception as error:  # noqa: BLE001  (hostile bytes make NumPy's parser raise nearly anything)
            reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
            raise UsageError(
                f"{shown(path)} has no header that can be read: {reason[:200]}.", "Write it again with numpy.save."
            ) from None
        size = os.fstat(file.fileno()).st_size
    if dtype.hasobject:
        raise UsageError(
            f"{shown(path)} has Python objects, which only pickle could read; that is never done.",
            "Save numbers, or ids as fixed-width strings: numpy.save(file, ids.astype('U64'))",
        )
    if by_column and len(shape) > 1:
        raise UsageError(
            f"{shown(path)} is in Fortran order: its rows do not lie together.",
            "Save it by rows: numpy.save(file, numpy.ascontiguousarray(array))",
        )
    expected = head.tell() + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size != expected:
        what = "was cut off" if size < expected else "has more in it"
        raise UsageError(
            f"{shown(path)} {what}: it has {size:,} bytes; its header says {expected:,}, an array of shape {shape}.",
            "Write it again with numpy.save, or wait until it is written.",
        )
    return Array(path, shape, dtype, head.tell())


@dataclass(frozen=True)
class Ids:
    """The ids of a file's rows, and how they are read."""

    path: Path
    rows: int
    kind: IdKind
    digest: bytes

    def read(self, start: int, stop: int, size: int) -> Iterator[NDArray[Any]]:
        """Those from `start` to before `stop`, `size` at a time."""
        raise NotImplementedError


@dataclass(frozen=True)
class ArrayIds(Ids):
    """Ids in an array: integers, or fixed-width strings."""

    array: Array

    @classmethod
    def of(cls, array: Array, ids_are: IdKind | None = None, content: bytes | None = None) -> ArrayIds:
        """Ids of that array; `content` is a digest of them, by default the whole file's.

        Raises UsageError for an array that has none.
        """
        path = array.path
        kind, width = array.dtype.kind, array.dtype.itemsize
        if len(array.shape) != 1:
            raise UsageError(
                f"{shown(path)} has ids of shape {array.shape}.", "Expected one id a row: shape (n,)."
            )
        if kind in "iuUS" and ids_are == "source ids":
            id_kind: IdKind = "source ids"
        elif kind in "iu":
            id_kind = "chunk ids"
        elif (kind, width) in (("U", 4 * KEY_LENGTH), ("S", KEY_LENGTH)):
            id_kind = "semantic keys"
        else:
            raise UsageError(
                f"{shown(path)} has ids of type {array.dtype}.",
                f"Expected chunk ids as integers, or semantic keys as strings of {KEY_LENGTH} characters ('U64'). For "
                "documents of one chunk they may be your own ids: --ids-are source_id",
            )
        return cls(path, array.shape[0], id_kind, content or digest(path, whole=True), array)

    def read(self, start: int, stop: int, size: int) -> Iterator[NDArray[Any]]:
        """Those from `start` to before `stop`, `size` at a time."""
        with opened(self.path) as file:
            for first in range(start, stop, size):
                ids = self.array.read(file, first, min(first + size, stop))
                if self.kind == "chunk ids":
                    yield as_chunk_ids(ids, first, shown(self.path))
                elif self.kind == "source ids":
                    yield as_source_ids(self._as_texts(ids, first), first, shown(self.path))
                else:
                    yield as_semantic_keys(self._as_bytes(ids, first), first, shown(self.path))

    def _as_texts(self, ids: NDArray[Any], first: int) -> list[str]:
        try:
            return [one.decode() if isinstance(one, bytes) else str(one) for one in ids.tolist()]
        except ValueError:  # NumPy's own, for four bytes beyond Unicode, or of what is not UTF-8
            raise UsageError(
                f"{shown(self.path)}: an id from row {first:,} on (counted from 0) is not text.", "Write it again."
            ) from None

    def _as_bytes(self, ids: NDArray[Any], first: int) -> NDArray[np.bytes_]:
        if ids.dtype.kind == "S":
            return ids
        letters = ids.view(ids.dtype.str[0] + "u4").reshape(len(ids), KEY_LENGTH)
        if (odd := letters > 0x7F).any():
            row = int(odd.any(axis=1).argmax())
            # Not as text: four bytes that are not a valid character cannot be decoded.
            raise bad_id(shown(self.path), first + row, "a text that is not ASCII")
        return letters.astype(np.uint8).view(f"S{KEY_LENGTH}").reshape(len(ids))


@dataclass(frozen=True)
class TextIds(Ids):
    """Ids in a text file, one a line."""

    @classmethod
    def open(cls, path: Path, ids_are: IdKind | None = None) -> TextIds:
        """Count and hash in one pass, which also checks that no line is too long."""
        found, lines, head, last = hashlib.sha256(), 0, b"", b"\n"
        with opened(path) as file:
            while block := file.read(_BLOCK):
                head = head or block[:256]
                found.update(block)
                count = block.count(b"\n")
                if not count and len(block) == _BLOCK:
                    raise UsageError(f"{shown(path)}: line {lines + 1:,} is no id.", "Expected one id a line.")
                lines, last = lines + count, block[-1:]
        first = head.removeprefix(_BOM).partition(b"\n")[0].rstrip(b"\r")
        kind: IdKind = ids_are or ("semantic keys" if len(first) == KEY_LENGTH else "chunk ids")
        return cls(path, lines + (last != b"\n"), kind, found.digest())

    def read(self, start: int, stop: int, size: int) -> Iterator[NDArray[Any]]:
        """Those from `start` to before `stop`, `size` at a time."""
        with opened(self.path) as raw, io.BufferedReader(raw, _BLOCK) as file:
            if file.peek(len(_BOM)).startswith(_BOM):
                file.seek(len(_BOM))
            next(itertools.islice(file, start, start), None)
            for first in range(start, stop, size):
                lines = [line.rstrip(b"\r\n") for line in itertools.islice(file, min(size, stop - first))]
                if len(lines) < min(size, stop - first):
                    raise UsageError(f"{shown(self.path)} was cut off while it was read.", "Write it again.")
                yield self._parsed(lines, first)

    def _parsed(self, lines: list[bytes], first: int) -> NDArray[Any]:
        name = shown(self.path)
        if self.kind == "semantic keys":
            return key_array(lines, first, name)
        if self.kind == "source ids":
            return as_source_ids([line.decode(errors="replace") for line in lines], first, name)
        if not _INTEGERS.fullmatch(b"\n".join(lines) + b"\n"):
            row = next(row for row, line in enumerate(lines) if not _INTEGERS.fullmatch(line + b"\n"))
            raise bad_id(name, first + row, lines[row].decode(errors="replace"))
        return as_chunk_ids(np.array(lines, dtype="S19").astype(np.uint64), first, name)
