"""What a worker reads and writes: batches of chunks under a lease, and their transaction.

The COPY of a batch and the move of its range's cursor are one transaction, fenced by the lease's token. A worker
that was killed, or frozen and resumed, can neither lose nor repeat work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
from psycopg import sql

from revector.core.backfill.job.job import worker_lives
from revector.core.database import Connection, fetch_column
from revector.core.loader import copy_vectors, insert_missing, lock_for_writing
from revector.core.registry import Version

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Lease:
    """A range of chunk ids that this worker holds; `token` proves it."""

    range_id: int
    token: int
    cursor: int
    last_chunk_id: int


@dataclass(frozen=True)
class Batch:
    """Chunks read together: their ids and texts by row. `same_as` names, for some rows, a chunk with the same text
    that has, or will have, the vector.

    `lease` is None for a batch from the outbox. `start` and `cursor` are the range's cursor before and after the
    batch; `last` closes the range.
    """

    ids: list[int]
    texts: list[str]
    same_as: dict[int, int]
    lease: Lease | None = None
    start: int = 0
    cursor: int = 0
    last: bool = False


@dataclass
class Encoded:
    """A batch with its vectors (n, d) for `chunk_ids` (n,), copies of existing vectors, and failures."""

    batch: Batch
    chunk_ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    copies: list[tuple[int, int]] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)
    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    seconds: float = 0.0


class LostLeaseError(Exception):
    """Another worker holds the range now: this worker's batch is dropped."""


def lease_range(connection: Connection, job_id: int, worker_id: int, lease_s: float) -> Lease | None:
    """Lease the next range that is waiting, or whose holder is gone; None when there is none."""
    row = connection.execute(
        sql.SQL(
            """
            UPDATE backfill_ranges SET state = 'leased', lease_token = lease_token + 1, lease_worker = %(worker)s,
                   lease_until = now() + %(lease)s * interval '1 second'
            WHERE id = (SELECT r.id FROM backfill_ranges r
                        WHERE r.job_id = %(job)s
                          AND (r.state = 'waiting'
                               OR r.state = 'leased' AND (r.lease_until < now() OR NOT {lives}))
                        ORDER BY r.id LIMIT 1 FOR UPDATE SKIP LOCKED)
            RETURNING id, lease_token, cursor, last_chunk_id
            """
        ).format(lives=worker_lives(sql.SQL("r.lease_worker"))),
        {"worker": worker_id, "job": job_id, "lease": lease_s},
    ).fetchone()
    return Lease(*row) if row else None


_SAME_TEXT = sql.SQL(
    """CASE WHEN EXISTS (SELECT FROM repeated_texts r WHERE r.content_sha256 = c.content_sha256) THEN
       (SELECT e.chunk_id FROM document_chunks o JOIN {table} e ON e.chunk_id = o.id
        WHERE o.content_sha256 = c.content_sha256 AND o.id <> c.id LIMIT 1) END"""
)
"""A chunk with the same text that already has a vector: it is not paid for again."""


def read_range(
    connection: Connection, version: Version, lease: Lease, cursor: int, size: int, *, most_bytes: int
) -> Batch:
    """The next chunks of a leased range that have no vector and no dead letter yet.

    As many as `size` or as have `most_bytes` of text, but at least one.
    """
    # Both anti-joins are bounded by the range, so that any plan reads only that part of the tables: the planner's
    # statistics of a table that is being filled are always out of date.
    rows = connection.execute(
        sql.SQL(
            """
            SELECT id, content, same_as, found FROM (
                SELECT c.id, c.content, {same_as} AS same_as, count(*) OVER () AS found,
                       octet_length(c.content) AS own,
                       sum(octet_length(c.content)) OVER (ORDER BY c.id ROWS UNBOUNDED PRECEDING) AS bytes
                FROM (SELECT c.id, c.content, c.content_sha256
                      FROM document_chunks c
                      WHERE c.id > %(cursor)s AND c.id <= %(last)s
                        AND NOT EXISTS (SELECT FROM {table} e
                                        WHERE e.chunk_id = c.id
                                          AND e.chunk_id > %(cursor)s AND e.chunk_id <= %(last)s)
                        AND NOT EXISTS (SELECT FROM dead_letters d
                                        WHERE d.embedding_version_id = %(version)s AND d.chunk_id = c.id
                                          AND d.chunk_id > %(cursor)s AND d.chunk_id <= %(last)s)
                      ORDER BY c.id LIMIT %(size)s) AS c) AS batch
            WHERE bytes - own < %(bytes)s ORDER BY id
            """
        ).format(table=version.table, same_as=_SAME_TEXT.format(table=version.table)),
        {
            "cursor": cursor,
            "last": lease.last_chunk_id,
            "version": version.id,
            "size": size,
            "bytes": most_bytes,
        },
        binary=True,
    ).fetchall()
    last = not rows or (rows[0][3] < size and len(rows) == rows[0][3])
    end = lease.last_chunk_id if last else rows[-1][0]
    return Batch(*_columns(rows), lease, cursor, end, last)


