"""What the tests of loads need: chunks with real semantic keys, versions without an encoder, and files of vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from revector.core.database import Connection
from revector.core.registry import Version, create_table, get_version

DIMENSIONS = 8


def new_chunks(connection: Connection, count: int, start: int = 1) -> tuple[NDArray[np.int64], list[str]]:
    """Chunks of texts number start, start + 1, …: their ids and semantic keys."""
    rows = connection.execute(
        """
        INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256, source_id)
        SELECT encode(sha256(('key ' || n)::bytea), 'hex'), gen_random_uuid(), 0, 'text ' || n,
               sha256(('text ' || n)::bytea), 'doc-' || n
        FROM generate_series(%s::int, %s) AS n
        RETURNING id, semantic_key
        """,
        [start, start + count - 1],
    ).fetchall()
    return np.array([row[0] for row in rows], dtype=np.int64), [row[1] for row in rows]


def new_version(
    connection: Connection, key: str = "v1", dimensions: int = DIMENSIONS, storage: str = "vector"
) -> Version:
    """A version as plain SQL would register it."""
    connection.execute(
        """
        INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, distance_metric,
                                        storage)
        VALUES (%s, 'elsewhere', '1', %s, 'cosine', %s)
        """,
        [key, dimensions, storage],
    )
    return get_version(connection, key)


def random_vectors(rows: int, dimensions: int = DIMENSIONS, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, dimensions), dtype=np.float32)


def write_npy(folder: Path, vectors: NDArray[np.generic], ids: NDArray[np.generic] | None = None) -> Path:
    """vectors.npy, with vectors.ids.npy beside it."""
    path = folder / "vectors.npy"
    np.save(path, vectors)
    if ids is not None:
        np.save(folder / "vectors.ids.npy", ids)
    return path


def stored(connection: Connection, version: Version) -> dict[int, bytes]:
    """The numbers of each chunk's vector as Postgres sends them."""
    create_table(connection, version)
    send = sql.SQL("vector_send" if version.storage == "vector" else "halfvec_send")
    query = sql.SQL("SELECT chunk_id, {}(embedding) FROM {}").format(send, version.table)
    return {chunk_id: data[4:] for chunk_id, data in connection.execute(query)}


def expected(ids: NDArray[np.int64], vectors: NDArray[np.floating], storage: str = "vector") -> dict[int, bytes]:
    """What `stored` says when these, and no others, are stored."""
    number = ">f4" if storage == "vector" else ">f2"
    rows = zip(ids.tolist(), vectors.astype(np.float32).astype(number), strict=True)
    return {chunk_id: row.tobytes() for chunk_id, row in rows}
