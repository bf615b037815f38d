"""The backfill job: its states and allowed moves, its plan of chunk id ranges, and its controls.

A job is rows in the database, not a process. Each worker's session holds an advisory lock, which shows whether
anyone works on the job: the lock ends with the session, however the process ended.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, LiteralString

from psycopg import sql
from psycopg.types.json import Jsonb

from revector.core import audit
from revector.core.backfill.job.settings import JobSettings, changed, read_settings
from revector.core.database import Connection, fetch_as, fetch_one
from revector.core.errors import RefusedError, UsageError
from revector.core.hosts import require_allowed
from revector.core.registry import Version, chunk_count, create_table, embedded_count
from revector.core.settings import changed_fields

log = logging.getLogger(__name__)

# interrupted is not failed: no worker serves the job at the moment, and any worker can continue it. pausing is not
# paused: current batches are still being finished.
MOVES: dict[str, frozenset[str]] = {
    "running": frozenset({"pausing", "interrupted", "proving", "failed", "cancelled"}),
    "pausing": frozenset({"paused", "running", "interrupted", "cancelled"}),
    "paused": frozenset({"running", "cancelled"}),
    "interrupted": frozenset({"running", "paused", "cancelled"}),
    "proving": frozenset({"running", "pausing", "done", "failed", "interrupted", "cancelled"}),
    "done": frozenset({"running"}),
    "failed": frozenset({"running", "cancelled"}),
    "cancelled": frozenset({"running"}),
}

AT_WORK = ("running", "pausing", "proving")
ENDED = ("done", "failed", "cancelled")

_RANGE_CHUNKS, _FEWEST_CHUNKS = 16_384, 512
_RANGES_EACH = 8
"""Of a small job, for each worker: so that none is idle while another has the rest."""
_MOST_RANGES = 20_000
"""The status sums over the ranges: 20,000 rows take some 3 ms."""


WORKER_LOCK = sql.SQL("hashtext('backfill ' || current_schema()), %s::int")
"""Arguments of the advisory lock that the session of worker %s holds while it lives."""

ENGINE_LOCK = sql.SQL("hashtext('backfill engine ' || current_schema()), %s::int")
"""Arguments of the advisory lock, shared among them, of the engines that start workers for job %s."""

STAY_LOCK = sql.SQL("hashtext('backfill stay ' || current_schema()), %s::int")
"""The same for engines that stay with job %s while it is paused."""

_HELD = sql.SQL(
    """EXISTS (
        SELECT FROM pg_locks l
        WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted AND l.objid::bigint = {id}
          AND l.classid::bigint = (hashtext({kind} || current_schema())::bigint & 4294967295)
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))"""
)


@dataclass(frozen=True)
class Job:
    """One row of backfill_jobs."""

    id: int
    state: str


def worker_lives(worker_id: sql.SQL) -> sql.Composed:
    """SQL condition: whether the session of the worker with that id is alive."""
    return _HELD.format(id=worker_id, kind=sql.Literal("backfill "))


def engine_lives(job_id: sql.SQL) -> sql.Composed:
    """SQL condition: whether an engine that starts workers for the job with that id is alive."""
    return _HELD.format(id=job_id, kind=sql.Literal("backfill engine "))


def open_job(connection: Connection, version: Version, settings: JobSettings | None = None) -> Job:
    """Start the version's backfill, or continue or join an existing one.

    `settings` apply to a new job; an existing job keeps its own. Raises RefusedError while it is pausing, and for an
    encoder whose host or key the owner has not allowed.
    """
    with audit.refusals(connection, "backfill start", version.version_key):
        require_allowed(version.encoder_spec, version.encoder_hosts)
    create_table(connection, version)
    with connection.transaction():
        # The version's row is the lock: when two workers start at once, one plans the job and the other joins it.
        (state,) = fetch_one(
            connection, "SELECT state FROM embedding_versions WHERE id = %s FOR NO KEY UPDATE", [version.id]
        )
        job = find_job(connection, version, lock=True)
        if job is None or state in ("registered", "retired"):
            return _plan_job(connection, version, settings or JobSettings())
        job = _settled(connection, job)
        if job.state == "pausing":
            raise RefusedError(
                f"The backfill of {version.version_key} is pausing.", "Wait until it is paused, then resume."
            )
        if job.state not in AT_WORK:
            move(connection, job, "running", begins=True)
            if job.state != "done":  # that one only takes up new chunks, and says so at its end
                audit.record(connection, "backfill resume", version.version_key)
        return Job(job.id, "running")


def rejoin(connection: Connection, job: Job) -> bool:
    """Continue a job whose workers lost the database; False when it was paused, ended or dropped meanwhile."""
    with connection.transaction():
        now = _find(connection, "id = %s FOR UPDATE", job.id)
        if now is None:
            return False
        if now.state == "pausing":
            _settled(connection, now)
        elif now.state == "interrupted":
            move(connection, now, "running")
            return True
        return now.state in ("running", "proving")


def find_job(connection: Connection, version: Version, *, lock: bool = False) -> Job | None:
    """The version's job, None when it never had one; `lock` locks its row for this transaction."""
    which: LiteralString = "embedding_version_id = %s FOR UPDATE" if lock else "embedding_version_id = %s"
    return _find(connection, which, version.id)


