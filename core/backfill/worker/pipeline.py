"""Reads, encodes and writes at the same time, so that the encoder never waits for Postgres.

A thread with its own connection leases ranges and reads batches, a pool of threads encodes them, and another
thread stores them in the order they were read, so that a range's cursor never passes a batch that is not stored
yet. The queue between them is bounded, and so is the memory, for any corpus.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from psycopg import errors as pg

from revector.core import audit
from revector.core.backfill.job import spending
from revector.core.backfill.job.job import Job, move
from revector.core.backfill.worker import batches
from revector.core.backfill.worker.batches import Batch, Encoded, LostLeaseError
from revector.core.backfill.worker.control import Control, DatabaseGoneError, StoppedError
from revector.core.backfill.worker.encoding import BatchEncoder
from revector.core.backfill.worker.pace import BatchPacer, BatchSize
from revector.core.backfill.worker.proof import prove, proven_within, take_over_proof
from revector.core.backfill.worker.unsaved import UnsavedVectors
from revector.core.database import Connection, Database, fetch_one
from revector.core.encoders import Parallel
from revector.core.encoders.again import cost
from revector.core.errors import RefusedError, UnreachableError
from revector.core.registry import Version

if TYPE_CHECKING:
    from revector.core.encoders import Encoder

log = logging.getLogger(__name__)

T = TypeVar("T")

_QUEUED = 2
"""Batches read ahead of the encoder's threads."""
_POLL_S = 0.25
_VECTOR_BYTES = 64 << 20
_TEXT_BYTES = 32 << 20
"""Of all current batches together. (Text may take up to four times as much in Python.)"""
_FIRST_RETRY_S, _LONGEST_RETRY_S = 1.0, 30.0


