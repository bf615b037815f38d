"""Runs as they are stored: one row a run, and one row a query with its top-k."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from psycopg import sql
from psycopg.rows import class_row

from core.database import Connection
from core.errors import UsageError
from core.evaluation.evaluation import Run

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class QueryHits:
    """The top-k for one query, best first: chunks (n,), their documents (n) and distances (n,), and milliseconds."""

    query_id: str
    chunk_ids: NDArray[np.int64]
    document_ids: tuple[uuid.UUID, ...]
    distances: NDArray[np.float32]
    encode_ms: float
    search_ms: float


@dataclass(frozen=True)
class Results:
    """A run with the hits of its queries, by query id."""

    run: Run
    hits: dict[str, QueryHits]


_RUN = sql.SQL(
    """
    SELECT r.id, s.name AS query_set, r.query_set_revision, r.version_key, r.encoder, r.encoder_revision, r.k, r.exact,
           r.ef_search, r.index_settings, r.sample, r.chunks, r.queries, r.state, r.started_at, r.finished_at,
           r.seconds, r.created_by
    FROM evaluation_runs r JOIN query_sets s ON s.id = r.query_set_id
    """
)


def get_run(connection: Connection, number: int) -> Run:
    """The run of that id. Raises UsageError when there is none."""
    with connection.cursor(row_factory=class_row(Run)) as cursor:
        found = cursor.execute(_RUN + sql.SQL(" WHERE r.id = %s"), [number]).fetchone()
    if found is None:
        raise UsageError(f"There is no run {number}.", "revector evaluate --runs names those that are kept.")
    return found


def runs(connection: Connection, *, query_set: str | None = None, limit: int = 100) -> list[Run]:
    """Runs that came to their end, the newest first; of one query set only when it is named."""
    with connection.cursor(row_factory=class_row(Run)) as cursor:
        cursor.execute(
            _RUN
            + sql.SQL(
                """
                WHERE r.state = 'done' AND (%(set)s::text IS NULL OR s.name = %(set)s)
                ORDER BY r.id DESC LIMIT %(limit)s
                """
            ),
            {"set": query_set, "limit": limit},
        )
        return cursor.fetchall()


def load_results(connection: Connection, run: Run) -> Results:
    """The hits of a run."""
    with connection.cursor(binary=True) as cursor:
        cursor.execute(
            """
            SELECT query_id, chunk_ids, document_ids, distances, encode_ms, search_ms
            FROM evaluation_results WHERE run_id = %s ORDER BY query_id
            """,
            [run.id],
        )
        hits = {
            row[0]: QueryHits(
                row[0],
                np.array(row[1], dtype=np.int64),
                tuple(row[2]),
                np.array(row[3], dtype=np.float32),
                row[4],
                row[5],
            )
            for row in cursor
        }
    return Results(run, hits)
