"""Stored runs: one row for each run, and one row for each query with its top-k.

A run is started, gets the hits of its queries in batches, and is finished; until then it is not shown. An
unfinished run is continued or, a day later, deleted. The session that fills a run holds its lock.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, LiteralString

import numpy as np
from psycopg import errors as pg
from psycopg import sql
from psycopg.types.json import Jsonb

from revector.core import audit
from revector.core.database import Connection, fetch_as, fetch_column, fetch_one
from revector.core.errors import RefusedError, UsageError
from revector.core.evaluation.document import Run
from revector.core.loader import COPY_HEADER, COPY_TRAILER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from revector.core.evaluation.judged_sets.query_sets import QuerySet
    from revector.core.registry import Version

_RUN_LOCK = sql.SQL("hashtext('evaluation run ' || current_schema()), %s::int")
_ABANDONED_AFTER = "1 day"
"""After this long the collection has changed: the two halves of a run would not fit together."""
_INT8_OID, _FLOAT4_OID, _UUID_OID = 20, 700, 2950


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

    @cached_property
    def documents(self) -> dict[str, list[uuid.UUID]]:
        """By query id the documents, best first, each by its best chunk. Cached, since it is often needed."""
        return {query: list(dict.fromkeys(hits.document_ids)) for query, hits in self.hits.items()}


_RUN = sql.SQL(
    """
    SELECT r.id, s.name AS query_set, r.query_set_revision, r.version_key, r.encoder, r.encoder_revision, r.k, r.exact,
           r.hybrid, r.ef_search, r.index_settings, r.sample, r.chunks, r.queries, r.state, r.started_at,
           r.finished_at, r.seconds, r.created_by
    FROM evaluation_runs r JOIN query_sets s ON s.id = r.query_set_id
    """
)


def get_run(connection: Connection, number: int) -> Run:
    """The run of that id. Raises UsageError when there is none."""
    found = _runs(connection, "WHERE r.id = %s", [number])
    if not found:
        raise UsageError(f"There is no run {number}.", "revector evaluations runs")
    return found[0]


def _runs(connection: Connection, which: LiteralString, params: Any) -> list[Run]:
    return fetch_as(connection, Run, _RUN + sql.SQL(which), params)


def runs(connection: Connection, *, query_set: str | None = None, limit: int = 100) -> list[Run]:
    """Finished runs, newest first; only those of one query set when it is named."""
    return _runs(
        connection,
        """
        WHERE r.state = 'done' AND (%(set)s::text IS NULL OR s.name = %(set)s)
        ORDER BY r.id DESC LIMIT %(limit)s
        """,
        {"set": query_set, "limit": limit},
    )


def latest_run(connection: Connection, query_set: QuerySet, version: Version, *, k: int) -> Run | None:
    """The newest run of a version by vectors alone on the current queries, at least k deep, pilots excluded."""
    found = _runs(
        connection,
        """
        WHERE r.state = 'done' AND r.query_set_id = %(set)s AND r.query_set_revision = %(revision)s
          AND r.embedding_version_id = %(version)s AND r.sample IS NULL AND NOT r.hybrid AND r.k >= %(k)s
        ORDER BY r.id DESC LIMIT 1
        """,
        {"set": query_set.id, "revision": query_set.revision, "version": version.id, "k": k},
    )
    return found[0] if found else None


def load_results(connection: Connection, run: Run) -> Results:
    """The hits of a run."""
    hits: dict[str, QueryHits] = {}
    documents: dict[bytes, uuid.UUID] = {}
    with connection.cursor(binary=True) as cursor:
        # The arrays in the server's binary format: NumPy reads a million ids in the time that psycopg takes for a
        # thousand.
        cursor.execute(
            """
            SELECT query_id, array_send(chunk_ids), array_send(document_ids), array_send(distances),
                   encode_ms, search_ms
            FROM evaluation_results WHERE run_id = %s ORDER BY query_id
            """,
            [run.id],
        )
        for query_id, chunks, of, distances, encode_ms, search_ms in cursor:
            ids = _read_array(of, "V16").tolist()
            for value in ids:
                if value not in documents:
                    documents[value] = uuid.UUID(bytes=value)
            hits[query_id] = QueryHits(
                query_id,
                _read_array(chunks, ">i8").astype(np.int64),
                tuple([documents[value] for value in ids]),
                _read_array(distances, ">f4").astype(np.float32),
                encode_ms,
                search_ms,
            )
    return Results(run, hits)


def start_run(
    connection: Connection,
    query_set: QuerySet,
    version: Version,
    *,
    encoder_revision: str,
    k: int,
    exact: bool,
    ef_search: int | None,
    index_settings: Mapping[str, Any],
    chunks: int,
    hybrid: bool = False,
    sample: Mapping[str, Any] | None = None,
) -> Run:
    """Continue this role's unfinished run of the same query set revision, version and settings, or begin one.

    This session holds the run's lock until it ends or calls `unlock_run`; runs locked by another session are not
    taken. Raises RefusedError when the query set changed after `query_set` was read.
    """
    _check_unchanged(connection, query_set.id, query_set.name, query_set.revision)
    same = {
        "set": query_set.id,
        "revision": query_set.revision,
        "version": version.id,
        "key": version.version_key,
        "encoder": version.encoder_spec,
        "encoder_revision": encoder_revision,
        "k": k,
        "exact": exact,
        "hybrid": hybrid,
        "ef_search": ef_search,
        "index_settings": Jsonb(dict(index_settings)),
        "sample": None if sample is None else Jsonb(dict(sample)),
        "chunks": chunks,
        "queries": len(query_set.queries),
        "age": _ABANDONED_AFTER,
    }
    _delete_abandoned(connection)
    unfinished = connection.execute(
        """
        SELECT id FROM evaluation_runs
        WHERE state = 'running' AND created_by = SESSION_USER AND query_set_id = %(set)s
          AND query_set_revision = %(revision)s AND embedding_version_id = %(version)s AND encoder = %(encoder)s
          AND encoder_revision = %(encoder_revision)s AND k = %(k)s AND exact = %(exact)s AND hybrid = %(hybrid)s
          AND ef_search IS NOT DISTINCT FROM %(ef_search)s::int AND index_settings = %(index_settings)s
          AND sample IS NOT DISTINCT FROM %(sample)s::jsonb AND started_at > now() - %(age)s::interval
        ORDER BY id DESC
        """,
        same,
    ).fetchall()
    for (number,) in unfinished:
        if fetch_one(connection, sql.SQL("SELECT pg_try_advisory_lock({})").format(_RUN_LOCK), [number])[0]:
            # It may have been finished before we got the lock.
            if found := _runs(connection, "WHERE r.id = %s AND r.state = 'running'", [number]):
                return found[0]
            unlock_run(connection, number)
    with connection.transaction():
        (number,) = fetch_one(
            connection,
            """
            INSERT INTO evaluation_runs (query_set_id, query_set_revision, embedding_version_id, version_key, encoder,
                                         encoder_revision, k, exact, hybrid, ef_search, index_settings, sample, chunks,
                                         queries)
            VALUES (%(set)s, %(revision)s, %(version)s, %(key)s, %(encoder)s, %(encoder_revision)s, %(k)s, %(exact)s,
                    %(hybrid)s, %(ef_search)s, %(index_settings)s, %(sample)s, %(chunks)s, %(queries)s)
            RETURNING id
            """,
            same,
        )
        # Before the row is visible, so that nobody takes it for an abandoned run.
        connection.execute(sql.SQL("SELECT pg_advisory_lock({})").format(_RUN_LOCK), [number])
    return get_run(connection, number)


def unlock_run(connection: Connection, number: int) -> None:
    """Release the lock of a run, so that another session can continue it."""
    connection.execute(sql.SQL("SELECT pg_advisory_unlock({})").format(_RUN_LOCK), [number])


def stored_queries(connection: Connection, run: Run) -> set[str]:
    """The ids of the queries whose hits are stored."""
    return set(fetch_column(connection, "SELECT query_id FROM evaluation_results WHERE run_id = %s", [run.id]))


def store_hits(connection: Connection, run: Run, hits: Iterable[QueryHits]) -> None:
    """COPY the hits of some queries, all or none of them.

    Raises RefusedError when the run is gone, for example with its query set.
    """
    image = b"".join(_row_image(run.id, found) for found in hits)
    try:
        with connection.cursor().copy(
            """
            COPY evaluation_results (run_id, query_id, chunk_ids, document_ids, distances, encode_ms, search_ms)
            FROM STDIN WITH (FORMAT BINARY)
            """
        ) as copy:
            copy.write(COPY_HEADER + image + COPY_TRAILER)
    except pg.ForeignKeyViolation:
        raise RefusedError(
            f"Run {run.id} is gone: the query set {run.query_set!r} was dropped during the search.",
            "Import the query set again, and evaluate again.",
        ) from None


def note_seconds(connection: Connection, run: Run, seconds: float) -> None:
    """Add to the time that an unfinished run has taken."""
    connection.execute("UPDATE evaluation_runs SET seconds = seconds + %s WHERE id = %s", [seconds, run.id])


def finish_run(connection: Connection, run: Run, seconds: float) -> Run:
    """Mark a run with the hits of all its queries as finished. `seconds` are added to its time.

    Raises RefusedError when the query set or the version was dropped or changed, or a query has no hits.
    """
    with connection.transaction():
        found = connection.execute("SELECT query_set_id FROM evaluation_runs WHERE id = %s", [run.id]).fetchone()
        _check_unchanged(connection, found[0] if found else 0, run.query_set, run.query_set_revision)
        done = connection.execute(
            """
            UPDATE evaluation_runs r
            SET state = 'done', finished_at = clock_timestamp(), seconds = seconds + %(seconds)s
            WHERE id = %(id)s AND embedding_version_id IS NOT NULL
              AND queries = (SELECT count(*) FROM evaluation_results WHERE run_id = r.id)
            """,
            {"seconds": seconds, "id": run.id},
        ).rowcount
        if not done:
            raise RefusedError(
                f"Run {run.id} cannot be finished: version {run.version_key} was dropped, or a query has no results.",
                "Evaluate again.",
            )
        audit.record(
            connection, "evaluate run", run.version_key,
            detail={"run": run.id, "query_set": run.query_set, "revision": run.query_set_revision, "k": run.k,
                    "exact": run.exact, "hybrid": run.hybrid, "ef_search": run.ef_search, "queries": run.queries,
                    "sample": run.sample},
        )  # fmt: skip
    unlock_run(connection, run.id)
    return get_run(connection, run.id)


def _check_unchanged(connection: Connection, set_id: int, name: str, revision: str) -> None:
    found = connection.execute("SELECT revision FROM query_sets WHERE id = %s FOR SHARE", [set_id]).fetchone()
    if found is None:
        raise RefusedError(
            f"The query set {name!r} was dropped in the meantime.", "Import it again, and evaluate again."
        )
    if found[0] != revision:
        raise RefusedError(
            f"The query set {name!r} changed in the meantime: it is at revision {found[0]}, and was at {revision}.",
            "Evaluate again with the current queries.",
        )


def _delete_abandoned(connection: Connection) -> None:
    query = "SELECT id FROM evaluation_runs WHERE state = 'running' AND started_at <= now() - %s::interval"
    for number in fetch_column(connection, query, [_ABANDONED_AFTER]):
        if fetch_one(connection, sql.SQL("SELECT pg_try_advisory_lock({})").format(_RUN_LOCK), [number])[0]:
            connection.execute("DELETE FROM evaluation_runs WHERE id = %s AND state = 'running'", [number])
            unlock_run(connection, number)


def _row_image(run_id: int, found: QueryHits) -> bytes:
    """A row in binary COPY format, its arrays written by NumPy: psycopg would take longer than the search did."""
    query_id = found.query_id.encode()
    return b"".join(
        (
            struct.pack(">hiqi", 7, 8, run_id, len(query_id)),
            query_id,
            _array(_INT8_OID, found.chunk_ids.astype(">i8")),
            _array(_UUID_OID, np.frombuffer(b"".join([each.bytes for each in found.document_ids]), "V16")),
            _array(_FLOAT4_OID, found.distances.astype(">f4")),
            struct.pack(">ifif", 4, found.encode_ms, 4, found.search_ms),
        )
    )


def _array(oid: int, values: NDArray[Any]) -> bytes:
    """A one-dimensional array of fixed-width elements in the format of array_recv in Postgres' arrayfuncs.c."""
    if not len(values):
        return struct.pack(">iiii", 12, 0, 0, oid)
    elements = np.empty(len(values), [("length", ">i4"), ("value", values.dtype)])
    elements["length"] = values.dtype.itemsize
    elements["value"] = values
    return struct.pack(">iiiiii", 20 + elements.nbytes, 1, 0, oid, len(values), 1) + elements.tobytes()


def _read_array(image: bytes, kind: str) -> NDArray[Any]:
    """The elements (n,) of array_send's output for an array of at most one dimension, without NULLs."""
    if len(image) <= 12:
        return np.empty(0, kind)
    values: NDArray[Any] = np.frombuffer(image, [("length", ">i4"), ("value", kind)], offset=20)["value"]
    return values
