"""The backfill job: its states and allowed moves, its plan of chunk id ranges, and its status.

A job is rows in the database and not a process. Whether somebody works on it is seen from the advisory lock
that each worker's session holds: it goes with the session, however the process ended.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from core import audit
from core.database import Connection, fetch_one
from core.errors import RefusedError, UsageError
from core.registry import Version, chunk_count, create_table, embedded_count

# interrupted is not failed: nobody works on the job at the moment, and any worker can go on with it.
# pausing is not paused: the batch in hand is still being finished.
MOVES: dict[str, frozenset[str]] = {
    "running": frozenset({"pausing", "interrupted", "proving", "failed", "cancelled"}),
    "pausing": frozenset({"paused", "running", "interrupted", "cancelled"}),
    "paused": frozenset({"running", "cancelled"}),
    "interrupted": frozenset({"running", "cancelled"}),
    "proving": frozenset({"running", "done", "failed", "interrupted", "cancelled"}),
    "done": frozenset({"running"}),
    "failed": frozenset({"running", "cancelled"}),
    "cancelled": frozenset({"running"}),
}

_AT_WORK = ("running", "pausing", "proving")

_RANGE_CHUNKS = 10_000
_MOST_RANGES = 20_000
"""Ranges are summed up for the status: 20,000 rows take some 3 ms."""

_RATE_WINDOW_S = 15

WORKER_LOCK = sql.SQL("hashtext('backfill ' || current_schema()), %s::int")
"""Arguments of the advisory lock that the session of worker %s holds for as long as it lives."""

WORKER_LIVES = sql.SQL(
    """EXISTS (
        SELECT FROM pg_locks l
        WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.objid::bigint = {}
          AND l.classid::bigint = (hashtext('backfill ' || current_schema())::bigint & 4294967295)
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))"""
)


@dataclass(frozen=True)
class Job:
    """One row of backfill_jobs."""

    id: int
    state: str


@dataclass(frozen=True)
class JobStatus:
    """Where a backfill stands. `rate` is chunks a second over the last seconds; `eta_s` is None when unknown."""

    version_key: str
    state: str
    total: int
    done: int
    failed: int
    pending: int
    rate: float
    eta_s: float | None
    throttle: str | None
    workers: int
    spent_usd: float
    error: str | None
    started_at: datetime.datetime | None
    finished_at: datetime.datetime | None


@dataclass(frozen=True)
class Failure:
    """A dead letter: a chunk that the encoder could not embed."""

    chunk_id: int
    source_id: str
    chunk_no: int
    error: str
    attempts: int
    failed_at: datetime.datetime
    waived_reason: str | None


def open_job(connection: Connection, version: Version, settings: dict[str, Any]) -> Job:
    """Start the version's backfill, or go on with the one that is there; joins one that is running.

    Raises RefusedError while it is pausing.
    """
    create_table(connection, version)
    with connection.transaction():
        # The version's row is the lock: of two workers that start at once, one plans the job and the other joins it.
        (state,) = fetch_one(
            connection, "SELECT state FROM embedding_versions WHERE id = %s FOR NO KEY UPDATE", [version.id]
        )
        found = connection.execute(
            "SELECT id, state FROM backfill_jobs WHERE embedding_version_id = %s FOR UPDATE", [version.id]
        ).fetchone()
        if found is None or state in ("registered", "retired"):
            return _plan_job(connection, version, settings)
        job = Job(*found)
        if job.state in _AT_WORK and count_workers(connection, job.id) == 0:
            move(connection, job, "interrupted")
            job = Job(job.id, "interrupted")
        if job.state == "pausing":
            raise RefusedError(
                f"The backfill of {version.version_key} is pausing.", "Wait until it is paused, then go on."
            )
        if job.state not in _AT_WORK:
            move(connection, job, "running")
        return Job(job.id, "running")


def _plan_job(connection: Connection, version: Version, settings: dict[str, Any]) -> Job:
    from psycopg.types.json import Jsonb

    # From here on the trigger queues new chunks for this version; ids up to the largest one seen below are
    # covered by ranges. What an open transaction inserts in between is found by the proof.
    connection.execute(
        "UPDATE embedding_versions SET state = 'backfilling' WHERE id = %s AND NOT active", [version.id]
    )
    connection.execute("DELETE FROM backfill_jobs WHERE embedding_version_id = %s", [version.id])
    (job_id,) = fetch_one(
        connection,
        """
        INSERT INTO backfill_jobs (embedding_version_id, state, settings, total)
        VALUES (%s, 'running', %s, %s) RETURNING id
        """,
        [version.id, Jsonb(settings), max(0, chunk_count(connection) - embedded_count(connection, version))],
    )
    connection.execute(
        """
        WITH bounds AS (SELECT min(id) AS first, max(id) AS last FROM document_chunks),
             width AS (SELECT greatest(%(chunks)s::bigint, (last - first) / %(most)s + 1) AS ids FROM bounds)
        INSERT INTO backfill_ranges (job_id, first_chunk_id, last_chunk_id, cursor)
        SELECT %(job)s, start, least(start + ids - 1, last), start - 1
        FROM bounds, width, generate_series(first, last, ids) AS start
        """,
        {"job": job_id, "chunks": _RANGE_CHUNKS, "most": _MOST_RANGES},
    )
    audit.record(connection, "backfill start", version.version_key, detail=settings)
    return Job(job_id, "running")


def move(connection: Connection, job: Job, state: str) -> None:
    """Move a job to another state. Raises RefusedError when MOVES does not allow it."""
    updated = connection.execute(
        """
        UPDATE backfill_jobs
        SET state = %(state)s, throttle = NULL, throttle_since = NULL,
            error = CASE WHEN %(state)s = 'running' THEN NULL ELSE error END,
            finished_at = CASE WHEN %(state)s IN ('done', 'failed', 'cancelled') THEN now() END
        WHERE id = %(id)s AND state = ANY(%(from)s)
        """,
        {"id": job.id, "state": state, "from": [source for source, to in MOVES.items() if state in to]},
    )
    if updated.rowcount != 1:
        raise RefusedError(f"A backfill that is {job.state} cannot become {state}.")


def request(connection: Connection, version: Version, action: str) -> JobStatus:
    """Pause or cancel a backfill from any session; its workers follow within a second or two.

    Raises UsageError when the version has no backfill, RefusedError when its state does not allow the action.
    """
    with connection.transaction():
        found = connection.execute(
            "SELECT id, state FROM backfill_jobs WHERE embedding_version_id = %s FOR UPDATE", [version.id]
        ).fetchone()
        if found is None:
            raise UsageError(
                f"Version {version.version_key} has no backfill.", f"revector backfill run {version.version_key}"
            )
        job = Job(*found)
        working = job.state in _AT_WORK and count_workers(connection, job.id) > 0
        if job.state in _AT_WORK and not working and action == "pause":
            raise RefusedError(
                f"The backfill of {version.version_key} is interrupted: nobody works on it.",
                f"Go on with it: revector backfill run {version.version_key}",
            )
        move(connection, job, {"pause": "pausing", "cancel": "cancelled"}[action])
        audit.record(connection, f"backfill {action}", version.version_key)
    result = status(connection, version)
    if result is None:
        raise UsageError(f"Version {version.version_key} has no backfill.")
    return result


def count_workers(connection: Connection, job_id: int) -> int:
    """How many workers' sessions are alive."""
    query = sql.SQL("SELECT count(*) FROM backfill_workers w WHERE w.job_id = %s AND {}").format(
        WORKER_LIVES.format(sql.SQL("w.id"))
    )
    return int(fetch_one(connection, query, [job_id])[0])


