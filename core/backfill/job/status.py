"""The status of a backfill, read from stored counts only: it costs the same at ten thousand and at 100 million
chunks."""

from __future__ import annotations

import datetime
import statistics
from dataclasses import dataclass
from typing import Annotated, Any

from psycopg import sql

from revector.core.backfill.job.job import AT_WORK, Job, engine_lives, find_job, last_sign, worker_lives
from revector.core.backfill.job.settings import JobSettings, read_settings
from revector.core.database import Connection, fetch_as, fetch_column, fetch_one
from revector.core.errors import UnreachableError
from revector.core.registry import KEPT_COUNT, Version

_RATE_WINDOW_S = 15
_SPREAD_WINDOW_S = 600
_SPREAD_BUCKET_S = 10
_FEWEST_BUCKETS = 3


@dataclass(frozen=True)
class JobStatus:
    """The status of a backfill.

    `eta_low_s` and `eta_high_s` use the tenth and ninetieth percentile of the rate over steps of ten seconds.
    """

    version_key: Annotated[str, "the version that is backfilled"]
    state: Annotated[str, "running, paused, done, failed …"]
    total: Annotated[int, "chunks"]
    done: Annotated[int, "chunks that have their vector"]
    failed: Annotated[int, "chunks that could not be embedded"]
    pending: Annotated[int, "chunks that are left"]
    rate: Annotated[float, "chunks a second, over the last seconds"]
    eta_s: Annotated[float | None, "seconds that are left; null when unknown"]
    throttle: Annotated[str | None, "the one reason that holds it at the moment"]
    workers: Annotated[int, "that are alive"]
    spent_usd: Annotated[float, "paid to the encoder so far"]
    error: Annotated[str | None, "what ended it"]
    started_at: Annotated[datetime.datetime | None, "when it first began"]
    finished_at: Annotated[datetime.datetime | None, "when it ended"]
    throttle_since: Annotated[datetime.datetime | None, "since when it is held"] = None
    eta_low_s: Annotated[float | None, "eta_s at the pace of the best tenth of the last ten minutes"] = None
    eta_high_s: Annotated[float | None, "eta_s at the pace of the worst tenth"] = None
    waiting: Annotated[int, "chunks in the outbox: new since it was done, or since it began"] = 0
    run_started_at: Annotated[datetime.datetime | None, "when the last run began"] = None
    run_done: Annotated[int, "chunks that got their vector in the last run"] = 0

    @property
    def took_s(self) -> float | None:
        """How long the last run took; None unless the job ended."""
        if self.run_started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.run_started_at).total_seconds()


@dataclass(frozen=True)
class WorkerState:
    """A worker of a job, alive or recently ended."""

    id: Annotated[int, "its number"]
    client: Annotated[str, "user@host"]
    engine: Annotated[str, "local or ray"]
    pid: Annotated[int | None, "its process id there"]
    alive: Annotated[bool, "false when it ended"]
    started_at: Annotated[datetime.datetime, "when it began"]
    seen_at: Annotated[datetime.datetime, "its last sign of life"]
    ended_at: Annotated[datetime.datetime | None, "when it ended"]
    done: Annotated[int, "chunks that it stored"]
    batch_size: Annotated[int | None, "texts at a time"]
    throttle: Annotated[str | None, "what holds it"]
    error: Annotated[str | None, "what ended it"]


@dataclass(frozen=True)
class Cell:
    """Neighbouring ranges of chunk ids, or part of one, as a cell of the map."""

    first_chunk_id: Annotated[int, "where it begins"]
    last_chunk_id: Annotated[int, "where it ends"]
    ranges: Annotated[int, "in it"]
    finished: Annotated[int, "ranges that are done"]
    running: Annotated[int, "ranges that a worker has"]
    failed: Annotated[int, "ranges with chunks that failed"]


@dataclass(frozen=True)
class Proof:
    """The result of one proof."""

    at: Annotated[datetime.datetime, "when"]
    missing: Annotated[int, "chunks without a vector, dead letters aside; 0 is the proof"]
    embedded: Annotated[int, "chunks with one"]
    dead_letters: Annotated[int, "chunks that could not be embedded"]
    seconds: Annotated[float, "that it took"]


@dataclass(frozen=True)
class Transition:
    """A change of a job's state."""

    at: Annotated[datetime.datetime, "when"]
    from_state: Annotated[str | None, "null for the first"]
    to_state: Annotated[str, "the state since then"]
    reason: Annotated[str | None, "why"]
    client: Annotated[str, "who caused it, as user@host"]