def _find(connection: Connection, which: LiteralString, of: int) -> Job | None:
    query = sql.SQL("SELECT id, state FROM backfill_jobs WHERE {}").format(sql.SQL(which))
    return next(iter(fetch_as(connection, Job, query, [of])), None)


def require_job(connection: Connection, version: Version, *, lock: bool = False) -> Job:
    """The version's job. Raises UsageError when it has none."""
    job = find_job(connection, version, lock=lock)
    if job is None:
        raise UsageError(
            f"Version {version.version_key} has no backfill.", f"revector backfill run {version.version_key}"
        )
    return job


def notice_interruption(connection: Connection, job: Job) -> Job | None:
    """The job as it is now; None when it is gone. A running job without a live worker or engine becomes
    interrupted."""
    found = _find(connection, "id = %s", job.id)
    if found is None or found.state not in AT_WORK or count_workers(connection, job.id):
        return found
    with connection.transaction():
        found = _find(connection, "id = %s FOR UPDATE", job.id)
        return found and _settled(connection, found)


def _settled(connection: Connection, job: Job) -> Job:
    """The job, moved to paused when it is pausing and no worker lives, or to interrupted when no process serves
    it."""
    if job.state not in AT_WORK or count_workers(connection, job.id):
        return job
    if job.state != "pausing" and _holds(connection, engine_lives(sql.SQL("%s")), job):
        return job
    state = "paused" if job.state == "pausing" else "interrupted"
    move(connection, job, state, reason=None if state == "paused" else last_sign(connection, job.id))
    return Job(job.id, state)


def _plan_job(connection: Connection, version: Version, settings: JobSettings) -> Job:
    # From here on the trigger queues new chunks for this version; ranges cover ids up to the largest one seen
    # below. The proof finds what an open transaction inserts in between.
    connection.execute("SELECT begin_filling(%s)", [version.id])
    connection.execute("DELETE FROM backfill_jobs WHERE embedding_version_id = %s", [version.id])
    (job_id,) = fetch_one(
        connection,
        """
        INSERT INTO backfill_jobs (embedding_version_id, state, settings, total)
        VALUES (%s, 'running', %s, %s) RETURNING id
        """,
        [
            version.id,
            Jsonb(changed_fields(settings)),
            max(0, chunk_count(connection) - embedded_count(connection, version)),
        ],
    )
    connection.execute(
        """
        WITH bounds AS (SELECT min(id) AS first, max(id) AS last FROM document_chunks),
             width AS (SELECT greatest(
                           least(%(chunks)s, greatest(%(fewest)s, ceil((last::numeric - first + 1) / %(each)s))),
                           trunc((last::numeric - first) / %(most)s) + 1)::bigint AS ids
                       FROM bounds)
        INSERT INTO backfill_ranges (job_id, first_chunk_id, last_chunk_id, cursor)
        SELECT %(job)s, start, least(start::numeric + ids - 1, last), greatest(start::numeric - 1, -9223372036854775808)
        FROM bounds, width, generate_series(first, last, ids) AS start
        """,
        {
            "job": job_id,
            "chunks": _RANGE_CHUNKS,
            "fewest": _FEWEST_CHUNKS,
            "each": _RANGES_EACH * max(1, settings.workers),
            "most": _MOST_RANGES,
        },
    )
    audit.record(connection, "backfill start", version.version_key, detail=changed_fields(settings))
    return Job(job_id, "running")


def move(
    connection: Connection,
    job: Job,
    state: str,
    *,
    reason: str | None = None,
    worker_id: int | None = None,
    begins: bool = False,
) -> None:
    """Move a job to another state; `reason` becomes its error, `worker_id` is the worker that proves.

    With `begins` a new run begins: its time, counts and share of failures are from now on.

    Raises RefusedError when MOVES does not allow it, or when another worker is proving.
    """
    updated = connection.execute(
        """
        UPDATE backfill_jobs j
        SET state = %(state)s, throttle = NULL, throttle_since = NULL,
            proving_worker = CASE WHEN %(state)s = 'proving' THEN %(worker)s::bigint END,
            error = CASE WHEN %(state)s = 'running' THEN NULL ELSE coalesce(%(reason)s, error) END,
            finished_at = CASE WHEN %(state)s IN ('done', 'failed', 'cancelled') THEN now() END,
            checked_at = CASE WHEN %(state)s = 'running' THEN '-infinity' ELSE checked_at END,
            run_started_at = CASE WHEN %(begins)s THEN now() ELSE run_started_at END,
            run_release = CASE WHEN %(begins)s THEN NULL ELSE run_release END,
            run_done = CASE WHEN NOT %(begins)s THEN run_done
                ELSE outbox_done + (SELECT coalesce(sum(done), 0) FROM backfill_ranges WHERE job_id = j.id) END
        WHERE id = %(id)s AND state = ANY(%(from)s)
          AND (state <> 'proving' OR %(worker)s::bigint IS NULL OR proving_worker = %(worker)s)
        """,
        {
            "worker": worker_id,
            "id": job.id,
            "state": state,
            "reason": reason,
            "from": [source for source, to in MOVES.items() if state in to],
            "begins": begins,
        },
    )
    if updated.rowcount != 1:
        raise RefusedError(f"The backfill is {job.state}; it cannot become {state}.")
    level = logging.WARNING if state in ("failed", "interrupted") else logging.INFO
    log.log(level, "backfill job %d: %s, was %s", job.id, state, job.state)


