"""Looks up the chunks of a file's rows, and which of them already have a vector.

Planned each time, since the tables grow. OFFSET 0 forces one index lookup for each id: for some thousands of ids
the planner would otherwise scan a small table, for each slice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg import sql

from revector.core.chunks import document_uuid
from revector.core.database import Connection
from revector.core.errors import UsageError
from revector.core.registry import Version

if TYPE_CHECKING:
    from numpy.typing import NDArray


def look_up(connection: Connection, ids: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The chunk ids (n,) for chunk ids, semantic keys or source ids (n,), and which of them exist.

    Raises UsageError for the source id of a document with several chunks.
    """
    if ids.dtype.kind == "S":
        return _look_up_keys(connection, ids)
    if ids.dtype.kind == "O":
        return _look_up_documents(connection, ids.tolist())
    if _is_dense(ids):
        query = "SELECT id FROM document_chunks WHERE id BETWEEN %s AND %s"
        rows = connection.execute(query, [int(ids.min()), int(ids.max())], prepare=False)
        return ids, np.isin(ids, [row[0] for row in rows])
    rows = connection.execute(
        """
        SELECT i.id FROM unnest(%s::bigint[]) AS i(id) LEFT JOIN LATERAL (
            SELECT id FROM document_chunks WHERE id = i.id OFFSET 0) AS c ON true
        WHERE c.id IS NULL
        """,
        [ids.tolist()],
        prepare=False,
    )
    return ids, np.isin(ids, [row[0] for row in rows], invert=True)


def _look_up_keys(connection: Connection, keys: NDArray[np.bytes_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    row = connection.execute(
        """
        SELECT array_agg(c.id ORDER BY k.place)
        FROM unnest(%s::text[]) WITH ORDINALITY AS k(key, place) LEFT JOIN LATERAL (
            SELECT id FROM document_chunks WHERE semantic_key = k.key OFFSET 0) AS c ON true
        """,
        [keys.astype(str).tolist()],
        prepare=False,
    ).fetchone()
    found = row[0] or [] if row else []
    known = np.array([chunk is not None for chunk in found], dtype=np.bool_)
    return np.array([chunk or 0 for chunk in found], dtype=np.int64), known


def _look_up_documents(
    connection: Connection, source_ids: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    rows = connection.execute(
        """
        SELECT c.id, c.several FROM unnest(%s::uuid[]) WITH ORDINALITY AS d(id, place) LEFT JOIN LATERAL (
            SELECT min(id) AS id, count(*) > 1 AS several
            FROM (SELECT id FROM document_chunks WHERE document_id = d.id LIMIT 2 OFFSET 0) AS two) AS c ON true
        ORDER BY d.place
        """,
        [[document_uuid(one) for one in source_ids]],
        prepare=False,
    ).fetchall()
    for source_id, (_, several) in zip(source_ids, rows, strict=True):
        if several:
            raise UsageError(
                f"The document {source_id!r} has several chunks.",
                "A source id names the chunk of a document that has one. Name these by chunk id or semantic key: "
                "revector export KEY has them.",
            )
    known = np.array([row[0] is not None for row in rows], dtype=np.bool_)
    return np.array([row[0] or 0 for row in rows], dtype=np.int64), known


def have_vectors(connection: Connection, version: Version, chunk_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of these chunks (in ascending order) have a vector in the version."""
    none = np.zeros(len(chunk_ids), np.bool_)
    if not len(chunk_ids):
        return none
    bounds = [int(chunk_ids[0]), int(chunk_ids[-1])]
    between = sql.SQL("SELECT chunk_id FROM {} WHERE chunk_id BETWEEN %s AND %s ORDER BY chunk_id").format(
        version.table
    )
    # The usual case by one lookup: for a file in chunk order, none has a vector yet.
    if connection.execute(between + sql.SQL(" LIMIT 1"), bounds, prepare=False).fetchone() is None:
        return none
    if _is_dense(chunk_ids):
        rows = connection.execute(between, bounds, prepare=False)
    else:
        rows = connection.execute(
            sql.SQL(
                """
                SELECT e.chunk_id FROM unnest(%s::bigint[]) AS i(id) CROSS JOIN LATERAL (
                    SELECT chunk_id FROM {} WHERE chunk_id = i.id OFFSET 0) AS e
                """
            ).format(version.table),
            [chunk_ids.tolist()],
            prepare=False,
        )
    return np.isin(chunk_ids, [row[0] for row in rows])


def _is_dense(ids: NDArray[np.int64]) -> bool:
    """Whether reading all chunks between the smallest and the largest id costs little more than reading these."""
    return len(ids) > 0 and int(ids.max()) - int(ids.min()) < 4 * len(ids)


def lock_chunks(connection: Connection, chunk_ids: NDArray[np.int64]) -> list[int]:
    """Lock these chunks until the transaction ends, so that none can be deleted; returns those that exist."""
    rows = connection.execute(
        "SELECT id FROM document_chunks WHERE id = ANY(%s) ORDER BY id FOR KEY SHARE",
        [chunk_ids.tolist()],
        prepare=False,
    )
    return [row[0] for row in rows]