@dataclass(frozen=True)
class JobDetail:
    """What a screen shows in addition to the status."""

    settings: Annotated[JobSettings, "by name, as of `revector backfill set`"]
    measured: Annotated[dict[str, Any], "the figures behind the limits that are set, by name"]
    workers: Annotated[tuple[WorkerState, ...], "those alive, and those that ended not long ago"]
    cells: Annotated[tuple[Cell, ...], "the map"]
    proofs: Annotated[tuple[Proof, ...], "the newest first"]
    transitions: Annotated[tuple[Transition, ...], "the newest first"]


def status(connection: Connection, version: Version) -> JobStatus | None:
    """The status of the version's backfill, or None when it never had one."""
    query = sql.SQL(
        """
        SELECT j.id, j.state, j.total::numeric + j.outbox_done + waiting.n,
               j.outbox_done::numeric + coalesce(ranges.done, 0), failed.n,
               coalesce(recent.done / greatest(extract(epoch FROM now() - recent.since)::float8, 1), 0),
               coalesce(j.throttle, worker.throttle),
               CASE WHEN j.throttle IS NULL THEN worker.throttle_since ELSE j.throttle_since END,
               workers.n, j.spent_usd, j.error, j.started_at, j.finished_at,
               extract(epoch FROM now() - j.run_started_at)::float8, {engine}, waiting.n,
               j.run_started_at, j.run_done
        FROM backfill_jobs j
             LEFT JOIN LATERAL (SELECT w.throttle, w.throttle_since FROM backfill_workers w
                                WHERE w.job_id = j.id AND w.throttle IS NOT NULL AND {lives}
                                ORDER BY w.throttle_since LIMIT 1) AS worker ON true,
             LATERAL (SELECT sum(done) AS done FROM backfill_ranges WHERE job_id = j.id) AS ranges,
             LATERAL (SELECT {count} AS n FROM row_counts WHERE scope = -j.embedding_version_id) AS waiting,
             LATERAL (SELECT count(*) AS n FROM dead_letters
                      WHERE embedding_version_id = j.embedding_version_id AND waived_reason IS NULL) AS failed,
             LATERAL (SELECT sum(done) AS done, min(at - seconds * interval '1 second') AS since
                      FROM backfill_samples
                      WHERE job_id = j.id AND at > now() - %(window)s * interval '1 second') AS recent,
             LATERAL (SELECT count(*) AS n FROM backfill_workers w WHERE w.job_id = j.id AND {lives}) AS workers
        WHERE j.embedding_version_id = %(version)s
        """
    ).format(count=KEPT_COUNT, lives=worker_lives(sql.SQL("w.id")), engine=engine_lives(sql.SQL("j.id")))
    row = connection.execute(query, {"version": version.id, "window": _RATE_WINDOW_S}).fetchone()
    if row is None:
        return None
    job_id, state, total, done, failed, rate, throttle, since, workers, spent, error, started, finished = row[:13]
    age, engine, waiting, run_started, done_before = row[13:]
    total, done = max(0, int(total)), max(0, int(done))
    if state in AT_WORK and workers == 0 and not engine:
        state = "paused" if state == "pausing" else "interrupted"
        if state == "interrupted":
            error = error or last_sign(connection, job_id)
    if state == "done":
        total = done + failed + waiting  # chunks deleted meanwhile were planned but never processed
    if state not in AT_WORK:
        rate, throttle, since = 0.0, None, None
    pending = max(0, total - done - failed)
    slow, fast = _spread(connection, job_id, age) if rate > 0 else (0.0, 0.0)
    return JobStatus(
        version.version_key, state, total, done, failed, pending, float(rate), _left(pending, rate), throttle,
        workers, spent, error, started, finished, since, _left(pending, fast), _left(pending, slow), waiting,
        run_started, max(0, done - done_before),
    )  # fmt: skip


def require_status(connection: Connection, version: Version) -> JobStatus:
    """The status of a backfill that was begun. Raises UnreachableError when it is gone."""
    found = status(connection, version)
    if found is None:
        raise UnreachableError(f"The backfill of {version.version_key} is gone: was the version dropped?")
    return found


def _left(pending: int, rate: float) -> float | None:
    if pending == 0:
        return 0.0
    return pending / rate if rate > 0 else None


