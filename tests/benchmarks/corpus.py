"""Data for the backfill benchmarks: chunks made by the server, and an encoder that costs nothing.

A text begins with its own number, and the encoder looks that row up in a matrix: what is timed with it is the
pipeline and nothing else. All texts differ, so that no vector is copied from a chunk with the same text.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from psycopg import sql

from revector.core.backfill.job.settings import JobSettings
from revector.core.database import Connection, Database
from revector.core.registry import Version, create_table, drop_version, get_version, retire_version, versions
from tests.versions import worker_on

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from revector.core.encoders import Encoder

_DIGITS = 9
_WORDS = (
    "the of to and in for is on that with as be this are or from at by key rotate token server client request "
    "index vector search chunk version document table column query database encoder model batch worker lease range "
    "cursor error retry limit rate budget price deploy alert latency cache shard replica backup restore user account "
    "password session policy region bucket network gateway timeout socket buffer memory disk kernel thread process "
    "signal metric trace log dashboard incident runbook owner team release branch commit review test build"
)
LONG_TEXT = 48
"""Words of a text of some 300 characters."""

BATCH = 8_192
"""What a batch grows to with an encoder as fast as this."""


@dataclass
class FreeEncoder:
    """Answers with the rows of a matrix (n, d)."""

    vectors: NDArray[np.float32]
    name: str = "precomputed:matrix"
    revision: str = "1"
    max_tokens: int | None = None
    price: float | None = 0.0

    @property
    def dimensions(self) -> int:
        return int(self.vectors.shape[1])

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(self.vectors[[int(text[:_DIGITS]) - 1 for text in texts]])

    def encode_query(self, text: str) -> NDArray[np.float32]:
        return np.asarray(self.vectors[int(text[:_DIGITS]) - 1])

    def count_tokens(self, texts: Sequence[str]) -> int:
        return 0

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Backfilled:
    """When one worker's run began, first asked its encoder, stored its last batch and ended (perf_counter)."""

    began: float
    asked: float
    stored: float
    ended: float


def random_vectors(rows: int, dimensions: int) -> NDArray[np.float32]:
    """A matrix (rows, dimensions) of which no row is zero."""
    return np.random.default_rng(dimensions).standard_normal((rows, dimensions), dtype=np.float32)


def fill(connection: Connection, chunks: int, *, words: int) -> NDArray[np.int64]:
    """Insert chunks with texts of so many words, ten chunks a document; returns their ids (chunks,) in order."""
    connection.execute("SET synchronous_commit = off")
    connection.execute(
        """
        INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256, source_id)
        SELECT 'key-' || n, md5((n / 10)::text)::uuid, n %% 10, content, sha256(convert_to(content, 'UTF8')),
               'doc-' || n / 10
        FROM generate_series(1, %(chunks)s) AS n, LATERAL (
            SELECT lpad(n::text, %(digits)s, '0') || ' ' || string_agg(
                       (%(words)s::text[])[1 + abs(hashint8(n::bigint * 1000 + k)) %% cardinality(%(words)s::text[])],
                       ' ') AS content
            FROM generate_series(1, %(length)s) AS k) AS made
        ORDER BY n
        """,
        {"chunks": chunks, "digits": _DIGITS, "words": _WORDS.split(), "length": words},
    )
    connection.execute("SET synchronous_commit = on")
    connection.execute("VACUUM ANALYZE document_chunks")
    rows = connection.execute("SELECT id FROM document_chunks ORDER BY id").fetchall()
    return np.array([row[0] for row in rows], dtype=np.int64)


def fresh_version(connection: Connection, dimensions: int) -> Version:
    """A version with an empty table, after dropping existing ones; then a CHECKPOINT."""
    number = 1
    for old in versions(connection):
        number = int(old.version_key.rpartition("-")[2]) + 1
        retire_version(connection, old.version_key)
        drop_version(connection, old.version_key)
    key = f"bench-{number}"
    connection.execute(
        """
        INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, distance_metric)
        VALUES (%s, 'precomputed', '1', %s, 'cosine')
        """,
        [key, dimensions],
    )
    version = get_version(connection, key)
    create_table(connection, version)
    connection.execute("CHECKPOINT")
    return version


def backfill(database: Database, version: Version, encoder: Encoder, *, batch_size: int = BATCH) -> Backfilled:
    """One worker's run in this process, from its start to the end of the proof."""
    stored = 0.0

    def on_batch(_stored: int) -> None:
        nonlocal stored
        stored = time.perf_counter()

    asked: list[float] = []
    began = time.perf_counter()
    result = worker_on(
        database, version, _Noted(encoder, asked), JobSettings(batch_size), on_batch=on_batch
    ).join()
    if result.state != "done":
        raise RuntimeError(f"the backfill ended as {result.state}: {result.error}")
    return Backfilled(began, asked[0], stored, time.perf_counter())


class _Noted:
    """The encoder, recording the time of its first call."""

    def __init__(self, encoder: Encoder, asked: list[float]) -> None:
        self._encoder, self._asked = encoder, asked
        self.name, self.revision, self.dimensions = encoder.name, encoder.revision, encoder.dimensions
        self.max_tokens, self.price = encoder.max_tokens, encoder.price

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if not self._asked:
            self._asked.append(time.perf_counter())
        return self._encoder.encode_documents(texts)

    def encode_query(self, text: str) -> NDArray[np.float32]:
        return self._encoder.encode_query(text)

    def count_tokens(self, texts: Sequence[str]) -> int:
        return self._encoder.count_tokens(texts)

    def close(self) -> None:
        pass


def rows_in(connection: Connection, version: Version) -> int:
    """How many vectors a version's table really holds."""
    query = sql.SQL("SELECT count(*) FROM {}").format(version.table)
    return int(connection.execute(query).fetchone()[0])  # type: ignore[index]
