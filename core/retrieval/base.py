"""What the blocking and the asynchronous retriever share: everything but the waiting.

The steps of a search are coroutines. Those of the blocking retriever call only what blocks, so they end without an
event loop (core.retrieval.connections.completed).
"""

from __future__ import annotations

import concurrent.futures
import functools
import threading
import time
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, TypeAlias, TypeVar

import psycopg

from revector.core import forks
from revector.core.database import Database, readable_errors
from revector.core.errors import (
    BusyError,
    ClosedError,
    DatabaseUnreachableError,
    NotReadyError,
    UnreachableError,
    UsageError,
)
from revector.core.registry import Version
from revector.core.retrieval.connections import LOOK_S, Failures, late, set_up, settled, timeout_setting, unset
from revector.core.retrieval.counts import Counter
from revector.core.retrieval.encoding import EncoderCache, QueryCache
from revector.core.retrieval.pointer import Pointer
from revector.core.retrieval.result import SearchResult
from revector.core.retrieval.steps import Opening, SearchSteps, Statement, Steps, Work
from revector.core.serving import plain_word

T = TypeVar("T")

MirrorHook: TypeAlias = Callable[[SearchResult, str], None]
"""Called with a result and its segment when the answer is ready; must return at once and never raise."""


LEAST_TIMEOUT_S, MOST_TIMEOUT_S = 0.01, 86_400.0
"""A caller's own time limit must leave a search some time: searches that it ends count as errors of the version, and a
watch rolls back on those. Ten milliseconds are less than a slow search of a healthy service needs."""
_CONNECT_S = 1.0
"""A healthy server may take as long to accept a connection: before, nothing is said of it."""