def _spread(connection: Connection, job_id: int, age_s: float) -> tuple[float, float]:
    """The tenth and ninetieth percentile of the rate, idle times included. Zeros while there is too little
    data."""
    buckets = int(min(age_s, _SPREAD_WINDOW_S) // _SPREAD_BUCKET_S)
    if buckets < _FEWEST_BUCKETS:
        return 0.0, 0.0
    done: dict[int, int] = dict(
        connection.execute(
            """
            SELECT floor(extract(epoch FROM now() - at) / %(bucket)s)::int, sum(done)::bigint
            FROM backfill_samples
            WHERE job_id = %(job)s AND at > now() - %(buckets)s * %(bucket)s * interval '1 second' GROUP BY 1
            """,
            {"bucket": _SPREAD_BUCKET_S, "buckets": buckets, "job": job_id},
        ).fetchall()
    )
    rates = [done.get(bucket, 0) / _SPREAD_BUCKET_S for bucket in range(buckets)]
    tenths = statistics.quantiles(rates, n=10, method="inclusive")
    return tenths[0], tenths[-1]


def rates(connection: Connection, version: Version) -> list[float]:
    """Chunks done in each of the last 120 seconds with work, oldest first: the points of a chart."""
    newest = fetch_column(
        connection,
        """
        SELECT sum(s.done)::float8
        FROM backfill_samples s JOIN backfill_jobs j ON j.id = s.job_id
        WHERE j.embedding_version_id = %s
        GROUP BY date_trunc('second', s.at) ORDER BY date_trunc('second', s.at) DESC LIMIT 120
        """,
        [version.id],
    )
    return newest[::-1]


def job_detail(connection: Connection, version: Version, *, cells: int = 200) -> JobDetail | None:
    """Settings, workers, a map of at most `cells` cells, the last proofs and transitions; None without a job."""
    job = find_job(connection, version)
    if job is None:
        return None
    settings, measured = fetch_one(
        connection, "SELECT settings, measured FROM backfill_jobs WHERE id = %s", [job.id]
    )
    proofs = fetch_as(
        connection,
        Proof,
        """
        SELECT at, missing, embedded, dead_letters, seconds FROM backfill_proofs
        WHERE embedding_version_id = %s ORDER BY id DESC LIMIT 5
        """,
        [version.id],
    )
    transitions = fetch_as(
        connection,
        Transition,
        """
        SELECT at, from_state, to_state, reason, client FROM backfill_transitions
        WHERE job_id = %s ORDER BY id DESC LIMIT 20
        """,
        [job.id],
    )
    workers = tuple(_workers(connection, job))
    ranges = tuple(range_map(connection, version, job, cells=cells))
    return JobDetail(read_settings(settings), measured, workers, ranges, tuple(proofs), tuple(transitions))


def _workers(connection: Connection, job: Job) -> list[WorkerState]:
    """The live workers first, then those that ended within ten minutes."""
    query = sql.SQL(
        """
        SELECT * FROM (
            SELECT id, client, engine, pid, {lives} AS alive, started_at, seen_at, ended_at, done, batch_size,
                   throttle, error
            FROM backfill_workers w WHERE job_id = %s) AS w
        WHERE alive OR seen_at > now() - interval '10 minutes'
        ORDER BY alive DESC, id DESC LIMIT 50
        """
    ).format(lives=worker_lives(sql.SQL("w.id")))
    return fetch_as(connection, WorkerState, query, [job.id])


def range_map(connection: Connection, version: Version, job: Job, *, cells: int) -> list[Cell]:
    """The job's ranges in order, merged into at most `cells` cells, or divided when there are few."""
    return fetch_as(
        connection,
        Cell,
        """
        WITH every AS (
            SELECT *, count(*) OVER () AS ranges FROM backfill_ranges WHERE job_id = %(job)s),
        parts AS (  -- where there are fewer ranges than cells, a range is several
            SELECT first_chunk_id + width * part / parts AS first_chunk_id,
                   first_chunk_id + width * (part + 1) / parts - 1 AS last_chunk_id,
                   state, lease_until, cursor
            FROM every, LATERAL (SELECT last_chunk_id - first_chunk_id + 1 AS width,
                                        greatest(1, %(cells)s / ranges) AS parts) AS size,
                 generate_series(0, parts - 1) AS part),
        numbered AS (
            SELECT *, row_number() OVER (ORDER BY first_chunk_id) - 1 AS n, count(*) OVER () AS all_of_them
            FROM parts WHERE last_chunk_id >= first_chunk_id),
        gathered AS (
            SELECT min(first_chunk_id) AS first_chunk_id, max(last_chunk_id) AS last_chunk_id,
                   count(*) AS ranges,
                   count(*) FILTER (WHERE state = 'done' OR cursor >= last_chunk_id) AS finished,
                   count(*) FILTER (WHERE state = 'leased' AND lease_until > now()
                                      AND cursor < last_chunk_id AND cursor + 1 >= first_chunk_id) AS running
            FROM numbered
            GROUP BY n * least(%(cells)s, all_of_them) / all_of_them)
        SELECT g.*, (SELECT count(*) FROM dead_letters d
                     WHERE d.embedding_version_id = %(version)s AND d.waived_reason IS NULL
                       AND d.chunk_id BETWEEN g.first_chunk_id AND g.last_chunk_id) AS failed
        FROM gathered g ORDER BY first_chunk_id
        """,
        {"job": job.id, "version": version.id, "cells": cells},
    )
