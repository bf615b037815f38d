"""Supervision, by one of a job's workers for all of them once a second: the limits and the share of failures.

Any worker that finds the last check a second old does the next one, so there is no leader to lose.
"""

from __future__ import annotations

import logging

from psycopg.types.json import Jsonb

from revector.core import audit
from revector.core.backfill.job import throttles
from revector.core.backfill.job.job import Job, move
from revector.core.backfill.job.settings import JobSettings, read_settings
from revector.core.database import Connection, fetch_one
from revector.core.errors import RefusedError
from revector.core.registry import Version, fold_counts

log = logging.getLogger(__name__)

_FEWEST_FAILURES = 10
"""Chunks needed before a share of failures means anything."""


def supervise(connection: Connection, version: Version, job: Job, *, due: bool = False) -> None:
    """Check if it is due: record the reason that holds the job, or stop the job for its failures.

    With `due` also while another worker does: what it will find is not in the job's row yet.
    """
    row = connection.execute(
        """
        UPDATE backfill_jobs SET checked_at = clock_timestamp()
        WHERE id = %s AND state IN ('running', 'proving')
          AND (%s OR checked_at < clock_timestamp() - interval '1 second')
        RETURNING settings, measured, spent_usd
        """,
        [job.id, due],
    ).fetchone()
    if row is None:
        return
    settings, measured, spent = read_settings(row[0]), row[1], row[2]
    found = throttles.look(connection, settings, spent, measured)
    reason = found[found["held_by"]]["reason"] if found["held_by"] else None
    connection.execute(
        """
        UPDATE backfill_jobs
        SET throttle = %(reason)s::text, measured = %(found)s,
            throttle_since = CASE WHEN %(reason)s::text IS NULL THEN NULL
                                  WHEN measured ->> 'held_by' = %(held_by)s AND throttle IS NOT NULL
                                  THEN throttle_since ELSE now() END
        WHERE id = %(job)s AND state IN ('running', 'proving')
        """,
        {"reason": reason, "found": Jsonb(found), "held_by": found["held_by"], "job": job.id},
    )
    if found["held_by"] != (measured or {}).get("held_by"):
        if found["held_by"]:
            log.warning("backfill of %s: held by %s", version.version_key, found["held_by"])
        else:
            log.info("backfill of %s: no longer held", version.version_key)
        log.debug("backfill of %s: %s", version.version_key, reason)
    _end_frozen_workers(connection, job, settings)
    _stop_for_failures(connection, version, job, settings)
    fold_counts(connection, version.id, -version.id)


def _end_frozen_workers(connection: Connection, job: Job, settings: JobSettings) -> None:
    """End the sessions of workers without a heartbeat for as long as a lease.

    A process frozen or cut off in the middle of a COPY keeps its rows locked, and no Postgres timeout applies
    while the server waits for a client's data. Such a worker, once resumed, finds its connections closed and
    reconnects.
    """
    connection.execute(
        """
        WITH silent AS (
            UPDATE backfill_workers SET ended_at = now(), error = 'no sign of life'
            WHERE job_id = %(job)s AND ended_at IS NULL AND seen_at < now() - %(lease)s * interval '1 second'
            RETURNING sessions)
        SELECT pg_terminate_backend(a.pid)
        FROM silent JOIN pg_stat_activity a ON a.pid = ANY(silent.sessions)
        WHERE a.datname = current_database() AND a.application_name LIKE 'revector backfill%%'
          AND pg_has_role(a.usesysid, 'USAGE')  -- else the server would refuse it: another operator's run ends them
          AND a.backend_start < now() - %(lease)s * interval '1 second'  -- not another one with the same pid since
        """,
        {"job": job.id, "lease": settings.lease_s},
    )


def _stop_for_failures(connection: Connection, version: Version, job: Job, settings: JobSettings) -> None:
    failed, done = fetch_one(
        connection,
        """
        SELECT (SELECT count(*) FROM dead_letters d
                WHERE d.embedding_version_id = j.embedding_version_id AND d.failed_at >= j.run_started_at),
               j.outbox_done - j.run_done
               + (SELECT coalesce(sum(done), 0)::bigint FROM backfill_ranges WHERE job_id = j.id)
        FROM backfill_jobs j WHERE j.id = %s
        """,
        [job.id],
    )
    if failed < _FEWEST_FAILURES or failed <= settings.max_failed_share * (failed + done):
        return
    share = 100 * failed / (failed + done)
    reason = (
        f"{failed:,} of {failed + done:,} chunks of this run failed: {share:.0f} %, over the limit of "
        f"{100 * settings.max_failed_share:g} % (max_failed_share)"
    )
    try:
        with connection.transaction():
            move(connection, Job(job.id, "running"), "failed", reason=reason)
            audit.record(connection, "backfill", version.version_key, "failed", reason=reason)
    except RefusedError:
        return  # paused or cancelled at this very moment