def status(connection: Connection, version: Version) -> JobStatus | None:
    """Where the version's backfill stands, or None when it never had one. Reads kept counts only."""
    query = sql.SQL(
        """
        SELECT j.state, j.total + j.outbox_done + waiting.n, j.outbox_done + coalesce(ranges.done, 0), failed.n,
               coalesce(recent.done / greatest(extract(epoch FROM now() - recent.since)::float8, 1), 0),
               j.throttle, workers.n, j.spent_usd, j.error, j.started_at, j.finished_at
        FROM backfill_jobs j,
             LATERAL (SELECT sum(done)::bigint AS done FROM backfill_ranges WHERE job_id = j.id) AS ranges,
             LATERAL (SELECT count(*) AS n FROM chunk_outbox
                      WHERE embedding_version_id = j.embedding_version_id) AS waiting,
             LATERAL (SELECT count(*) AS n FROM dead_letters
                      WHERE embedding_version_id = j.embedding_version_id AND waived_reason IS NULL) AS failed,
             LATERAL (SELECT sum(done)::bigint AS done, min(at - seconds * interval '1 second') AS since
                      FROM backfill_samples
                      WHERE job_id = j.id AND at > now() - %(window)s * interval '1 second') AS recent,
             LATERAL (SELECT count(*) AS n FROM backfill_workers w WHERE w.job_id = j.id AND {lives}) AS workers
        WHERE j.embedding_version_id = %(version)s
        """
    ).format(lives=WORKER_LIVES.format(sql.SQL("w.id")))
    row = connection.execute(query, {"version": version.id, "window": _RATE_WINDOW_S}).fetchone()
    if row is None:
        return None
    state, total, done, failed, rate, throttle, workers, spent, error, started, finished = row
    if state in _AT_WORK and workers == 0:
        state = "interrupted"
    if state == "done":
        total = done + failed  # chunks deleted on the way were planned and never came
    if state not in _AT_WORK:
        rate = 0.0
    pending = max(0, total - done - failed)
    eta = pending / rate if rate > 0 else (0.0 if pending == 0 else None)
    return JobStatus(
        version.version_key, state, total, done, failed, pending, float(rate), eta, throttle, workers, spent,
        error, started, finished,
    )  # fmt: skip


