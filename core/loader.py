"""Loads vectors into a version's table by binary COPY.

NumPy writes the row image, since all rows of a version have the same width: per row (all big-endian) an
int16 field count, an int32 length and the int64 chunk id, an int32 length and pgvector's own format, which is
int16 dimensions, int16 zero and then the float32s (float16s for halfvec). See "Binary Format" of Postgres'
COPY, and vector_recv in pgvector's src/vector.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg import sql

from revector.core.database import Connection, fetch_column
from revector.core.errors import EncoderError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from revector.core.registry import Storage, Version

COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_TRAILER = b"\xff\xff"

# The most that psycopg hands to libpq in one piece; it would split larger ones. Smaller slices cost more of NumPy's
# calls: 100,000 × 384 take 41 ms to check and fill at 32 KiB, 29 at 64, 22 at 128, and 20 at 256.
_SLICE_BYTES = 128 * 1024


def lock_for_writing(connection: Connection, version: Version) -> None:
    """Wait until the version's table takes rows, first thing in a transaction that then locks chunks.

    An index build holds up writers of vectors. One that waits for it must not hold a chunk that a user deletes.
    """
    connection.execute(sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(version.table))


def copy_vectors(
    connection: Connection,
    version: Version,
    chunk_ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    *,
    into: sql.Identifier | None = None,
) -> int:
    """COPY vectors (n, d) for chunk ids (n,) into the version's table, or one with the same columns; returns n.

    All or nothing, in the caller's transaction if there is one. Every vector is checked: raises EncoderError for a
    wrong shape and for the first row that would be stored as non-finite or zero, psycopg's UniqueViolation for a
    chunk that already has a vector.
    """
    _check_shape(version, chunk_ids, vectors)
    if len(chunk_ids) == 0:
        return 0
    rows = row_buffer(version.dimensions, version.storage)
    statement = sql.SQL("COPY {} (chunk_id, embedding) FROM STDIN WITH (FORMAT BINARY)").format(
        into or version.table
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(COPY_HEADER)
        for start in range(0, len(chunk_ids), len(rows)):
            part = rows[: len(chunk_ids) - start]
            stop = start + len(part)
            fill_rows(part, chunk_ids[start:stop], vectors[start:stop])
            # A view, not a copy: libpq has copied the bytes when this returns.
            copy.write(part.view(np.uint8).data)
        copy.write(COPY_TRAILER)
    return len(chunk_ids)


def insert_missing(
    connection: Connection, version: Version, chunk_ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Like `copy_vectors`, but skips chunks that have a vector by now; returns the ids (m,) that were stored.

    For concurrent writers of the same chunks: COPY has no ON CONFLICT, so this uses a temporary table, at about
    half the speed. Needs a transaction of the caller. Ascending ids prevent deadlocks between two such calls.
    """
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE staged_vectors (LIKE {}) ON COMMIT DROP").format(version.table)
    )
    staged = sql.Identifier("pg_temp", "staged_vectors")
    copy_vectors(connection, version, chunk_ids, vectors, into=staged)
    stored = fetch_column(
        connection,
        sql.SQL(
            "INSERT INTO {} (chunk_id, embedding) SELECT chunk_id, embedding FROM {} ORDER BY chunk_id "
            "ON CONFLICT DO NOTHING RETURNING chunk_id"
        ).format(version.table, staged),
    )
    return np.array(stored, dtype=np.int64)


def row_buffer(dimensions: int, storage: Storage) -> NDArray[np.void]:
    """A reusable buffer of rows, up to 128 KiB, with all fixed fields filled in."""
    number = ">f4" if storage == "vector" else ">f2"
    layout = np.dtype(
        [
            ("fields", ">i2"),
            ("id_length", ">i4"),
            ("id", ">i8"),
            ("embedding_length", ">i4"),
            ("dimensions", ">i2"),
            ("unused", ">i2"),
            ("embedding", number, (dimensions,)),
        ]
    )
    rows = np.zeros(max(1, _SLICE_BYTES // layout.itemsize), layout)
    rows["fields"] = 2
    rows["id_length"] = 8
    rows["embedding_length"] = 4 + layout["embedding"].itemsize
    rows["dimensions"] = dimensions
    return rows


def fill_rows(
    rows: NDArray[np.void], chunk_ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> NDArray[np.void]:
    """Write ids and vectors into rows; raises EncoderError for a vector that must not be stored."""
    number = rows["embedding"].dtype.newbyteorder("=")
    with np.errstate(all="ignore"):
        stored = vectors.astype(number, copy=False)
        checked = stored.astype(np.float32, copy=False)
        # The squared length, in one pass over the data, is finite and above zero for nearly every good vector and
        # for no bad one. Otherwise (float32 may overflow or underflow) the vectors are checked in full.
        squares = np.vecdot(checked, checked)
        if not (np.isfinite(squares) & (squares > 0)).all():
            _refuse_bad_row(chunk_ids, vectors, stored)
    rows["id"] = chunk_ids
    rows["embedding"] = stored
    return rows


def _refuse_bad_row(chunk_ids: NDArray[Any], vectors: NDArray[np.float32], stored: NDArray[Any]) -> None:
    """Raise for the first row whose numbers, as they would be stored, are not finite or all zero."""
    bad = ~np.isfinite(stored).all(axis=1) | ~stored.any(axis=1)
    if not bad.any():
        return
    row = int(bad.argmax())
    vector, name = vectors[row], f"The vector of chunk {chunk_ids[row]}"
    nothing_stored = "The batch was not stored."
    if not np.isfinite(vector).all():
        raise EncoderError(f"{name} has a NaN or an infinite number.", nothing_stored)
    if not vector.any():
        raise EncoderError(f"{name} is zero: a cosine index would silently leave it out.", nothing_stored)
    problem = "is zero in" if np.isfinite(stored[row]).all() else "has a number beyond the 65,504 of"
    raise EncoderError(f"{name} {problem} halfvec.", "Use storage vector, or an encoder that normalises.")


def _check_shape(version: Version, chunk_ids: NDArray[Any], vectors: NDArray[Any]) -> None:
    expected = (len(chunk_ids), version.dimensions)
    if vectors.shape != expected or vectors.dtype != np.float32:
        raise EncoderError(
            f"Version {version.version_key} expects float32 vectors of shape {expected}, "
            f"not {vectors.dtype} of {vectors.shape}.",
            "Check the encoder's dimensions before a backfill starts.",
        )
