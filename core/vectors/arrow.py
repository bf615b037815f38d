"""Vectors and their ids in two columns of an Arrow IPC stream or file, as `datasets` saves them.

A file of Arrow's is a stream between two magics. Each message's own description is read first, by hand: Arrow trusts
the lengths in it, and takes as much memory as a hostile one says.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from revector.core.vectors.columns import ColumnFile, choose_columns, first_length, need_pyarrow, readable
from revector.core.vectors.slices import IdKind
from revector.core.vectors.source import digest, fingerprint, opened, shown

if TYPE_CHECKING:
    from io import FileIO

    import pyarrow as pa

FILE_MAGIC = b"ARROW1\0\0"
STREAM_MAGIC = b"\xff\xff\xff\xff"
_MOST_DESCRIPTION = 16 * 1024 * 1024
_MOST_BATCH = 1024 * 1024 * 1024
"""Bytes of a record batch, which is in memory as a whole."""
_MOST_BUFFERS = 100_000
_SCHEMA, _DICTIONARY, _RECORDS = 1, 2, 3


@dataclass(frozen=True)
class _Batch:
    """Where a message with rows is in the file."""

    offset: int
    bytes: int
    first: int
    rows: int


@dataclass(frozen=True)
class ArrowFile(ColumnFile):
    """An Arrow stream or file of vectors."""

    schema: pa.Schema
    batches: tuple[_Batch, ...]

    def read(self, start: int, size: int, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The file's own batches."""
        with opened(self.path) as file:
            for one in self.batches:
                if one.first + one.rows > start:
                    yield one.first, _read(self.path, file, self.schema, one).select(columns)


def open_arrow(path: Path, id_column: str | None, vector_column: str, ids_are: IdKind | None = None) -> ArrowFile:
    """Open an Arrow stream or file. Raises UsageError for one that cannot be read or lacks the columns."""
    need_pyarrow("Arrow")
    with opened(path) as file, readable(path, " as Arrow"):  # names in a schema need not be UTF-8
        schema, batches = _look_through(path, file)
        id_column, id_kind, dimensions = choose_columns(path, schema, id_column, vector_column, ids_are)
        if dimensions is None:
            dimensions = first_length((_read(path, file, schema, one) for one in batches), vector_column)
    rows = sum(one.rows for one in batches)
    name = fingerprint("arrow", id_column, vector_column, digest(path), id_kind)
    return ArrowFile(shown(path), rows, dimensions, id_kind, name, path, id_column, vector_column, schema, batches)


def _look_through(path: Path, file: FileIO) -> tuple[pa.Schema, tuple[_Batch, ...]]:
    """The schema, and where the record batches are, from the messages' descriptions alone."""
    import pyarrow as pa

    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    place = len(FILE_MAGIC) if file.read(len(FILE_MAGIC)) == FILE_MAGIC else 0
    schema, batches, first = None, [], 0
    with readable(path, " as Arrow"):
        while place + 8 <= size:
            file.seek(place)
            marker, length = struct.unpack("<4si", file.read(8))
            if marker != STREAM_MAGIC or not 0 <= length <= min(_MOST_DESCRIPTION, size - place - 8):
                raise ValueError(f"at byte {place:,} there is no message")
            if length == 0:  # the end of the stream
                break
            message = _Message(file.read(length))
            whole = 8 + length + message.body
            if not 0 <= message.body <= size - place - 8 - length:
                raise ValueError(f"the message at byte {place:,} says it is longer than the file")
            if message.kind == _SCHEMA and schema is None:
                file.seek(place)
                schema = pa.ipc.read_schema(pa.py_buffer(file.read(whole)))
            elif message.kind == _DICTIONARY:
                raise ValueError("it has dictionaries. Save the ids and vectors as plain columns")
            elif message.kind == _RECORDS and schema is not None:
                taken = message.decompressed(file, place + 8 + length)
                if max(taken, message.body) > _MOST_BATCH:
                    raise ValueError(
                        f"the record batch at byte {place:,} takes {max(taken, message.body):,} bytes; "
                        f"at most {_MOST_BATCH:,} are read"
                    )
                if not 0 <= message.rows < 2**40:
                    raise ValueError(f"the record batch at byte {place:,} says it has {message.rows:,} rows")
                batches.append(_Batch(place, whole, first, message.rows))
                first += message.rows
            place += whole
        if schema is None:
            raise ValueError("it has no schema")
    return schema, tuple(batches)


def _read(path: Path, file: FileIO, schema: pa.Schema, batch: _Batch) -> pa.RecordBatch:
    import pyarrow as pa

    with readable(path, " as Arrow"):
        file.seek(batch.offset)
        data = file.read(batch.bytes)
        if len(data) < batch.bytes:
            raise ValueError("it was cut off while it was read")
        found = pa.ipc.read_record_batch(pa.py_buffer(data), schema)
        found.validate(full=True)  # lengths and offsets, which nothing checks later
        return found


class _Message:
    """A message's description: a table of Arrow's Message.fbs in the format of flatbuffers."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        (root,) = struct.unpack_from("<I", data)
        self.kind = self._number(root, 1, "<B")
        self.body = self._number(root, 3, "<q")
        self._header = self._follow(root, 2)
        self.rows = self._number(self._header, 0, "<q") if self.kind == _RECORDS else 0

    def decompressed(self, file: FileIO, body: int) -> int:
        """The bytes that a record batch's buffers say they take when decompressed; 0 when they are not compressed."""
        if self._place(self._header, 3) is None:
            return 0
        buffers, taken = self._follow(self._header, 2), 0
        (count,) = struct.unpack_from("<I", self._data, buffers)
        if count > _MOST_BUFFERS:
            raise ValueError(f"a record batch has {count:,} buffers")
        for number in range(count):
            offset, length = struct.unpack_from("<qq", self._data, buffers + 4 + 16 * number)
            if length and not 0 <= offset <= offset + length <= self.body:
                raise ValueError("a buffer is outside of its message")
            if length >= 8:
                file.seek(body + offset)
                (says,) = struct.unpack("<q", file.read(8))
                taken += says if says >= 0 else length  # -1: this one is not compressed
        return taken

    def _place(self, table: int, field: int) -> int | None:
        """Where a field of a table is; None when it is left out."""
        (back,) = struct.unpack_from("<i", self._data, table)
        names = table - back
        if names < 0:
            raise ValueError("a message has no description")
        (size,) = struct.unpack_from("<H", self._data, names)
        if size < 6 + 2 * field:
            return None
        (offset,) = struct.unpack_from("<H", self._data, names + 4 + 2 * field)
        return table + offset if offset else None

    def _number(self, table: int, field: int, kind: str) -> int:
        place = self._place(table, field)
        return 0 if place is None else int(struct.unpack_from(kind, self._data, place)[0])

    def _follow(self, table: int, field: int) -> int:
        place = self._place(table, field)
        if place is None:
            raise ValueError("a message has no header")
        return place + int(struct.unpack_from("<I", self._data, place)[0])