def request_pause(connection: Connection, version: Version) -> None:
    """Let the workers finish their current batches and stop; without workers the job is paused at once.

    Raises UsageError when the version has no backfill, RefusedError when there is nothing to pause.
    """
    with connection.transaction():
        found = require_job(connection, version, lock=True)
        job, before = _settled(connection, found), found.state
        if job.state != "paused" or before != "pausing":
            move(connection, job, "paused" if job.state == "interrupted" else "pausing")
        audit.record(connection, "backfill pause", version.version_key)


def request_cancel(connection: Connection, version: Version) -> None:
    """End the job; embedded chunks stay. Raises as `request_pause` does."""
    with connection.transaction():
        move(connection, require_job(connection, version, lock=True), "cancelled")
        audit.record(connection, "backfill cancel", version.version_key)


def request_resume(connection: Connection, version: Version) -> bool:
    """Resume a paused job through the engine that stays with it; False when there is none.

    Raises as `request_pause` does.
    """
    with connection.transaction():
        job = require_job(connection, version, lock=True)
        if job.state in AT_WORK or not engine_stays(connection, job):
            return False
        move(connection, job, "running", begins=True)
        audit.record(connection, "backfill resume", version.version_key)
        return True


def change_settings(connection: Connection, version: Version, changes: Mapping[str, object]) -> JobSettings:
    """Change settings of a job; returns all settings in force. Workers follow at their next heartbeat.

    Raises UsageError for a setting that does not exist or a value out of its range, RefusedError for a limit
    that cannot be measured here.
    """
    from revector.core.backfill.job.throttles import require_measurable

    with connection.transaction():
        job = require_job(connection, version, lock=True)
        before = job_settings(connection, job)
        after = changed(before, changes)
        require_measurable(connection, after, changes)
        # Measure a changed limit at the next heartbeat.
        connection.execute(
            "UPDATE backfill_jobs SET settings = %s, checked_at = '-infinity' WHERE id = %s",
            [Jsonb(changed_fields(after)), job.id],
        )
        detail = {
            name: {"from": asdict(before)[name], "to": asdict(after)[name]}
            for name in changes
            if asdict(before)[name] != asdict(after)[name]
        }
        if detail:
            audit.record(connection, "backfill set", version.version_key, detail=detail)
    return after


def job_settings(connection: Connection, job: Job) -> JobSettings:
    """The settings in force."""
    return read_settings(fetch_one(connection, "SELECT settings FROM backfill_jobs WHERE id = %s", [job.id])[0])


def count_workers(connection: Connection, job_id: int) -> int:
    """How many workers' sessions are alive."""
    query = sql.SQL("SELECT count(*) FROM backfill_workers w WHERE w.job_id = %s AND {}").format(
        worker_lives(sql.SQL("w.id"))
    )
    return int(fetch_one(connection, query, [job_id])[0])


def last_sign(connection: Connection, job_id: int) -> str | None:
    """How the last worker of a job that nobody serves was last seen, in words; None when it never had one."""
    row = connection.execute(
        """
        SELECT client, pid, engine, seen_at, done FROM backfill_workers
        WHERE job_id = %s AND ended_at IS NULL ORDER BY seen_at DESC LIMIT 1
        """,
        [job_id],
    ).fetchone()
    if row is None:
        return None
    client, pid, engine, seen, done = row
    where = f"{client}{' on Ray' if engine == 'ray' else ''}{f', process {pid}' if pid else ''}"
    return (
        f"its workers ended without a word, killed or cut off: the last was seen at {seen:%Y-%m-%d %H:%M:%S %Z} on "
        f"{where}, with {done:,} chunks stored"
    )


def engine_stays(connection: Connection, job: Job) -> bool:
    """Whether an engine waits for the job to be resumed."""
    return _holds(connection, _HELD.format(id=sql.SQL("%s"), kind=sql.Literal("backfill stay ")), job)


def _holds(connection: Connection, lock: sql.Composed, job: Job) -> bool:
    return bool(fetch_one(connection, sql.SQL("SELECT {}").format(lock), [job.id])[0])


def measured(connection: Connection, job: Job) -> dict[str, Any]:
    """The figures behind the limits that are set, as last measured by `core.backfill.job.throttles.look`."""
    found: dict[str, Any] = fetch_one(connection, "SELECT measured FROM backfill_jobs WHERE id = %s", [job.id])[0]
    return found
