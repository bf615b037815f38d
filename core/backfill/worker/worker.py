"""A backfill worker: works on a job until nothing is missing, and reconnects after a lost database."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from revector.core.backfill.job.job import WORKER_LOCK, Job, count_workers, job_settings, rejoin, require_job
from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.job.status import JobStatus, require_status
from revector.core.backfill.worker.agreement import require_agreement
from revector.core.backfill.worker.control import Control, DatabaseGoneError, StoppedError
from revector.core.backfill.worker.encoding import check_encoder
from revector.core.backfill.worker.heartbeat import Heartbeat
from revector.core.backfill.worker.pipeline import Pipeline
from revector.core.backfill.worker.reconnect import Losses, is_lost
from revector.core.backfill.worker.unsaved import UnsavedVectors
from revector.core.database import Connection, Database, client_name, readable_errors
from revector.core.encoders import Throttled
from revector.core.errors import RevectorError, UnreachableError
from revector.core.registry import Version

if TYPE_CHECKING:
    from revector.core.encoders import Encoder


log = logging.getLogger(__name__)


class Worker:
    """Does the backfill of one version until nothing is missing, the job is paused or ended, or the worker
    leaves."""

    def __init__(
        self,
        database: Database,
        version: Version,
        encoder: Encoder,
        *,
        engine: str = "local",
        check: bool = False,
        prove_every_s: float = 0.0,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        """With `check` it first encodes one text, and compares the vector with the version's dimensions and with what
        the job's other workers made of it.

        A proof stays valid for `prove_every_s` while only new chunks are added. `on_batch` is called with the
        chunks stored.
        """
        self._database, self._version, self._encoder, self._engine = database, version, encoder, engine
        self._on_batch = on_batch or (lambda _stored: None)
        self._check, self._prove_every_s = check, prove_every_s
        self._control = Control(JobSettings())
        self._unsaved = UnsavedVectors()
        self._stored = 0
        self._leaving: str | None = None
        self._left = threading.Event()
        if isinstance(encoder, Throttled):
            encoder.on_throttle = lambda seconds, reason: self._control.throttled(seconds, reason)
            encoder.on_resume = lambda: self._control.resumed()
            encoder.wait = lambda seconds: self._control.wait(seconds)

    def leave(self, reason: str) -> None:
        """Finish the current batches and leave; the job continues without this worker. May be called from any
        thread."""
        self._leaving = reason
        self._left.set()
        self._control.stop()

    def join(self) -> JobStatus:
        """Work on a backfill that was already started until it is done, paused or ended; returns its status.

        Reconnects after every loss of the database. Raises UnreachableError when database or encoder stays
        unreachable, and EncoderError when the encoder is at fault: the job is then interrupted, and any worker can
        continue it.
        """
        with self._database.session("backfill", own_session=True) as connection:
            job = require_job(connection, self._version)
        losses = Losses(self._control.settings)
        while True:
            connection = self._connect()
            try:
                if self._left.is_set() or not rejoin(connection, job):
                    return require_status(connection, self._version)
                return self._work(connection, job)
            except (psycopg.Error, DatabaseGoneError) as error:
                if not is_lost(error):
                    with readable_errors(self._database):
                        raise
                problem = str(error).strip().partition("\n")[0]
                delay = losses.delay_after(self._stored)
                if delay is None:
                    raise UnreachableError(
                        f"The database {self._database.name} was lost repeatedly: {problem}"
                    ) from error
                log.warning("%s: lost the database, trying again in %.1f s", self._version.version_key, delay)
                log.debug("lost the database: %s", problem)
                self._left.wait(delay)
            finally:
                connection.close()

    def _connect(self) -> Connection:
        losses = Losses(self._control.settings)
        while True:
            try:
                return self._database.connect("backfill", own_session=True)
            except UnreachableError:
                delay = losses.delay_after(self._stored)
                if delay is None or self._left.is_set():
                    raise
            self._left.wait(delay)

    def _work(self, connection: Connection, job: Job) -> JobStatus:
        control = self._control = Control(job_settings(connection, job))
        if self._left.is_set():
            control.stop()
        heartbeat = Heartbeat(connection, self._version, job, control, self._encoder, engine=self._engine)
        pipeline = Pipeline(
            self._database, self._version, job, heartbeat.worker_id, self._encoder, control, self._unsaved,
            self._on_batch, prove_every_s=self._prove_every_s,
        )  # fmt: skip
        log.info(
            "worker %d joins the backfill of %s, job %d", heartbeat.worker_id, self._version.version_key, job.id
        )
        heartbeat.start(lambda: pipeline.batch_size.next(control.settings.batch_size))
        try:
            if self._check:
                probe = check_encoder(self._encoder, self._version)
                require_agreement(connection, self._version, job, probe)
                self._check = False
            pipeline.run()
        except StoppedError:
            pass  # while its provider made it wait
        except RevectorError as error:
            control.fail(error)
        finally:
            heartbeat.stop()
            self._stored += pipeline.stored
        failure = control.failure
        why = type(failure).__name__ if failure else "asked to" if self._leaving else "no more to do"
        log.info("worker %d leaves (%s), %d chunks stored", heartbeat.worker_id, why, pipeline.stored)
        log.debug("worker %d leaves", heartbeat.worker_id, exc_info=failure)
        if failure is not None and is_lost(failure):
            raise failure
        try:
            self._settle(connection, job, heartbeat.worker_id, failure)
        except psycopg.Error:
            if failure is None:
                raise
        if failure is not None:
            raise failure
        return require_status(connection, self._version)

    def _settle(self, connection: Connection, job: Job, worker_id: int, failure: BaseException | None) -> None:
        """Record how this worker left."""
        reason = None
        if isinstance(failure, KeyboardInterrupt):
            reason = "stopped at the keyboard"
        elif failure is not None:
            reason = str(failure).partition("\n")[0] or type(failure).__name__
        connection.execute(
            "UPDATE backfill_workers SET ended_at = now(), error = %s, throttle = NULL WHERE id = %s",
            [reason, worker_id],
        )
        reason = reason or self._leaving
        if reason is not None and (failure is None or isinstance(failure, KeyboardInterrupt)):
            reason += f" by {client_name()}"
        # Batches read but not written are released at once, so that others need not wait for the lease to expire.
        connection.execute(
            "UPDATE backfill_ranges SET state = 'waiting' WHERE lease_worker = %s AND state = 'leased'",
            [worker_id],
        )
        connection.execute(
            """
            UPDATE backfill_jobs SET state = 'running', proving_worker = NULL
            WHERE id = %s AND state = 'proving' AND proving_worker = %s
            """,
            [job.id, worker_id],
        )
        connection.execute(sql.SQL("SELECT pg_advisory_unlock({})").format(WORKER_LOCK), [worker_id])
        if count_workers(connection, job.id):
            return
        left = connection.execute(
            """
            UPDATE backfill_jobs
            SET state = CASE WHEN state = 'pausing' THEN 'paused'
                             WHEN %(reason)s::text IS NOT NULL THEN 'interrupted'
                             ELSE state END,
                error = coalesce(%(reason)s::text, error), throttle = NULL, throttle_since = NULL
            WHERE id = %(job)s AND state IN ('running', 'proving', 'pausing')
            RETURNING state
            """,
            {"reason": reason, "job": job.id},
        ).fetchone()
        if left is not None:
            log.info("backfill job %d: %s, nobody works on it", job.id, left[0])
