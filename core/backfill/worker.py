"""A backfill worker: reads, encodes and writes at the same time, so that the encoder never waits for Postgres.

Three threads with a connection each, and bounded queues between them: the reader leases ranges and reads
batches, the caller's thread encodes, the writer stores. A fourth keeps the worker's lock and heartbeat, and
passes on what is asked of the job from other sessions (pause, cancel).
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import psycopg
from psycopg import sql

from core import audit
from core.backfill import batches
from core.backfill.batches import Batch, Chunk, Encoded, LostLeaseError
from core.backfill.job import WORKER_LOCK, Job, count_workers, move, open_job, status
from core.backfill.proof import prove
from core.database import Connection, Database, client_name, fetch_one, unreachable
from core.encoders import Throttled
from core.errors import EncoderError, RefusedError, UnreachableError
from core.registry import Version

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from core.backfill.job import JobStatus
    from core.encoders import Encoder

_HEARTBEAT_S = 0.5
_QUEUED_BATCHES = 2
_MAX_FAILED_SHARE = 0.5
"""A batch of which more than this share is refused says that the encoder is at fault, not its texts."""


@dataclass(frozen=True)
class WorkerSettings:
    """Texts encoded at a time, and for how long a worker that shows no sign of life keeps its range."""

    batch_size: int = 256
    lease_s: float = 60.0


class _StoppedError(Exception):
    """The job was paused or cancelled, or another thread of this worker failed."""


class Worker:
    """Does the backfill of one version until nothing is missing, or until the job is paused or cancelled."""

    def __init__(
        self,
        database: Database,
        version: Version,
        encoder: Encoder,
        settings: WorkerSettings,
        *,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        self._database = database
        self._version = version
        self._encoder = encoder
        self._settings = settings
        self._on_batch = on_batch or (lambda _stored: None)
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._read: queue.Queue[Batch | None] = queue.Queue(_QUEUED_BATCHES)
        self._encoded: queue.Queue[Encoded | None] = queue.Queue(_QUEUED_BATCHES)
        self._in_flight = 0
        self._idle = threading.Condition()
        self._throttle: str | None = None
        if isinstance(encoder, Throttled):
            encoder.on_throttle = self._hold
            encoder.wait = self._wait

    def run(self) -> JobStatus:
        """Work until the job is done, paused or cancelled; returns its status then.

        Raises UnreachableError when the database or the encoder is lost (the job is then interrupted and can be
        taken up by anyone), EncoderError when the encoder itself is at fault.
        """
        with self._database.session("backfill") as control:
            self._job = open_job(
                control,
                self._version,
                {"batch_size": self._settings.batch_size, "lease_s": self._settings.lease_s},
            )
            self._worker_id = self._register(control)
            threads = [
                threading.Thread(target=self._guarded, args=[target], name=f"backfill-{target.__name__}")
                for target in (self._reader, self._writer)
            ]
            heart = threading.Thread(target=self._guarded, args=[self._heart, control], name="backfill-heart")
            for thread in (*threads, heart):
                thread.start()
            try:
                self._encode_all()
            except BaseException as error:  # noqa: BLE001  (Ctrl-C among them; raised again in _finish)
                self._fail(error)
                self._encode_all()  # encodes nothing any more: lets the reader go, which may wait for room
            finally:
                self._encoded_put(None)
                for thread in threads:
                    thread.join()
                self._ended.set()
                heart.join()
            return self._finish(control)

    # -- threads ------------------------------------------------------------------------------------------

    def _guarded(self, target: Callable[..., None], *arguments: object) -> None:
        try:
            target(*arguments)
        except _StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001  (handed to the caller of run)
            self._fail(error)
        finally:
            if target == self._reader:
                self._put(self._read, None)  # says that nothing more comes

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, _StoppedError) and self._failure is None:
            self._failure = error
        self._stop.set()

    def _heart(self, control: Connection) -> None:
        while not self._ended.wait(_HEARTBEAT_S):
            row = control.execute(
                """
                WITH beat AS (UPDATE backfill_workers SET seen_at = now() WHERE id = %(worker)s),
                     held_up AS (UPDATE backfill_jobs
                                 SET throttle = %(throttle)s::text,
                                     throttle_since = CASE WHEN %(throttle)s::text IS NULL THEN NULL
                                                           ELSE coalesce(throttle_since, now()) END
                                 WHERE id = %(job)s AND throttle IS DISTINCT FROM %(throttle)s::text),
                     held AS (UPDATE backfill_ranges SET lease_until = now() + %(lease)s * interval '1 second'
                              WHERE lease_worker = %(worker)s AND state = 'leased' AND job_id = %(job)s
                                AND lease_until < now() + %(lease)s * interval '0.5 second')
                SELECT state FROM backfill_jobs WHERE id = %(job)s
                """,
                {
                    "worker": self._worker_id,
                    "job": self._job.id,
                    "lease": self._settings.lease_s,
                    "throttle": self._throttle,
                },
            ).fetchone()
            if row is None or row[0] not in ("running", "proving"):
                self._stop.set()

    def _reader(self) -> None:
        with self._connection() as connection:
            while not self._stop.is_set():
                lease = batches.lease_range(connection, self._job.id, self._worker_id, self._settings.lease_s)
                if lease is not None:
                    self._read_range(connection, lease)
                elif not self._read_rest(connection):
                    return

    def _read_range(self, connection: Connection, lease: batches.Lease) -> None:
        cursor, last = lease.cursor, False
        while not last:
            if self._stop.is_set():
                raise _StoppedError
            batch = batches.read_range(connection, self._version, lease, cursor, self._settings.batch_size)
            self._begin(batch)
            cursor, last = batch.cursor, batch.last

    def _read_rest(self, connection: Connection) -> bool:
        """After the ranges: the outbox, then the proof. False when there is nothing more to do."""
        batch = batches.read_outbox(connection, self._version, self._settings.batch_size, self._settings.lease_s)
        if batch is not None:
            self._begin(batch)
            return True
        with self._idle:
            if self._in_flight:  # what is being encoded or written still counts as missing
                self._idle.wait(_HEARTBEAT_S)
                return True
        others = fetch_one(
            connection,
            """
            SELECT EXISTS (SELECT FROM backfill_ranges WHERE job_id = %s AND state <> 'done')
                OR EXISTS (SELECT FROM chunk_outbox WHERE embedding_version_id = %s)
            """,
            [self._job.id, self._version.id],
        )[0]
        if others:  # another worker has them in hand; its leases fall to us if it dies
            self._stop.wait(_HEARTBEAT_S)
            return True
        return self._prove(connection)

    def _prove(self, connection: Connection) -> bool:
        try:
            move(connection, self._job, "proving")
        except RefusedError:
            self._stop.wait(_HEARTBEAT_S)  # another worker proves, or the job was stopped: the heart will tell
            return True
        if prove(connection, self._version):
            move(connection, Job(self._job.id, "proving"), "running")
            return True
        failed = fetch_one(
            connection,
            "SELECT count(*) FROM dead_letters WHERE embedding_version_id = %s AND waived_reason IS NULL",
            [self._version.id],
        )[0]
        move(connection, Job(self._job.id, "proving"), "failed" if failed else "done")
        if failed:
            connection.execute(
                "UPDATE backfill_jobs SET error = %s WHERE id = %s",
                [f"{failed} chunks could not be embedded", self._job.id],
            )
        audit.record(
            connection, "backfill", self._version.version_key, "failed" if failed else "done",
            detail={"failed": failed},
        )  # fmt: skip
        return False

    def _writer(self) -> None:
        with self._connection() as connection:
            since, unsampled = time.monotonic(), 0
            while (encoded := self._encoded.get()) is not None:
                try:
                    stored = batches.commit(
                        connection,
                        self._version,
                        self._job.id,
                        encoded,
                        self._price(encoded),
                        self._settings.lease_s,
                    )
                except LostLeaseError:
                    stored = 0
                finally:
                    self._end()
                unsampled += stored
                self._on_batch(stored)
                now = time.monotonic()
                if now - since >= 1:
                    self._sample(connection, unsampled, now - since)
                    since, unsampled = now, 0
            if unsampled:
                self._sample(connection, unsampled, time.monotonic() - since)

    def _sample(self, connection: Connection, done: int, seconds: float) -> None:
        connection.execute(
            "INSERT INTO backfill_samples (job_id, done, seconds) VALUES (%s, %s, %s)",
            [self._job.id, done, seconds],
        )
        connection.execute(
            "DELETE FROM backfill_samples WHERE job_id = %s AND at < now() - interval '1 hour'", [self._job.id]
        )

    # -- encoding -----------------------------------------------------------------------------------------

    def _encode_all(self) -> None:
        while (batch := self._read.get()) is not None:
            encoded = None
            if not self._stop.is_set():
                try:
                    encoded = self._encode(batch)
                except Exception as error:  # noqa: BLE001  (a provider's own error too ends the run in order)
                    self._fail(error)
            if encoded is None:
                self._end()
            else:
                self._encoded_put(encoded)

    def _encode(self, batch: Batch) -> Encoded:
        chunks = [chunk for chunk in batch.chunks if chunk.same_as is None]
        copies = [(chunk.id, chunk.same_as) for chunk in batch.chunks if chunk.same_as is not None]
        good, vectors, failures = self._encode_chunks(chunks)
        if len(failures) > max(1, _MAX_FAILED_SHARE * len(chunks)):
            raise EncoderError(
                f"The encoder refused {len(failures)} of {len(chunks)} texts: {failures[0][1]}",
                "Look at the encoder before going on; the batch was not stored.",
            )
        failed = {chunk_id for chunk_id, _ in failures}
        copies = [(chunk, same) for chunk, same in copies if same not in failed]
        failures += [(c.id, "same text as a failed chunk") for c in batch.chunks if c.same_as in failed]
        tokens = self._encoder.count_tokens([chunk.content for chunk in chunks]) if self._encoder.price else 0
        ids = np.array([chunk.id for chunk in good], dtype=np.int64)
        return Encoded(batch, ids, vectors, copies, failures, tokens)

    def _encode_chunks(
        self, chunks: Sequence[Chunk]
    ) -> tuple[list[Chunk], NDArray[np.float32], list[tuple[int, str]]]:
        """Encode; a part that fails is halved until the bad chunk is alone, and the rest goes on."""
        from core.encoders import find_bad_rows

        nothing = np.empty((0, self._version.dimensions), dtype=np.float32)
        if not chunks:
            return [], nothing, []
        try:
            vectors = np.asarray(self._encoder.encode_documents([c.content for c in chunks]), dtype=np.float32)
        except EncoderError as error:
            if len(chunks) == 1:
                return [], nothing, [(chunks[0].id, error.problem)]
            half = len(chunks) // 2
            first, second = self._encode_chunks(chunks[:half]), self._encode_chunks(chunks[half:])
            return first[0] + second[0], np.concatenate([first[1], second[1]]), first[2] + second[2]
        if vectors.shape != (len(chunks), self._version.dimensions):
            raise EncoderError(
                f"The encoder answered with vectors of shape {vectors.shape}; version "
                f"{self._version.version_key} expects {(len(chunks), self._version.dimensions)}.",
                "The encoder is not the one that the version was registered with.",
            )
        bad = dict(find_bad_rows(vectors))
        if not bad:
            return list(chunks), vectors, []
        keep = [row for row in range(len(chunks)) if row not in bad]
        failures = [(chunks[row].id, reason) for row, reason in bad.items()]
        return [chunks[row] for row in keep], vectors[keep], failures

    def _hold(self, seconds: float, reason: str) -> None:
        self._throttle = f"{reason}, waiting {seconds:.0f} s"

    def _wait(self, seconds: float) -> None:
        stopped = self._stop.wait(seconds)
        self._throttle = None
        if stopped:
            raise _StoppedError

    def _price(self, encoded: Encoded) -> float:
        return encoded.tokens * (self._encoder.price or 0) / 1_000_000

    # -- bookkeeping --------------------------------------------------------------------------------------

    def _register(self, control: Connection) -> int:
        worker_id = int(
            fetch_one(
                control,
                "INSERT INTO backfill_workers (job_id, client) VALUES (%s, %s) RETURNING id",
                [self._job.id, client_name()],
            )[0]
        )
        control.execute(sql.SQL("SELECT pg_advisory_lock({})").format(WORKER_LOCK), [worker_id])
        return worker_id

    def _finish(self, control: Connection) -> JobStatus:
        if isinstance(self._failure, psycopg.OperationalError):
            raise unreachable(self._failure, self._database) from self._failure
        control.execute("UPDATE backfill_workers SET ended_at = now() WHERE id = %s", [self._worker_id])
        control.execute(sql.SQL("SELECT pg_advisory_unlock({})").format(WORKER_LOCK), [self._worker_id])
        self._settle(control)
        if self._failure is not None:
            raise self._failure
        result = status(control, self._version)
        if result is None:
            raise UnreachableError(
                f"The backfill of {self._version.version_key} is gone: was the version dropped?"
            )
        return result

    def _settle(self, control: Connection) -> None:
        """Say in the job's row how this worker left it, when nobody else works on it."""
        # What was read and not written goes back at once; nobody has to wait for the lease to run out.
        control.execute(
            "UPDATE backfill_ranges SET state = 'waiting' WHERE lease_worker = %s AND state = 'leased'",
            [self._worker_id],
        )
        if count_workers(control, self._job.id):
            return
        control.execute(
            "UPDATE chunk_outbox SET leased_until = NULL WHERE embedding_version_id = %s AND leased_until > now()",
            [self._version.id],
        )
        reason = None
        if self._failure is not None:
            reason = str(self._failure).partition("\n")[0] or type(self._failure).__name__
            if isinstance(self._failure, KeyboardInterrupt):
                reason = f"stopped at the keyboard by {client_name()}"
        control.execute(
            """
            UPDATE backfill_jobs
            SET state = CASE WHEN state = 'pausing' THEN 'paused'
                             WHEN %(reason)s::text IS NOT NULL THEN 'interrupted'
                             ELSE state END,
                error = coalesce(%(reason)s::text, error)
            WHERE id = %(job)s AND state IN ('running', 'proving', 'pausing')
            """,
            {"reason": reason, "job": self._job.id},
        )

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection]:
        connection = self._database.connect("backfill")
        try:
            yield connection
        finally:
            connection.close()

    def _begin(self, batch: Batch) -> None:
        with self._idle:
            self._in_flight += 1
        self._put(self._read, batch)

    def _end(self) -> None:
        with self._idle:
            self._in_flight -= 1
            self._idle.notify_all()

    def _put(self, where: queue.Queue[Batch | None], item: Batch | None) -> None:
        while True:
            try:
                where.put(item, timeout=_HEARTBEAT_S)
            except queue.Full:
                if self._stop.is_set() and item is not None:
                    self._end()
                    raise _StoppedError from None
            else:
                return

    def _encoded_put(self, item: Encoded | None) -> None:
        while True:
            try:
                self._encoded.put(item, timeout=_HEARTBEAT_S)
            except queue.Full:
                if self._failure is not None:  # the writer may be gone
                    return
            else:
                return
