"""Vectors and their ids in two columns of a Parquet file, streamed by record batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revector.core.vectors.columns import ColumnFile, choose_columns, first_length, need_pyarrow, readable
from revector.core.vectors.slices import IdKind
from revector.core.vectors.source import digest, fingerprint, opened, shown

if TYPE_CHECKING:
    import pyarrow as pa

_BUFFER = 1024 * 1024


@dataclass(frozen=True)
class ParquetFile(ColumnFile):
    """A Parquet file of vectors."""

    def read(self, start: int, size: int, columns: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Batches of `size` rows; row groups before `start` are not read."""
        with _parquet(self.path) as file:
            groups, first = _groups_from(file, start)
            for batch in file.iter_batches(size, row_groups=groups, columns=columns, use_threads=False):
                yield first, batch
                first += batch.num_rows


def open_parquet(
    path: Path, id_column: str | None, vector_column: str, ids_are: IdKind | None = None
) -> ParquetFile:
    """Open a Parquet file with vectors. Raises UsageError for one that cannot be read or lacks the columns."""
    need_pyarrow("Parquet")
    with _parquet(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        id_column, id_kind, dimensions = choose_columns(path, schema, id_column, vector_column, ids_are)
        if dimensions is None:
            dimensions = first_length(file.iter_batches(64, columns=[vector_column]), vector_column)
    more = ["source ids"] if id_kind == "source ids" else []
    name = fingerprint("parquet", id_column, vector_column, digest(path), *more)
    return ParquetFile(shown(path), rows, dimensions, id_kind, name, path, id_column, vector_column)


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """The opened file; pyarrow's errors, here or while reading, become UsageErrors."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # A buffered stream for each column, so that row groups are not read into memory whole.
    with (
        opened(path),
        readable(path),
        pa.OSFile(str(path)) as file,
        pq.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False, page_checksum_verification=True) as found,
    ):
        yield found


def _groups_from(file: Any, start: int) -> tuple[list[int], int]:
    """The row groups with rows from `start` on, and the number of their first row."""
    first = 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if first + rows > start:
            return list(range(group, file.metadata.num_row_groups)), first
        first += rows
    return [], start