class RetrieverBase:
    """Searches a collection by its active version, or by the one that is pinned.

    `pool_size` is the maximum of connections; `timeout_s` is for a whole search, also while a model is being opened;
    `cache_size` is how many query vectors are cached. RETRIEVAL_ROLLBACK_VERSION, or else `pinned`, names a
    version to stay with. `program` is one word that others see in application_name. Creating a retriever does not
    wait for the database.

    In a forked child, the first search opens everything again; the parent's connections stay the parent's.

    Raises UsageError for a malformed connection string.
    """

    _pool: Any
    _places: Any
    """Searches wait here for a free connection, in order; in the pool only while a connection is being opened."""

    def __init__(
        self,
        database: Database,
        *,
        encoders: EncoderCache | None = None,
        pool_size: int = 8,
        timeout_s: float = 5.0,
        cache_size: int = 10_000,
        pinned: str | None = None,
        poll_s: float = 1.0,
        program: str = "retriever",
        mirror: MirrorHook | None = None,
    ) -> None:
        if pool_size < 1 or poll_s <= 0:
            raise UsageError(f"pool_size is {pool_size} and poll_s {poll_s}; expected 1 or more, and above 0.")
        self._database, self._timeout_s, self._mirror = database, timeout_s, mirror
        self._limit(None)
        self._program, self._pinned, self._poll_s = plain_word(program), pinned, poll_s
        self._pool_size, self._cache_size = pool_size, cache_size
        self._encoders = encoders or EncoderCache()
        self._failures = Failures(database)
        self._beginning = threading.Lock()
        self._begun = self._closed = False
        self._begin()
        forks.tell(self)

    def _begin(self) -> None:
        """Start the threads, and open the pool."""
        # Not by the threads: a child that is forked meanwhile could never import it.
        import pgvector.psycopg  # noqa: F401
        import psycopg_pool  # noqa: F401

        options, counter = self._options_of_pool(), Counter()
        self._workers = concurrent.futures.ThreadPoolExecutor(self._pool_size, "revector-encoder")
        self._pointer = Pointer(
            self._database, counter, self._encoders,
            program=self._program, pinned=self._pinned, poll_s=self._poll_s,
        )  # fmt: skip
        self._searches = SearchSteps(self._pointer, self._encoders, QueryCache(self._cache_size), counter)
        self._open_pool(options)
        self._begun = True

    def forked(self) -> None:
        """Leave threads and connections to the parent: see revector.core.forks."""
        self._beginning = threading.Lock()
        if self._begun:
            self._begun = False
            self._pointer.forked()

    def _open_searches(self) -> SearchSteps:
        """The steps of searches in this process. Raises ClosedError after `close`."""
        forks.check()
        if not self._begun:
            if self._closed:
                raise ClosedError("This retriever is closed.")
            with self._beginning:
                if not self._begun:
                    self._begin()
        return self._searches

    def _closed_meanwhile(self) -> ClosedError:
        return ClosedError("This retriever was closed while it searched.")

    def _ends(self) -> bool:
        """Begin to close; whether this process has something to close."""
        forks.check()
        self._closed = True
        begun, self._begun = self._begun, False
        return begun

    def _open_pool(self, options: dict[str, Any]) -> None:
        raise NotImplementedError

    @property
    def version(self) -> Version | None:
        """The version served now, as far as this process knows; None before it knows one."""
        return self._pointer.version

    def _options_of_pool(self) -> dict[str, Any]:
        options = self._database.connect_options(self._program)
        return {
            "conninfo": options.pop("conninfo"),
            "kwargs": options
            | {"database": self._database, "failed": self._failures.note, "limit_s": self._timeout_s},
            "min_size": 1,
            "max_size": self._pool_size,
            # One try, and another when a search asks again: with a backoff, searches would still wait after an
            # outage.
            "reconnect_timeout": 0,
            "name": f"revector {self._program}",
        }

    def _limit(self, timeout_s: float | None) -> tuple[float, float]:
        """The time limit of a search in seconds, and its deadline."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        if (
            not isinstance(limit_s, Real)
            or isinstance(limit_s, bool)
            or not LEAST_TIMEOUT_S <= limit_s <= MOST_TIMEOUT_S
        ):
            raise UsageError(
                f"The timeout is {limit_s!r} s; expected {LEAST_TIMEOUT_S:g} to {MOST_TIMEOUT_S:,.0f}.",
                "What is shorter ends searches that nothing is wrong with.",
            )
        return limit_s, time.monotonic() + limit_s

    def _mirrored(self, result: SearchResult, segment: str) -> SearchResult:
        if self._mirror is not None:
            self._mirror(result, segment)
        return result

    # -- the steps of a search: for asyncio, and by `completed` for threads ---------------------------------------

    async def _carry_out(self, steps: Steps[T], timeout_s: float | None) -> T:
        limit_s, deadline = self._limit(timeout_s)
        with readable_errors(self._database):
            try:
                step = next(steps)
                while True:
                    try:
                        if isinstance(step, Statement):
                            answer: Any = await self._run(step, deadline, limit_s)
                        elif isinstance(step, Opening):
                            not_ready = functools.partial(_not_ready, step.about, limit_s)
                            answer = await self._wait(step.begin(), deadline, not_ready)
                        else:
                            answer = await self._work(step, deadline, limit_s)
                    except Exception as error:  # noqa: BLE001  (the search decides what to make of it)
                        step = steps.throw(error)
                    else:
                        step = steps.send(answer)
            except StopIteration as done:
                result: T = done.value
                return result

    async def _run(self, step: Statement, deadline: float, limit_s: float) -> Sequence[Sequence[Any]]:
        if not await self._has_place(max(0.0, deadline - time.monotonic())):
            raise BusyError(
                f"No connection was free within {limit_s:g} s: {self._pool_size} searches were running.",
                "Try again, or raise pool_size.",
                temporary=True,
            )
        try:
            return await self._run_on_one(step, deadline, limit_s)
        finally:
            self._places.release()

    async def _run_on_one(self, step: Statement, deadline: float, limit_s: float) -> Sequence[Sequence[Any]]:
        left_s = deadline - time.monotonic()
        while True:
            connection = await self._taken(deadline, limit_s)
            try:
                connection.deadline = deadline
                missing = unset(connection, step.settings | timeout_setting(limit_s))
                if missing:
                    await set_up(connection, missing)
                await settled(connection.cursor_kept.execute(step.query, step.params, prepare=step.prepare))
                rows: Sequence[Sequence[Any]] = await settled(connection.cursor_kept.fetchall())
                return rows
            except psycopg.OperationalError:
                if time.monotonic() >= deadline:
                    await settled(connection.close())
                    raise late(f"The database {self._database.name}", limit_s, left_s=left_s) from None
                if not connection.closed:
                    raise
                # The connection was lost while idle, for example by a restart of the server. A search changes
                # nothing, so repeat it on another connection; if there is none, that error says why.
            finally:
                connection.deadline = None
                await settled(self._pool.putconn(connection))

    async def _taken(self, deadline: float, limit_s: float) -> Any:
        from psycopg_pool import PoolClosed, PoolTimeout

        asked = time.monotonic()
        while True:
            try:
                return await settled(
                    self._pool.getconn(timeout=min(LOOK_S, max(0.0, deadline - time.monotonic())))
                )
            except PoolClosed:
                raise self._closed_meanwhile() from None
            except PoolTimeout:
                if (failure := self._failures.since(asked)) is not None:
                    raise failure from None
                if (now := time.monotonic()) >= deadline:
                    kind = DatabaseUnreachableError if now - asked >= _CONNECT_S else BusyError
                    about = f"The database {self._database.name}"
                    raise late(about, limit_s, kind=kind, left_s=deadline - asked) from None

    async def _has_place(self, left_s: float) -> bool:
        """Wait for one of the connections to be free; False when none is in time."""
        raise NotImplementedError

    async def _work(self, step: Work, deadline: float, limit_s: float) -> Any:
        """Do a step until the deadline."""
        raise NotImplementedError

    def _submitted(self, step: Work) -> concurrent.futures.Future[Any]:
        try:
            return self._workers.submit(step.do)
        except RuntimeError:
            raise self._closed_meanwhile() from None

    async def _wait(
        self, future: concurrent.futures.Future[Any], deadline: float, too_late: Callable[[], UnreachableError]
    ) -> Any:
        """The result of a future, or `too_late`; then its thread continues, and its result is not used."""
        raise NotImplementedError


def _not_ready(about: str, limit_s: float) -> NotReadyError:
    return NotReadyError(
        f"{about} is still being opened, and was not ready within {limit_s:g} s.",
        "Try again in a moment. ready() opens it before the first search.",
        temporary=True,
    )
