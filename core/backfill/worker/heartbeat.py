"""A worker's heartbeat: shows that the worker lives, renews its leases, and reads what others ask of the job.

It runs twice a second on its own connection, which also holds the worker's advisory lock. Pause, cancel, changed
settings and limits reach every worker within a second, whatever its other threads wait for.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import psycopg
from psycopg import errors as pg
from psycopg import sql

from revector.core.backfill.job.job import WORKER_LOCK, Job, worker_lives
from revector.core.backfill.job.settings import read_settings
from revector.core.backfill.worker.control import Control
from revector.core.backfill.worker.supervision import supervise
from revector.core.database import Connection, client_name, fetch_one
from revector.core.encoders import Encoder, Parallel
from revector.core.registry import Version

HEARTBEAT_S = 0.5


class Heartbeat:
    """One worker's registration with a job, and the thread that renews it."""

    def __init__(
        self,
        connection: Connection,
        version: Version,
        job: Job,
        control: Control,
        encoder: Encoder,
        *,
        engine: str,
    ) -> None:
        self._connection, self._version, self._job, self._control = connection, version, job, control
        self._encoder = encoder
        self._ended = threading.Event()
        self._batch_size: Callable[[], int] = lambda: 0
        self.worker_id = int(
            fetch_one(
                connection,
                """
                INSERT INTO backfill_workers (job_id, client, engine, pid, sessions)
                VALUES (%s, %s, %s, %s, ARRAY[pg_backend_pid()]) RETURNING id
                """,
                [job.id, client_name(), engine, os.getpid()],
            )[0]
        )
        connection.execute(sql.SQL("SELECT pg_advisory_lock({})").format(WORKER_LOCK), [self.worker_id])
        self._thread = threading.Thread(target=self._beat_on, name="backfill-heartbeat", daemon=True)

    def start(self, batch_size: Callable[[], int]) -> None:
        """Start the thread; `batch_size` returns the texts that this worker encodes at a time."""
        self._batch_size = batch_size
        # Before the first batch, not after it; and never trusting a check that another worker has only begun.
        supervise(self._connection, self._version, self._job, due=True)
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; the connection keeps the lock."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _beat_on(self) -> None:
        try:
            while not self._ended.wait(HEARTBEAT_S):
                try:
                    supervise(self._connection, self._version, self._job)
                    self._beat()
                except (pg.DiskFull, pg.OutOfMemory, pg.InsufficientResources, pg.DeadlockDetected):
                    continue  # the writer reports it; requests to the job arrive with the next beat
        except psycopg.Error as error:
            self._control.fail(error)

    def _beat(self) -> None:
        batch_size = self._batch_size()
        row = self._connection.execute(
            sql.SQL(
                """
                WITH beat AS (
                         UPDATE backfill_workers
                         SET seen_at = now(), batch_size = %(batch_size)s,
                             throttle = %(reason)s::text,
                             throttle_since = CASE WHEN %(reason)s::text IS NULL THEN NULL
                                                   ELSE coalesce(throttle_since, now()) END
                         WHERE id = %(worker)s),
                     held AS (
                         UPDATE backfill_ranges SET lease_until = now() + %(lease)s * interval '1 second'
                         WHERE lease_worker = %(worker)s AND state = 'leased' AND job_id = %(job)s
                           AND lease_until < now() + %(lease)s * interval '0.5 second')
                SELECT j.state, j.settings, j.throttle,
                       (SELECT count(*) FROM backfill_workers w WHERE w.job_id = j.id AND {})
                FROM backfill_jobs j WHERE j.id = %(job)s
                """
            ).format(worker_lives(sql.SQL("w.id"))),
            {
                "worker": self.worker_id,
                "job": self._job.id,
                "lease": self._control.settings.lease_s,
                "reason": self._control.reason,
                "batch_size": batch_size,
            },
        ).fetchone()
        if row is None or row[0] not in ("running", "proving"):
            self._control.stop()
            return
        self._control.follow(read_settings(row[1]), row[2], row[3])
        if isinstance(self._encoder, Parallel):
            self._encoder.share = 1 / self._control.live_workers
