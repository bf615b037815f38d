"""Vectors and their ids in two columns of record batches, as Parquet and Arrow files have them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from revector.core.errors import UsageError
from revector.core.vectors.slices import (
    ID_NAMES,
    IdKind,
    Slice,
    VectorFile,
    as_chunk_ids,
    as_source_ids,
    bad_id,
    key_array,
    slice_rows,
)
from revector.core.vectors.source import shown

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

BATCHES = 8
"""Of which a slice is put together."""


@dataclass(frozen=True)
class ColumnFile(VectorFile):
    """A file of vectors, with their ids in a column."""

    path: Path
    id_column: str
    vector_column: str

    def slices(self, start: int) -> Iterator[Slice]:
        """All rows from `start` on."""
        dimensions = self.dimensions or 0
        for first, batch in self._batches(start, self.rows, [self.id_column, self.vector_column]):
            ids = self._ids(batch.column(0), first)
            vectors, bad = _vectors(batch.column(1), dimensions)
            yield Slice(first, ids, vectors, bad)

    def ids(self, start: int, stop: int) -> Iterator[NDArray[Any]]:
        """The ids of the rows from `start` to before `stop`."""
        for first, batch in self._batches(start, stop, [self.id_column]):
            yield self._ids(batch.column(0), first)

    def read(self, start: int, size: int, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Batches of `size` rows, or as the file has them, from that of row `start` on, each with its first row."""
        raise NotImplementedError

    def _batches(self, start: int, stop: int, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Batches of about one size, each with its first row's number."""
        size = slice_rows(self.dimensions or 1, 4)
        waiting: list[pa.RecordBatch] = []
        # pyarrow takes about five times a batch's memory, so batches are small, and combined (like those of
        # small row groups) until they are worth a transaction.
        for first, batch in self.read(start, max(1, size // BATCHES), columns):
            if first >= stop:
                break
            kept = batch.slice(max(0, start - first), stop - max(start, first))
            if kept.num_rows:
                waiting.append(kept.select(columns))
            if sum(one.num_rows for one in waiting) >= size:
                yield from _put_together(waiting, start, size)
                start += sum(one.num_rows for one in waiting)
                waiting = []
        yield from _put_together(waiting, start, size)
        start += sum(one.num_rows for one in waiting)
        if start != stop:
            raise UsageError(
                f"{self.name} has {start:,} rows; its footer says {self.rows:,}.", "Write the file again."
            )

    def _ids(self, column: pa.Array, first: int) -> NDArray[Any]:
        import pyarrow as pa

        if column.null_count:
            raise bad_id(self.name, first + column.is_null().to_pylist().index(True), None)
        if self.id_kind == "chunk ids":
            return as_chunk_ids(column.to_numpy(zero_copy_only=False), first, self.name)
        if self.id_kind == "source ids":
            return as_source_ids(column.cast(pa.large_string()).to_pylist(), first, self.name)
        return key_array(column.cast(pa.large_binary()).to_pylist(), first, self.name)


def choose_columns(
    path: Path, schema: pa.Schema, id_column: str | None, vector_column: str, ids_are: IdKind | None
) -> tuple[str, IdKind, int | None]:
    """The column of ids, their kind, and the dimensions where the type says them.

    Raises UsageError for a schema that lacks the columns, or has others of those names.
    """
    import pyarrow as pa
    import pyarrow.types as kinds

    if id_column is None:
        id_column = next((name for name in ID_NAMES if name in schema.names), None)
    if id_column is None:
        raise _no_column(path, " or ".join(ID_NAMES), "--id-column", schema.names)
    for column, option in ((id_column, "--id-column"), (vector_column, "--vector-column")):
        if schema.names.count(column) != 1:
            raise _no_column(path, column, option, schema.names)
    id_type = schema.field(id_column).type
    if kinds.is_dictionary(id_type):
        id_type = id_type.value_type
    text = kinds.is_string(id_type) or kinds.is_large_string(id_type) or kinds.is_string_view(id_type)
    named = ids_are or ID_NAMES.get(id_column)
    if named == "source ids" and (text or kinds.is_integer(id_type)):
        id_kind: IdKind = "source ids"
    elif kinds.is_integer(id_type):
        id_kind = "chunk ids"
    elif text:
        id_kind = "semantic keys"
    else:
        raise UsageError(
            f"{shown(path)}: the column {id_column!r} is of type {id_type}.",
            "Expected chunk ids (integers) or semantic keys (strings of 64 hex digits).",
        )
    given = schema.field(vector_column).type
    kind = given.storage_type if isinstance(given, pa.BaseExtensionType) else given  # a tensor's is a list
    is_list = kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)
    if not is_list or not kinds.is_floating(kind.value_type):
        raise UsageError(
            f"{shown(path)}: the column {vector_column!r} is of type {given}.",
            "Expected a list of float16, float32 or float64.",
        )
    return id_column, id_kind, int(kind.list_size) if kinds.is_fixed_size_list(kind) else None


def need_pyarrow(what: str) -> None:
    """Raise UsageError where pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UsageError(
            f"Reading {what} needs pyarrow, which is not installed.", "pip install 'revector[parquet]'"
        ) from None


@contextmanager
def readable(path: Path, how: str = "") -> Iterator[None]:
    """pyarrow's errors, and ours about what it would read, become UsageErrors; `how` ends "cannot be read"."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, struct.error, ValueError, OSError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise UsageError(
            f"{shown(path)} cannot be read{how}: {reason[:200]}.", "It may have been cut off: write it again."
        ) from None
    except MemoryError:
        raise UsageError(f"{shown(path)} asks for more memory than there is.", "Write it again.") from None


def first_length(batches: Iterator[pa.RecordBatch], name: str) -> int | None:
    """The dimensions of the first vector; None when there is none."""
    for batch in batches:
        for vector in _storage(batch.column(name)):
            if vector.is_valid:
                return len(vector)
    return None


def _put_together(batches: list[pa.RecordBatch], first: int, size: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    import pyarrow as pa

    if not batches:
        return
    whole = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
    for start in range(0, whole.num_rows, size):
        yield first + start, whole.slice(start, size)


def _storage(column: pa.Array) -> pa.Array:
    import pyarrow as pa

    return column.storage if isinstance(column, pa.ExtensionArray) else column


def _vectors(column: pa.Array, dimensions: int) -> tuple[NDArray[Any], dict[int, str]]:
    """The vectors (n, d), and the invalid rows: null, or of another length. Those are set to zeros."""
    import pyarrow.compute as pc

    column = _storage(column)
    # Null numbers become NaN, which is rejected later.
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    good = lengths == dimensions  # a null's length is NaN
    if good.all():
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), dimensions), {}
    numbers = column.filter(good).flatten().to_numpy(zero_copy_only=False).reshape(int(good.sum()), dimensions)
    vectors = np.zeros((len(column), dimensions), numbers.dtype)
    vectors[good] = numbers
    bad = {}
    for row in np.flatnonzero(~good).tolist():
        length = lengths[row]
        bad[row] = "is null" if np.isnan(length) else f"has {int(length):,} dimensions in place of {dimensions:,}"
    return vectors, bad


def _no_column(path: Path, column: str, option: str, names: list[str]) -> UsageError:
    known = ", ".join(names[:20]) or "none"
    twice = "more than one column" if names.count(column) > 1 else "no column"
    return UsageError(f"{shown(path)} has {twice} {column}.", f"Name it: {option} NAME, of {known}.")