def read_outbox(
    connection: Connection, version: Version, worker_id: int, size: int, lease_s: float, *, most_bytes: int
) -> Batch | None:
    """Chunks from the version's outbox, leased for a while; None when none is free."""
    rows = connection.execute(
        sql.SQL(
            """
            WITH taken AS (
                UPDATE chunk_outbox o
                SET leased_until = now() + %(lease)s * interval '1 second', lease_worker = %(worker)s
                FROM (SELECT q.chunk_id FROM (
                          SELECT f.chunk_id, octet_length(c.content) AS own,
                                 sum(octet_length(c.content))
                                     OVER (ORDER BY f.chunk_id ROWS UNBOUNDED PRECEDING) AS bytes
                          FROM (SELECT chunk_id FROM chunk_outbox w
                                WHERE embedding_version_id = %(version)s
                                  AND (leased_until IS NULL OR leased_until < now() OR NOT {lives})
                                ORDER BY chunk_id LIMIT %(size)s FOR UPDATE SKIP LOCKED) AS f
                               LEFT JOIN document_chunks c ON c.id = f.chunk_id) AS q
                      WHERE coalesce(q.bytes - q.own, 0) < %(bytes)s) AS free
                WHERE o.embedding_version_id = %(version)s AND o.chunk_id = free.chunk_id
                RETURNING o.chunk_id)
            SELECT t.chunk_id, c.content, {same_as}
            FROM taken t LEFT JOIN document_chunks c ON c.id = t.chunk_id ORDER BY t.chunk_id
            """
        ).format(same_as=_SAME_TEXT.format(table=version.table), lives=worker_lives(sql.SQL("w.lease_worker"))),
        {"version": version.id, "worker": worker_id, "size": size, "lease": lease_s, "bytes": most_bytes},
        binary=True,
    ).fetchall()
    # Chunks deleted before the table has its key, or while a proof or a retry queued them.
    if gone := [row[0] for row in rows if row[1] is None]:
        connection.execute("SELECT delete_orphans(%s, %s)", [version.id, gone])
        connection.execute(
            "DELETE FROM chunk_outbox WHERE embedding_version_id = %s AND chunk_id = ANY(%s)", [version.id, gone]
        )
        rows = [row for row in rows if row[1] is not None]
    return Batch(*_columns(rows)) if rows else None


def _columns(rows: list[Any]) -> tuple[list[int], list[str], dict[int, int]]:
    """Ids, texts and `same_as`; a text that occurs twice in the batch points to its first chunk."""
    ids, texts = [row[0] for row in rows], [row[1] for row in rows]
    same_as = {number: row[2] for number, row in enumerate(rows) if row[2] is not None}
    if len(set(texts)) < len(texts):
        first: dict[str, int] = {}
        for number, text in enumerate(texts):
            chunk_id = first.setdefault(text, ids[number])
            if chunk_id != ids[number]:
                same_as.setdefault(number, chunk_id)
    return ids, texts, same_as


def commit(
    connection: Connection,
    version: Version,
    job_id: int,
    done: Encoded,
    lease_s: float,
    worker_id: int | None = None,
) -> int:
    """Store an encoded batch and move the cursor, in one transaction; returns the chunks that got a vector.

    They count as stored by that worker.

    Raises LostLeaseError, with nothing stored, when the range has another holder, or its cursor has moved since
    the batch was read (a retried commit whose answer was lost).
    """
    try:
        with connection.transaction():
            stored = copy_vectors(connection, version, done.chunk_ids, done.vectors)
            return _finish(connection, version, job_id, done, stored, lease_s, worker_id)
    except (psycopg.errors.UniqueViolation, psycopg.errors.ForeignKeyViolation):
        # A chunk of this batch was embedded or deleted since it was read. Rare, so checked only now.
        with connection.transaction():
            lock_for_writing(connection, version)
            keep = _still_wanted(connection, version, done.chunk_ids)
            # It may happen again at once, while others write the same chunks.
            stored = len(insert_missing(connection, version, done.chunk_ids[keep], done.vectors[keep]))
            return _finish(connection, version, job_id, done, stored, lease_s, worker_id)