def rates(connection: Connection, version: Version, *, seconds: int = 120) -> list[float]:
    """Chunks done in each of the last seconds in which there was work, oldest first: a chart's points."""
    rows = connection.execute(
        """
        SELECT sum(s.done)::float8
        FROM backfill_samples s JOIN backfill_jobs j ON j.id = s.job_id
        WHERE j.embedding_version_id = %s
        GROUP BY date_trunc('second', s.at) ORDER BY date_trunc('second', s.at) DESC LIMIT %s
        """,
        [version.id, seconds],
    ).fetchall()
    return [row[0] for row in reversed(rows)]


def failures(connection: Connection, version: Version, *, limit: int = 100) -> list[Failure]:
    """The dead letters of a version, newest first."""
    rows = connection.execute(
        """
        SELECT d.chunk_id, c.source_id, c.chunk_no, d.error, d.attempts, d.failed_at, d.waived_reason
        FROM dead_letters d JOIN document_chunks c ON c.id = d.chunk_id
        WHERE d.embedding_version_id = %s ORDER BY d.failed_at DESC, d.chunk_id LIMIT %s
        """,
        [version.id, limit],
    ).fetchall()
    return [Failure(*row) for row in rows]


def retry_failures(connection: Connection, version: Version) -> int:
    """Queue all dead letters that are not waived once more; returns how many. A backfill run takes them up."""
    with connection.transaction():
        moved = connection.execute(
            """
            INSERT INTO chunk_outbox (embedding_version_id, chunk_id)
            SELECT embedding_version_id, chunk_id FROM dead_letters
            WHERE embedding_version_id = %s AND waived_reason IS NULL
            ON CONFLICT DO NOTHING
            """,
            [version.id],
        ).rowcount
        if moved:
            audit.record(connection, "backfill retry", version.version_key, detail={"chunks": moved})
    return moved


def waive_failure(connection: Connection, version: Version, chunk_id: int, reason: str) -> None:
    """Accept that a chunk has no vector in this version, with a reason that stays in the log.

    Raises UsageError when the chunk is no dead letter of the version or the reason is empty.
    """
    if not reason.strip():
        raise UsageError("A waiver needs a reason.", "Say why this chunk may be missing: --reason TEXT")
    with connection.transaction():
        updated = connection.execute(
            """
            UPDATE dead_letters SET waived_by = session_user, waived_reason = %s
            WHERE embedding_version_id = %s AND chunk_id = %s
            """,
            [reason, version.id, chunk_id],
        )
        if updated.rowcount == 0:
            raise UsageError(f"Chunk {chunk_id} is no dead letter of version {version.version_key}.")
        audit.record(
            connection, "backfill waive", version.version_key, reason=reason, detail={"chunk_id": chunk_id}
        )
