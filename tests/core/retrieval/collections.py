"""Collections for searches: vectors drawn at random, and two versions of one dimension that must not be mixed up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from revector.core.database import Connection, Database
from revector.core.index import build
from revector.core.loader import copy_vectors
from revector.core.registry import Version, create_table, get_version
from revector.core.settings import Settings
from tests.versions import add_chunks, ready_version

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST = "static:wordllama-64"
SECOND = "static:wordllama-64?document_prefix=zebra+crossing+&query_prefix=zebra+crossing+"
"""The same dimensions as FIRST but other vectors: only the distances show when the two are mixed up."""


def two_versions(database: Database, connection: Connection, texts: list[str]) -> None:
    """The versions v1 (active) and v2: a text that is searched for is at distance 0, by either."""
    add_chunks(connection, texts)
    ready_version(database, connection, "v1", FIRST)
    ready_version(database, connection, "v2", SECOND)
    flip(connection, "v1")


def flip(connection: Connection, key: str) -> None:
    """As psql would."""
    connection.execute("UPDATE embedding_versions SET active = (version_key = %s)", [key])


def drawn_version(
    connection: Connection,
    key: str,
    vectors: NDArray[np.float32],
    *,
    metric: str = "cosine",
    storage: str = "vector",
    built: bool = True,
) -> Version:
    """A version, ready, of given vectors (n, d) for the first n chunks."""
    connection.execute(
        """
        INSERT INTO embedding_versions
            (version_key, encoder_name, encoder_revision, dimensions, distance_metric, storage)
        VALUES (%s, 'drawn', '1', %s, %s, %s)
        """,
        [key, vectors.shape[1], metric, storage],
    )
    version = get_version(connection, key)
    create_table(connection, version)
    ids = connection.execute("SELECT id FROM document_chunks ORDER BY id LIMIT %s", [len(vectors)]).fetchall()
    copy_vectors(connection, version, np.array([chunk for (chunk,) in ids]), vectors)
    connection.execute("INSERT INTO row_counts (scope, delta) VALUES (%s, %s)", [version.id, len(vectors)])
    connection.execute(
        "UPDATE embedding_versions SET state = 'loaded', completed_at = now() WHERE id = %s", [version.id]
    )
    if built:
        build(connection, version, Settings())
    return get_version(connection, key)


def chunks_with_metadata(connection: Connection, count: int, metadata: str) -> None:
    """So many chunks; `metadata` is SQL of the chunk's number n, from 1."""
    connection.execute(
        f"""
        INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256, source_id, metadata)
        SELECT 'key-' || n, gen_random_uuid(), 0, 'text ' || n, sha256(n::text::bytea), 'doc-' || n, {metadata}
        FROM generate_series(1, {count}) AS n ORDER BY n
        """  # noqa: S608
    )
    connection.execute("ANALYZE document_chunks")