def _finish(
    connection: Connection,
    version: Version,
    job_id: int,
    done: Encoded,
    stored: int,
    lease_s: float,
    worker_id: int | None,
) -> int:
    """Store what is left of a batch of which so many vectors are stored, and move the cursor; returns them all."""
    stored += _store_rest(connection, version, done)
    if stored:
        connection.execute("INSERT INTO row_counts (scope, delta) VALUES (%s, %s)", [version.id, stored])
    batch, spent = done.batch, done.spent_usd
    if batch.lease is None:
        connection.execute(
            "DELETE FROM chunk_outbox WHERE embedding_version_id = %s AND chunk_id = ANY(%s)",
            [version.id, batch.ids],
        )
        connection.execute(
            "UPDATE backfill_jobs SET outbox_done = outbox_done + %s, spent_usd = spent_usd + %s WHERE id = %s",
            [stored, spent, job_id],
        )
        _count(connection, worker_id, stored)
        return stored
    moved = connection.execute(
        """
        UPDATE backfill_ranges
        SET cursor = %s, done = done + %s, state = CASE WHEN %s THEN 'done' ELSE state END,
            lease_until = now() + %s * interval '1 second'
        WHERE id = %s AND lease_token = %s AND state = 'leased' AND cursor = %s
        """,
        [batch.cursor, stored, batch.last, lease_s, batch.lease.range_id, batch.lease.token, batch.start],
    )
    if moved.rowcount != 1:
        raise LostLeaseError
    if spent:
        connection.execute("UPDATE backfill_jobs SET spent_usd = spent_usd + %s WHERE id = %s", [spent, job_id])
    _count(connection, worker_id, stored)
    return stored


def _count(connection: Connection, worker_id: int | None, stored: int) -> None:
    """After the job's row: a reservation of money locks the job, then its worker."""
    if stored:
        connection.execute("UPDATE backfill_workers SET done = done + %s WHERE id = %s", [stored, worker_id])


def _store_rest(connection: Connection, version: Version, done: Encoded) -> int:
    """Store copies of existing vectors, and dead letters; returns the number of vectors stored.

    Both have a foreign key, so a chunk that is being deleted is waited for and then left out.
    """
    stored = 0
    if done.copies:
        stored = connection.execute(
            sql.SQL(
                """
                INSERT INTO {table} (chunk_id, embedding)
                SELECT pair.chunk_id, e.embedding
                FROM unnest(%s::bigint[], %s::bigint[]) AS pair(chunk_id, same_as)
                JOIN {table} e ON e.chunk_id = pair.same_as
                JOIN document_chunks c ON c.id = pair.chunk_id
                ORDER BY pair.chunk_id FOR KEY SHARE OF c
                ON CONFLICT DO NOTHING
                """
            ).format(table=version.table),
            [[chunk for chunk, _ in done.copies], [same for _, same in done.copies]],
        ).rowcount
    if done.failures:
        connection.execute(
            """
            INSERT INTO dead_letters (embedding_version_id, chunk_id, error)
            SELECT %(version)s, f.chunk_id, f.error
            FROM unnest(%(ids)s::bigint[], %(errors)s::text[]) AS f(chunk_id, error)
            JOIN document_chunks c ON c.id = f.chunk_id
            ORDER BY f.chunk_id FOR KEY SHARE OF c
            ON CONFLICT (embedding_version_id, chunk_id) DO UPDATE
            SET error = excluded.error, attempts = dead_letters.attempts + 1, failed_at = now(),
                waived_by = NULL, waived_reason = NULL
            """,
            {
                "version": version.id,
                "ids": [chunk for chunk, _ in done.failures],
                "errors": [error for _, error in done.failures],
            },
        )
    if done.batch.lease is None:
        # A chunk with a vector is no longer a dead letter; retries come through the outbox.
        connection.execute(
            "DELETE FROM dead_letters WHERE embedding_version_id = %s AND chunk_id = ANY(%s)",
            [version.id, done.chunk_ids.tolist() + [chunk for chunk, _ in done.copies]],
        )
    return stored


def _still_wanted(connection: Connection, version: Version, chunk_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    wanted = fetch_column(
        connection,
        sql.SQL(
            """
            SELECT c.id FROM document_chunks c
            WHERE c.id = ANY(%s) AND NOT EXISTS (SELECT FROM {} e WHERE e.chunk_id = c.id)
            ORDER BY c.id FOR KEY SHARE
            """
        ).format(version.table),
        [chunk_ids.tolist()],
    )
    return np.isin(chunk_ids, wanted)