class Pipeline:
    """One worker's work on a job, for as long as its connections last."""

    def __init__(
        self,
        database: Database,
        version: Version,
        job: Job,
        worker_id: int,
        encoder: Encoder,
        control: Control,
        unsaved: UnsavedVectors,
        on_batch: Callable[[int], None],
        *,
        prove_every_s: float = 0.0,
    ) -> None:
        self._database, self._version, self._job, self._worker_id = database, version, job, worker_id
        self._encoder, self._control, self._unsaved, self._on_batch = encoder, control, unsaved, on_batch
        self._parallel = encoder.parallel if isinstance(encoder, Parallel) else 1
        in_hand = self._parallel + _QUEUED + 2
        self.batch_size = BatchSize(most=_VECTOR_BYTES // in_hand // (4 * version.dimensions))
        self.stored = 0
        self._prove_every_s = prove_every_s
        self._most_bytes = _TEXT_BYTES // in_hand
        self._pacer = BatchPacer()
        self._purse = spending.Purse(job, worker_id)
        self._batches: queue.SimpleQueue[Future[Encoded] | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(self._parallel + _QUEUED)
        self._in_hand = 0
        self._idle = threading.Condition()
        self._pool = ThreadPoolExecutor(self._parallel, thread_name_prefix="backfill-encoder")

    def run(self) -> None:
        """Work until nothing is left to do, or the control says stop."""
        reader = threading.Thread(target=self._guarded, args=[self._read], name="backfill-reader")
        writer = threading.Thread(target=self._guarded, args=[self._write], name="backfill-writer")
        for thread in (reader, writer):
            thread.start()
        try:
            reader.join()
        except BaseException as error:  # noqa: BLE001  (Ctrl-C: raised again by the worker)
            self._control.fail(error)
            reader.join()
        self._pool.shutdown(cancel_futures=self._control.stopped)
        self._batches.put(None)
        writer.join()
        # Save what was encoded when the writer could not get a connection.
        with contextlib.suppress(queue.Empty):
            while (future := self._batches.get_nowait()) is not None:
                if not future.cancelled() and future.exception() is None:
                    self._unsaved.keep(future.result())

    def _guarded(self, target: Callable[[Connection], None]) -> None:
        try:
            try:
                connection = self._database.connect("backfill", own_session=True)
            except UnreachableError as error:
                raise DatabaseGoneError(error.problem) from error
            try:
                connection.execute(
                    "UPDATE backfill_workers SET sessions = sessions || pg_backend_pid() WHERE id = %s",
                    [self._worker_id],
                )
                target(connection)
            finally:
                connection.close()
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001  (handed to the worker)
            self._control.fail(error)

    # -- reading ------------------------------------------------------------------------------------------

    def _read(self, connection: Connection) -> None:
        while not self._control.stopped:
            lease = self._patiently(
                lambda: batches.lease_range(
                    connection, self._job.id, self._worker_id, self._control.settings.lease_s
                )
            )
            if lease is not None:
                self._read_range(connection, lease)
            elif not self._read_rest(connection):
                return

    def _read_range(self, connection: Connection, lease: batches.Lease) -> None:
        cursor, last = lease.cursor, False
        while not last:
            size = self._next_size()
            batch = self._patiently(
                lambda start=cursor, size=size: batches.read_range(  # type: ignore[misc]
                    connection, self._version, lease, start, size, most_bytes=self._most_bytes
                )
            )
            self._begin(connection, batch)
            cursor, last = batch.cursor, batch.last

    def _next_size(self) -> int:
        """Wait until no limit holds the job and the rate allows a batch; returns its rows."""
        while True:
            self._control.pass_gate()
            rate = self._control.settings.max_rate
            share = rate / self._control.live_workers if rate else None
            delay = self._pacer.delay(share)
            if not delay:
                return self.batch_size.next(self._control.settings.batch_size, rate=share)
            with self._control.holding(f"max_rate {rate:g} chunks/s", linger_s=2.0):
                self._control.wait(min(delay, _POLL_S))

    def _begin(self, connection: Connection, batch: Batch) -> None:
        if self._control.stopped:
            raise StoppedError
        reserved = self._reserve(connection, batch)
        while not self._room.acquire(timeout=_POLL_S):
            if self._control.stopped:
                raise StoppedError
        self._pacer.begin(len(batch.ids))
        with self._idle:
            self._in_hand += 1
        self._batches.put(self._pool.submit(self._encode, batch, reserved))

    def _reserve(self, connection: Connection, batch: Batch) -> float:
        """Reserve money for the batch when there is a cap; waits until the cap has room."""
        if not self._encoder.price or self._control.settings.max_spend_usd is None:
            return 0.0
        texts = [text for row, text in enumerate(batch.texts) if row not in batch.same_as]
        usd = cost(self._encoder, texts)
        while (cap := self._control.settings.max_spend_usd) is not None:
            reason = self._purse.reserve(connection, usd, cap)
            if reason is None:
                return usd
            with self._control.holding(reason):
                self._control.wait(_POLL_S)
        return 0.0

    def _read_rest(self, connection: Connection) -> bool:
        """After the ranges: the outbox, then the proof. False when nothing is left to do."""
        size, lease_s = self._next_size(), self._control.settings.lease_s
        batch = self._patiently(
            lambda: batches.read_outbox(
                connection, self._version, self._worker_id, size, lease_s, most_bytes=self._most_bytes
            )
        )
        if batch is not None:
            self._begin(connection, batch)
            return True
        with self._idle:
            if self._in_hand:  # what is being encoded or written still counts as missing
                self._idle.wait(_POLL_S)
                return True
        others = fetch_one(
            connection,
            """
            SELECT EXISTS (SELECT FROM backfill_ranges WHERE job_id = %s AND state <> 'done')
                OR EXISTS (SELECT FROM chunk_outbox WHERE embedding_version_id = %s)
            """,
            [self._job.id, self._version.id],
        )[0]
        if others:  # another worker has leased them; they come to us if it dies
            self._control.wait(_POLL_S)
            return True
        return self._prove(connection)

    def _prove(self, connection: Connection) -> bool:
        proving = Job(self._job.id, "proving")
        try:
            move(connection, self._job, "proving", worker_id=self._worker_id)
        except RefusedError:
            # Another worker is proving, or the job was stopped; the heartbeat will say.
            take_over_proof(connection, self._job, self._control.settings.lease_s)
            self._control.wait(_POLL_S)
            return True
        missing = 0
        if not proven_within(connection, self._version, self._prove_every_s):
            with self._control.interruptible(connection):
                missing = self._patiently(lambda: prove(connection, self._version))
        if missing:
            move(connection, proving, "running", worker_id=self._worker_id)
            return True
        (failed,) = fetch_one(
            connection,
            "SELECT count(*) FROM dead_letters WHERE embedding_version_id = %s AND waived_reason IS NULL",
            [self._version.id],
        )
        reason = f"{failed} chunks could not be embedded" if failed else None
        with connection.transaction():
            move(connection, proving, "failed" if failed else "done", worker_id=self._worker_id, reason=reason)
            audit.record(
                connection, "backfill", self._version.version_key, "failed" if failed else "done",
                detail={"failed": failed},
            )  # fmt: skip
        return False

    # -- encoding -----------------------------------------------------------------------------------------

    def _encode(self, batch: Batch, reserved: float) -> Encoded:
        self._control.pass_gate()
        began = time.monotonic()
        rows = [row for row in range(len(batch.ids)) if row not in batch.same_as]
        kept_ids, kept_vectors, rows, owed = self._unsaved.take(batch, rows)
        texts = [batch.texts[row] for row in rows] if len(rows) < len(batch.ids) else batch.texts
        encoder = BatchEncoder(self._encoder, self._version)
        try:
            self._ask(encoder, texts)
        finally:
            billed = spending.billed(self._encoder)
        ids, row_of = np.array(batch.ids, dtype=np.int64), np.array(rows, dtype=np.int64)
        chunk_ids, vectors = ids[row_of[encoder.good]], encoder.vectors
        if kept_ids:
            chunk_ids = np.concatenate([chunk_ids, np.array(kept_ids, dtype=np.int64)])
            vectors = np.concatenate([vectors, np.stack(kept_vectors)])
        failures = [(batch.ids[rows[row]], reason) for row, reason in encoder.failures]
        if failures:
            log.warning("cannot embed these chunks: %s", ", ".join(str(chunk) for chunk, _ in failures))
        copies = [(batch.ids[row], same_as) for row, same_as in batch.same_as.items()]
        if failures and copies:
            failed = {chunk_id for chunk_id, _ in failures}
            failures += [(chunk, "same text as a chunk that failed") for chunk, same in copies if same in failed]
            copies = [(chunk, same) for chunk, same in copies if same not in failed]
        spent = owed + cost(self._encoder, texts, billed)
        return Encoded(batch, chunk_ids, vectors, copies, failures, spent, reserved, time.monotonic() - began)

    def _ask(self, encoder: BatchEncoder, texts: list[str]) -> None:
        """Encode, and keep trying while the provider is unreachable: that is throttling, not failure."""
        delay, began = _FIRST_RETRY_S, time.monotonic()
        while True:
            try:
                encoder.encode(texts)
            except UnreachableError as error:
                if not error.temporary or time.monotonic() - began > self._control.settings.patience_s:
                    raise
                log.warning("%s cannot be reached, trying again in %.0f s", self._encoder.name, delay)
                with self._control.holding(f"{error.problem}; trying again every {delay:.0f} s"):
                    self._control.wait(delay)
                encoder.forget()
                delay = min(2 * delay, _LONGEST_RETRY_S)
            else:
                return

    # -- writing ------------------------------------------------------------------------------------------

    def _write(self, connection: Connection) -> None:
        if self._encoder.price == 0:
            # A crash of the server may lose the last commits, vectors and cursor alike. Vectors that cost nothing
            # are simply made again; commits of paid vectors wait for the disk.
            connection.execute("SET synchronous_commit = off")
        # A process that freezes in its transaction holds up others no longer than its lease.
        connection.execute(
            "SELECT set_config('idle_in_transaction_session_timeout', %s, false)",
            [f"{round(1000 * self._control.settings.lease_s)}ms"],
        )
        since, unsampled = time.monotonic(), 0
        while (future := self._batches.get()) is not None:
            stored = self._write_one(connection, future)
            self.stored += stored
            unsampled += stored
            now = time.monotonic()
            if now - since >= 1:
                self._sample(connection, unsampled, now - since)
                since, unsampled = now, 0
        if unsampled:
            self._sample(connection, unsampled, time.monotonic() - since)

    def _write_one(self, connection: Connection, future: Future[Encoded]) -> int:
        encoded = None
        try:
            encoded = future.result()
            began = time.monotonic()
            lease_s = self._control.settings.lease_s
            stored = self._patiently(
                lambda: batches.commit(connection, self._version, self._job.id, encoded, lease_s, self._worker_id)
            )
            slowest = max(encoded.seconds, time.monotonic() - began)
            self.batch_size.took(len(encoded.batch.ids), slowest, self._control.settings.target_batch_s)
            self._on_batch(stored)
        except (CancelledError, StoppedError):
            return 0
        except LostLeaseError:
            log.warning(
                "worker %d lost its lease: another one has the range, and the batch is dropped", self._worker_id
            )
            if encoded is not None and encoded.spent_usd:
                spending.record_spent(connection, self._job, encoded.spent_usd)
            return 0
        except BaseException as error:  # noqa: BLE001  (also of the encoder's threads; handed to the worker)
            if encoded is not None:
                self._unsaved.keep(encoded)
            self._control.fail(error)
            return 0
        else:
            return stored
        finally:
            self._purse.release(encoded.reserved_usd if encoded is not None else 0.0)
            self._room.release()
            with self._idle:
                self._in_hand -= 1
                self._idle.notify_all()

    def _sample(self, connection: Connection, done: int, seconds: float) -> None:
        connection.execute(
            "INSERT INTO backfill_samples (job_id, done, seconds) VALUES (%s, %s, %s)",
            [self._job.id, done, seconds],
        )
        connection.execute(
            "DELETE FROM backfill_samples WHERE job_id = %s AND at < now() - interval '1 hour'", [self._job.id]
        )

    def _patiently(self, statement: Callable[[], T]) -> T:
        """Run a statement; wait and retry while the server lacks something that people can fix."""
        delay = _FIRST_RETRY_S
        while True:
            try:
                return statement()
            except (pg.DeadlockDetected, pg.SerializationFailure):
                self._control.wait(0.05)
            except (pg.DiskFull, pg.OutOfMemory, pg.InsufficientResources, pg.LockNotAvailable) as error:
                log.warning("the server reports %s, trying again in %.0f s", type(error).__name__, delay)
                reason = f"the server reports: {error.diag.message_primary}; trying again every {delay:.0f} s"
                with self._control.holding(reason):
                    self._control.wait(delay)
                delay = min(2 * delay, _LONGEST_RETRY_S)
