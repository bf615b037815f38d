"""The mirror of a process: sends a sample of users' queries to the candidate, and stores how the answers compare.

Users never wait for it. A call counts, samples, and puts sampled queries into a bounded queue; a full queue drops
and counts. Its own threads search by the candidate on their own connections; one more follows the `shadows` row,
watches for searches that hang, and writes results in batches. A circuit breaker stops asking a candidate that
keeps failing.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import secrets
import socket
import threading
import time
from dataclasses import replace
from typing import Self

import psycopg

from revector.core import forks
from revector.core.database import Connection, Database, readable_errors
from revector.core.errors import RevectorError
from revector.core.registry import get_version
from revector.core.retrieval import EncoderCache, SearchResult, VersionSearcher
from revector.core.retrieval.rerank import Rerankers
from revector.core.sessions import listen
from revector.core.shadow import store
from revector.core.shadow.breaker import Breaker
from revector.core.shadow.drawn import Drawn, Followed, row_of
from revector.core.shadow.runs import ShadowRun, running
from revector.core.wakeup import WakeUp

CHANNEL = "revector_shadow"
"""NOTIFY channel for a shadow that began, ended, or swapped its direction."""

_FLUSH_S = 1.0
"""How often the thread wakes up, and writes rows if there are any."""
_COUNTS_S = 5.0
"""How often counts are written without rows, for example while the breaker is open."""
_CONNECT_AGAIN_S = 1.0
_FORGET_S = 600.0
_MOST_STUCK = 8
"""The maximum of threads that hang on a candidate and have been replaced."""
_MOST_WAITING = 5_000
"""Rows kept while the database cannot be written; the oldest are dropped first."""


class Mirror:
    """Call it with every answer to a user: `mirror(result, segment)`. It returns at once and never raises.

    `timeout_s` limits a search by the candidate. `breaker_failures` in a row, including timeouts, open the breaker
    for `breaker_pause_s`. Share the Retriever's `encoders`, so that the candidate's encoder is already open at a
    flip. Close the mirror at the end, or the results of the last second are not written.

    The candidate's search has the user's options: the same k, filter, hybrid or not, and reranking. A search by
    the caller's vector has no text to encode, and is not mirrored. In a forked child, the first answer opens
    everything again.
    """

    def __init__(
        self,
        database: Database,
        *,
        encoders: EncoderCache | None = None,
        queue_size: int = 256,
        workers: int = 1,
        timeout_s: float = 2.0,
        breaker_failures: int = 5,
        breaker_pause_s: float = 5.0,
        poll_s: float = 5.0,
    ) -> None:
        self._database = database
        self._encoders = encoders or EncoderCache()
        self._timeout_s, self._poll_s = timeout_s, poll_s
        self._breaker_failures, self._breaker_pause_s = breaker_failures, breaker_pause_s
        self._queue_size, self._worker_count = queue_size, workers
        self._closing = threading.Event()
        self._begun = False
        self._beginning = threading.Lock()
        self._begin()
        forks.tell(self)

    def _begin(self) -> None:
        """Start the threads, with nothing sampled."""
        self._process = f"{socket.gethostname()}:{os.getpid()}"
        self._rerankers = Rerankers()
        self._lock = threading.Lock()
        self._followed: Followed | None = None
        self._left: list[Followed] = []
        """Earlier shadows whose last counts are not written yet."""
        self._queue: queue.Queue[Drawn | None] = queue.Queue(self._queue_size)
        self._under_way: set[Drawn] = set()
        self._rows: list[store.MirroredQuery] = []
        self._following = threading.Event()
        self._wake = WakeUp()
        self._flushes = threading.Condition()
        self._flushed = self._flush_wanted = 0
        self.trouble = ""
        """Why the row cannot be read, or nothing can be written, at the moment."""
        self._workers: set[threading.Thread] = set()
        self._stuck: set[threading.Thread] = set()
        self._follower = threading.Thread(target=self._follow, name="shadow-follower", daemon=True)
        for _ in range(self._worker_count):
            self._add_worker()
        self._follower.start()
        self._begun = True

    def forked(self) -> None:
        """Leave threads, connections and what was sampled to the parent: see revector.core.forks."""
        self._beginning = threading.Lock()
        closed, self._closing = self._closing.is_set(), threading.Event()
        if closed:
            self._closing.set()
        elif self._begun:
            self._begun = False
            self._followed = None
            self._wake.close()

    def _open(self) -> None:
        forks.check()
        if not self._begun and not self._closing.is_set():
            with self._beginning:
                if not self._begun:
                    self._begin()

    @property
    def run(self) -> ShadowRun | None:
        """The shadow that this process follows; None when none runs or none is known yet."""
        followed = self._followed
        return followed.run if followed else None

    def wait(self, timeout_s: float = 10.0) -> bool:
        """Wait until it follows a shadow; False when none ran in that time."""
        self._open()
        return self._following.wait(timeout_s)

    # -- on the user's path -------------------------------------------------------------------------------

    def __call__(self, result: SearchResult, segment: str = "") -> None:
        """Mirror an answer given to a user. Takes microseconds, whatever the candidate does."""
        with contextlib.suppress(RuntimeError):  # a child that cannot start a thread
            self._open()
        followed = self._followed
        if followed is None or self._closing.is_set() or not result.query:
            return
        if result.version_key == followed.version.version_key:
            return  # after a flip; the shadow will swap its direction in a moment
        drawn = random.random() < followed.run.sample  # noqa: S311  (a sample, not a secret)
        admitted = drawn and followed.breaker.admits()
        with self._lock:
            followed.counts.seen += 1
            followed.counts.drawn += drawn
            followed.counts.dropped += drawn and not admitted
        if admitted:
            self._put(Drawn(followed, result, segment))

    def _put(self, item: Drawn) -> None:
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            item.followed.breaker.withdraw()
            with self._lock:
                item.followed.counts.dropped += 1

    # -- the candidate ------------------------------------------------------------------------------------

    def _add_worker(self) -> None:
        worker = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._workers.add(worker)
        worker.start()

    def _work(self) -> None:
        """Search by the candidate for queries from the queue, until it gets None or is replaced by another
        thread."""
        connection: Connection | None = None
        while (item := self._queue.get()) is not None:
            try:
                if not self._is_stale(item):
                    connection = self._search(item, connection)
            finally:
                self._queue.task_done()
            with self._lock:
                if threading.current_thread() in self._stuck:
                    self._stuck.discard(threading.current_thread())
                    break
        else:
            self._queue.task_done()
        if connection is not None:
            connection.close()

    def _is_stale(self, item: Drawn) -> bool:
        """Whether it was sampled before the breaker opened, or for a shadow that is no longer followed."""
        stale = (
            item.followed is not self._followed or item.followed.breaker.state == "open" or self._closing.is_set()
        )
        if stale:
            with self._lock:
                item.followed.counts.dropped += 1
        return stale

    def _search(self, item: Drawn, connection: Connection | None) -> Connection | None:
        """Search by the candidate and record the outcome; returns the connection while it is usable."""
        version, result = item.followed.version, item.result
        candidate: SearchResult | None = None
        why = ""
        try:
            self._encoders.encoder(version)  # opening may take long once, and is not the search's fault
            if result.rerank is not None:
                self._rerankers.opened(result.rerank)
            with readable_errors(self._database):
                if connection is None or connection.closed:
                    connection = self._database.connect("shadow", statement_timeout_s=self._timeout_s)
                    forks.leave(connection)
                with self._lock:
                    item.started, item.worker = time.monotonic(), threading.current_thread()
                    self._under_way.add(item)
                searcher = VersionSearcher(connection, self._encoders, self._rerankers)
                candidate = searcher.search(
                    result.query, result.k, version=version, hybrid=result.hybrid, where=result.where,
                    rerank=result.rerank,
                )  # fmt: skip
        except Exception as error:  # noqa: BLE001  (whatever a candidate does, it ends here)
            why = store.error_of(error, result.query)
        self._outcome(item, candidate, why)
        return connection

    def _outcome(self, item: Drawn, candidate: SearchResult | None, why: str) -> bool:
        """Record the outcome of a search, only once; False for a later call."""
        followed = item.followed
        with self._lock:
            self._under_way.discard(item)
            if item.late:
                return False
            followed.counts.failed += candidate is None
            followed.counts.done += candidate is not None
            item.late = True
        if candidate is None:
            followed.breaker.failed(why)
        else:
            followed.breaker.succeeded()
        row = row_of(item, candidate, why)
        with self._lock:
            self._rows.append(row)
            del self._rows[:-_MOST_WAITING]
        return True

    def _give_up(self) -> None:
        """Count hanging searches as failed. Their threads keep waiting and are replaced by others."""
        now = time.monotonic()
        with self._lock:
            late = [
                one for one in self._under_way if one.started is not None and now - one.started > self._timeout_s
            ]
        for item in late:
            if self._outcome(item, None, f"no answer in {self._timeout_s:g} s"):
                self._replace(item.worker)

    def _replace(self, worker: threading.Thread | None) -> None:
        with self._lock:
            if worker in self._workers and len(self._stuck) < _MOST_STUCK and not self._closing.is_set():
                self._workers.discard(worker)
                self._stuck.add(worker)
                self._add_worker()

    # -- following and writing ----------------------------------------------------------------------------

    def _follow(self) -> None:
        """Follow the row, watch searches and write results, until closed; reconnects to a lost database."""
        connection: Connection | None = None
        read_at = written_at = forgot_at = -_FORGET_S
        while True:
            closing = self._closing.is_set()
            try:
                self._give_up()
                now = time.monotonic()
                if connection is None or connection.closed:
                    connection = self._database.connect("shadow", statement_timeout_s=max(5.0, self._timeout_s))
                    forks.leave(connection)
                    listen(connection, CHANNEL)
                    read_at = -_FORGET_S
                if list(connection.notifies(timeout=0)) or now - read_at >= self._poll_s:
                    self._read(connection)
                    read_at = now
                wanted = self._flush_wanted
                every = _FLUSH_S if self._rows or self._left else _COUNTS_S
                if closing or wanted > self._flushed or now - written_at >= every:
                    self._write(connection)
                    written_at = now
                    with self._flushes:
                        self._flushed = wanted
                        self._flushes.notify_all()
                if now - forgot_at >= _FORGET_S:
                    forgot_at = now
                    store.forget_expired(connection)
                if list(connection.notifies(timeout=0)):  # arrived with an answer, so it would not end the wait
                    read_at = -_FORGET_S
                self.trouble = ""
            except (psycopg.Error, RevectorError, OSError) as error:
                self.trouble = store.error_of(error, "\0")
                if connection is not None and (connection.closed or connection.broken):
                    connection = None
            if closing:
                break
            self._wake.wait(_CONNECT_AGAIN_S if self.trouble else self._pause(read_at), connection)
        self._wake.close()
        if connection is not None:
            connection.close()

    def _pause(self, read_at: float) -> float:
        """How many seconds this thread can sleep: searches compete with it for the processor."""
        now = time.monotonic()
        with self._lock:
            began = [one.started for one in self._under_way if one.started is not None]
        # A search that begins meanwhile is late after its time limit at the earliest.
        return min(read_at + self._poll_s - now, _FLUSH_S, min(began, default=now) + self._timeout_s - now)

    def _read(self, connection: Connection) -> None:
        """Read the running shadow. After a change of direction or a restart the counts start at 0."""
        run = running(connection)
        before = self._followed
        if run is None:
            if before is not None:
                self._leave(before)
            return
        version = get_version(connection, run.candidate)
        if before is not None and (before.run.id, before.version.id) == (run.id, version.id):
            before.run, before.version = run, version
            return
        if before is not None:
            self._leave(before)
        breaker = Breaker(self._breaker_failures, self._breaker_pause_s)
        counts = store.Counts(run.id, f"{self._process}/{secrets.token_hex(3)}")
        self._followed = Followed(run, version, breaker, counts)
        self._following.set()

    def _leave(self, followed: Followed) -> None:
        """Stop following the shadow: its queue is dropped, and its running searches are ignored."""
        self._followed = None
        self._following.clear()
        self._left.append(followed)
        if not self._closing.is_set():
            self._empty_queue()
        with self._lock:
            under_way = list(self._under_way)
        for item in under_way:
            self._replace(item.worker)

    def _write(self, connection: Connection) -> None:
        """Write waiting rows and changed counts. What cannot be written is kept for the next time."""
        followed = [*self._left, *([self._followed] if self._followed else [])]
        with self._lock:
            rows, self._rows = self._rows, []
            counts = [replace(one.counts, open=one.breaker.open) for one in followed]
        changed = [new for one, new in zip(followed, counts, strict=True) if new != one.written]
        try:
            if rows or changed:
                store.write(connection, rows, changed)
        except BaseException:
            with self._lock:
                self._rows = (rows + self._rows)[-_MOST_WAITING:]
            raise
        for one, new in zip(followed, counts, strict=True):
            one.written = new
        self._left = []

    # -- the end ------------------------------------------------------------------------------------------

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until all sampled queries are searched and written; False after the timeout."""
        self._open()
        end = time.monotonic() + timeout_s
        done = self._queue.all_tasks_done
        with done:
            if not done.wait_for(lambda: not self._queue.unfinished_tasks, timeout_s):
                return False
        with self._flushes:
            self._flush_wanted += 1
            wanted = self._flush_wanted
            self._wake.ring()
            return self._flushes.wait_for(lambda: self._flushed >= wanted, end - time.monotonic())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write the results and stop; queued queries are dropped, and a hanging candidate is not waited for."""
        forks.check()
        if self._closing.is_set():
            return
        end = time.monotonic() + timeout_s
        self._closing.set()
        if not self._begun:  # in a child that mirrored nothing
            return
        self._empty_queue()
        with self._lock:
            workers = list(self._workers)
        for _ in workers:
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(None)
        for thread in workers:
            thread.join(max(0.0, end - time.monotonic()))
        self._wake.ring()
        self._follower.join(max(0.5, end - time.monotonic()))

    def _empty_queue(self) -> None:
        with contextlib.suppress(queue.Empty):
            while (item := self._queue.get_nowait()) is not None:
                with self._lock:
                    item.followed.counts.dropped += 1
                self._queue.task_done()
