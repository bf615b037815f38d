"""Why a version ranks a chunk where it does: the search explained, and the chunk's rank without an index.

The ranks with and without the index separate the model from its index: a chunk that only the exact search finds
was lost by the index, not ranked low by the model.
"""

from __future__ import annotations

import datetime
import re
import time
import uuid
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from revector.core import index
from revector.core.database import Connection, fetch_one
from revector.core.index import DEFAULTS, IndexState
from revector.core.registry import Version
from revector.core.retrieval import (
    EncoderCache,
    SearchResult,
    check_options,
    check_query,
    ef_search_for,
    encoded_vector,
    search_statement,
    search_vector,
)

_VECTOR = re.compile(r"'\[[^\]']*\]'")


@dataclass(frozen=True)
class ChunkFacts:
    """A chunk's data other than its text."""

    chunk_id: int
    document_id: uuid.UUID
    metadata: dict[str, Any]
    created_at: datetime.datetime


@dataclass(frozen=True)
class Explanation:
    """One version's search for a query, and one chunk in it.

    `distance` and the ranks only have a meaning within this version. `rank` is the chunk's rank among the
    `result`'s hits, None if it is not one; `exact_rank` is its rank among all vectors of the version, from 1. Both
    `distance` and `exact_rank` are None for a chunk without a vector in the version; `exact_rank` alone is None
    when comparing all vectors took longer than the statement timeout. `plan` is EXPLAIN (ANALYZE, FORMAT TEXT) of
    the search by line, without the query vector. Times are seconds.
    """

    version: Version
    result: SearchResult
    chunk_id: int
    rank: int | None
    distance: float | None
    exact_rank: int | None
    exact_s: float
    ef_search: int
    m: int
    ef_construction: int
    kind: index.Kind
    state: IndexState
    uses_index: bool
    plan: tuple[str, ...]


def chunk_facts(connection: Connection, chunk_id: int) -> ChunkFacts | None:
    """The facts of one chunk, None when it is gone."""
    row = connection.execute(
        "SELECT id, document_id, metadata, created_at FROM document_chunks WHERE id = %s", [chunk_id]
    ).fetchone()
    return ChunkFacts(*row) if row else None


def explain(
    connection: Connection, encoders: EncoderCache, text: str, version: Version, chunk_id: int, k: int
) -> Explanation:
    """Search as `VersionSearcher.search` does, and explain the search and the chunk's rank.

    Compares the query with every vector of the version, within the connection's statement timeout. Raises what
    `VersionSearcher.search` raises.
    """
    from pgvector import Vector

    text = check_query(text)
    started = time.perf_counter()
    vector = encoded_vector(version, encoders.encoder(version).encode_query(text))
    encoded = time.perf_counter()
    options = check_options(k)
    hits, active = search_vector(connection, version, vector, options)
    result = SearchResult(
        text, version.version_key, hits, encoded - started, time.perf_counter() - encoded, active == version.id, k
    )
    given = {"vector": Vector(vector).to_text(), "chunk": chunk_id}
    plan = [
        _VECTOR.sub("'[…]'", line)
        for (line,) in connection.execute(
            sql.SQL("EXPLAIN (ANALYZE, FORMAT TEXT) {}").format(search_statement(version, options)), given
        )
    ]
    name = index.index_name(version)
    begun = time.perf_counter()
    distance, exact_rank = _exact(connection, version, given)
    settings = {**DEFAULTS, **version.index_settings}
    return Explanation(
        version,
        result,
        chunk_id,
        next((hit.rank for hit in hits if hit.chunk_id == chunk_id), None),
        distance,
        exact_rank,
        time.perf_counter() - begun,
        ef_search_for(version, k),
        settings["m"],
        settings["ef_construction"],
        index.kind_of(version),
        index.inspect(connection, version),
        any(re.search(rf"using {re.escape(name)}\b", line) for line in plan),
        tuple(plan),
    )


def _exact(connection: Connection, version: Version, given: dict[str, Any]) -> tuple[float | None, int | None]:
    """The chunk's distance, and its rank when all vectors are ordered by distance and then by id."""
    distance = index.distance_expression(version)
    own = connection.execute(
        sql.SQL("SELECT {} FROM {} WHERE chunk_id = %(chunk)s").format(distance, version.table), given
    ).fetchone()
    if own is None:
        return None, None
    before = sql.SQL("SELECT count(*) FROM {} WHERE ({}, chunk_id) < (%(own)s, %(chunk)s)").format(
        version.table, distance
    )
    try:
        (count,) = fetch_one(connection, before, {**given, "own": own[0]})
    except psycopg.errors.QueryCanceled:
        return own[0], None
    return own[0], count + 1
