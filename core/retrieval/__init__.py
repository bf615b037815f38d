"""Search: by the active version, by a named one, and two side by side.

Encoder and table always belong to one version. The search's own statement also reads which version is active:
when that moved since the query was encoded, the search is made again with the new one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from core import overlap as ranks
from core.database import Connection
from core.errors import RefusedError, UsageError
from core.index import DEFAULTS, candidates_query
from core.registry import Version, get_version, require_active

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from core.encoders import Encoder

ROLLBACK_VARIABLE = "RETRIEVAL_ROLLBACK_VERSION"
MAX_K = 1_000
MAX_EF_SEARCH = 1_000


@dataclass(frozen=True)
class Hit:
    """One result. `distance` has a meaning within its version only: never compare it with another's."""

    rank: int
    chunk_id: int
    semantic_key: str
    source_id: str
    chunk_no: int
    distance: float
    content: str


@dataclass(frozen=True)
class SearchResult:
    """The top-k of one version. `encode_s` and `search_s` are seconds on the clock."""

    query: str
    version_key: str
    hits: tuple[Hit, ...]
    encode_s: float
    search_s: float


@dataclass(frozen=True)
class Comparison:
    """The top-k of two versions for one query, and how alike they are."""

    query: str
    k: int
    primary: SearchResult
    candidate: SearchResult
    overlap: ranks.Overlap

    @property
    def primary_moves(self) -> list[ranks.Move]:
        """For each hit of the primary, where it goes in the candidate."""
        return ranks.moves(_keys(self.primary), _keys(self.candidate))[0]

    @property
    def candidate_moves(self) -> list[ranks.Move]:
        """For each hit of the candidate, where it comes from in the primary."""
        return ranks.moves(_keys(self.primary), _keys(self.candidate))[1]

    @property
    def overlap_by_depth(self) -> list[float]:
        """overlap@1 to overlap@k."""
        return ranks.overlap_by_depth(_keys(self.primary), _keys(self.candidate), self.k)


def _keys(result: SearchResult) -> list[str]:
    return [hit.semantic_key for hit in result.hits]


class EncoderCache:
    """Opens the encoder of a version once and keeps it; safe to share between threads."""

    def __init__(self, open_encoder: Callable[[str], Encoder] | None = None) -> None:
        self._open = open_encoder
        self._lock = threading.Lock()
        self._encoders: dict[int, Encoder] = {}

    def encoder(self, version: Version) -> Encoder:
        """The encoder that made the version's vectors.

        Raises RefusedError for a version that names none, UnreachableError when it cannot be opened.
        """
        with self._lock:
            if version.id not in self._encoders:
                self._encoders[version.id] = open_version_encoder(version, self._open)
            return self._encoders[version.id]


def open_version_encoder(version: Version, opener: Callable[[str], Encoder] | None = None) -> Encoder:
    """Open the encoder that a version was registered with. Raises RefusedError when it names none."""
    if not version.encoder_spec:
        raise RefusedError(
            f"Version {version.version_key} names no encoder that revector can open.",
            f"Give it one: revector versions adopt {version.version_key} --encoder SPEC",
        )
    if opener is not None:
        return opener(version.encoder_spec)
    from core.encoders import open_encoder

    return open_encoder(version.encoder_spec)


class Retriever:
    """Search a collection by its active version, on one connection of the caller's."""

    def __init__(self, connection: Connection, encoders: EncoderCache | None = None) -> None:
        self._connection = connection
        self._encoders = encoders or EncoderCache()

    def search(self, text: str, k: int = 10) -> SearchResult:
        """The top-k by the active version, or by the one that RETRIEVAL_ROLLBACK_VERSION pins.

        Raises RefusedError when no version is active, UsageError for an empty query or k outside 1 to 1,000.
        """
        pinned = os.environ.get(ROLLBACK_VARIABLE)
        if pinned:
            return self.search_version(text, get_version(self._connection, pinned), k)
        version = require_active(self._connection)
        while True:
            result, active = self._search(text, version, k)
            if active == version.version_key:
                return result
            version = require_active(self._connection)  # a flip came between: encode for the new one

    def search_version(self, text: str, version: Version, k: int = 10) -> SearchResult:
        """The top-k by one version, active or not."""
        return self._search(text, version, k)[0]

    def compare(self, text: str, primary: Version, candidate: Version, k: int = 10) -> Comparison:
        """The top-k of two versions for one query."""
        first = self.search_version(text, primary, k)
        second = self.search_version(text, candidate, k)
        return Comparison(text, k, first, second, ranks.compare(_keys(first), _keys(second), k))

    def _search(self, text: str, version: Version, k: int) -> tuple[SearchResult, str | None]:
        text = check_query(text)
        started = time.perf_counter()
        vector = self._encoders.encoder(version).encode_query(text)
        encoded = time.perf_counter()
        hits, active = search_vector(self._connection, version, vector, k)
        searched = time.perf_counter()
        return SearchResult(text, version.version_key, hits, encoded - started, searched - encoded), active


def search_vector(
    connection: Connection, version: Version, vector: NDArray[np.float32], k: int
) -> tuple[tuple[Hit, ...], str | None]:
    """The k nearest chunks of a query vector (d,), and the key of the version active at that moment.

    Raises UsageError for k outside 1 to 1,000, RefusedError when the version has no table or the vector
    another number of dimensions.
    """
    if not 1 <= k <= MAX_K:
        raise UsageError(f"k is {k}; expected 1 to {MAX_K}.")
    if vector.shape != (version.dimensions,):
        raise RefusedError(
            f"The query has {vector.shape} dimensions; version {version.version_key} has {version.dimensions}.",
            "Encode a query with the version's own encoder.",
        )
    from pgvector import Vector

    set_ef_search(connection, version, k)
    query = search_statement(version, k)
    try:
        rows = connection.execute(query, {"vector": Vector(vector).to_text()}).fetchall()
    except psycopg.errors.UndefinedTable:
        raise RefusedError(
            f"Version {version.version_key} has no vectors yet.",
            f"Backfill it: revector backfill run {version.version_key}",
        ) from None
    hits = tuple(Hit(rank, *row[1:]) for rank, row in enumerate(rows, 1) if row[1] is not None)
    return hits, rows[0][0] if rows else None


def ef_search_for(version: Version, k: int, wanted: int | None = None) -> int:
    """The ef_search of a top-k search: the wanted one or the version's, and never below k: no more would be found."""
    return min(MAX_EF_SEARCH, max(int(wanted or {**DEFAULTS, **version.index_settings}["ef_search"]), k))


def set_ef_search(connection: Connection, version: Version, k: int) -> int:
    """Set the session's hnsw.ef_search for a top-k search of this version; returns it."""
    ef_search = ef_search_for(version, k)
    connection.execute("SELECT set_config('hnsw.ef_search', %s, false)", [str(ef_search)])
    return ef_search


def search_statement(version: Version, k: int) -> sql.Composed:
    """SQL of a search: the active version's key, then what a Hit has. The query vector is the parameter `vector`."""
    return sql.SQL(
        """
        WITH nearest AS MATERIALIZED ({})
        SELECT a.version_key, n.chunk_id, c.semantic_key, c.source_id, c.chunk_no, n.distance, c.content
        FROM (SELECT (SELECT version_key FROM embedding_versions WHERE active) AS version_key) a
        LEFT JOIN (nearest n JOIN document_chunks c ON c.id = n.chunk_id) ON true
        ORDER BY n.distance, n.chunk_id
        """
    ).format(candidates_query(version, k))


def check_query(text: str) -> str:
    """A query without NUL bytes and lone surrogates, which Postgres cannot take; raises UsageError when empty."""
    clean = text.replace("\0", "").encode("utf-8", "ignore").decode("utf-8").strip()
    if not clean:
        raise UsageError("The query is empty.", "Type some text to search for.")
    return clean
