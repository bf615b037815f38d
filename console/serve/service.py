"""The service behind the routes: searches in threads, the list of versions, and the health check.

Searches run in threads, by the blocking Retriever: measured over HTTP against AsyncRetriever on the event loop
(two cores, static encoder), 1.4 ms instead of 2.4 for a search, and with eight clients 800 instead of 560 searches
a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from revector.console.serve.limits import Limits, Slot
from revector.console.serve.problems import Refused, too_slow
from revector.core.errors import RefusedError, RevectorError, UnreachableError
from revector.core.registry import Version, versions
from revector.core.retrieval import ROLLBACK_VARIABLE, EncoderCache, Retriever
from revector.core.shadow import Mirror
from revector.screens.connections import Connections, KeptConnection

if TYPE_CHECKING:
    from revector.console.serve.schemas import SearchRequest, VectorRequest
    from revector.core.database import Database
    from revector.core.retrieval import SearchResult

T = TypeVar("T")

PROBE_S = 1.0
"""How old an answer to /healthz may be, and how long it waits for the database."""


class Service:
    """The retriever of one server, its shadow mirror, and its threads."""

    def __init__(
        self,
        database: Database,
        limits: Limits,
        *,
        encoders: EncoderCache,
        rerank: str | None = None,
        pool_size: int = 8,
    ) -> None:
        self._limits = limits
        self._rerank = rerank
        self._encoders = encoders
        # It writes its results, which a read-only session cannot.
        self._mirror = None if database.read_only else Mirror(database, encoders=encoders)
        self._retriever = Retriever(
            database,
            encoders=encoders,
            pool_size=pool_size,
            timeout_s=limits.timeout_s,
            program="serve",
            mirror=self._mirror,
        )
        # For everything but searches: the list of versions, and the health check.
        self._reader = KeptConnection(Connections(database, limits.timeout_s, "serve"))
        # As many threads as slots, so that nothing waits for a thread.
        self._threads = ThreadPoolExecutor(limits.max_concurrency, "revector-search")
        self._prober = ThreadPoolExecutor(1, "revector-probe")
        self._probe: asyncio.Future[bool] | None = None
        self._probed_at = 0.0
        self._prober.submit(self._answers)  # opens the encoder before a search needs it

    # -- searches -----------------------------------------------------------------------------------------------

    async def search(self, asked: SearchRequest, slot: Slot) -> SearchResult:
        """Search by the version that is served.

        Raises RefusedError when no version is active, and for `rerank` when the server has no cross-encoder.
        """
        if asked.rerank and self._rerank is None:
            raise RefusedError(
                "This server has no cross-encoder to rerank with.",
                "Start it with one: revector serve --rerank cross-encoder:PATH-OR-NAME",
            )
        return await self._in_time(
            slot,
            lambda: self._retriever.search(
                asked.query,
                asked.k,
                hybrid=asked.hybrid,
                rerank=self._rerank if asked.rerank else None,
                where=asked.filters or None,
                ef_search=asked.ef_search,
                segment=asked.segment,
            ),
        )

    async def search_vector(self, asked: VectorRequest, slot: Slot) -> SearchResult:
        """Search the version that the caller's vector was encoded for, active or not."""
        import numpy as np

        vector = np.asarray(asked.vector, dtype=np.float32)
        return await self._in_time(
            slot,
            lambda: self._retriever.search_vector(
                vector,
                asked.version,
                asked.k,
                where=asked.filters or None,
                ef_search=asked.ef_search,
            ),
        )

    # -- about the versions -------------------------------------------------------------------------------------

    async def registered(self, slot: Slot) -> list[Version]:
        """Every version, read from the database now."""
        return await self._in_thread(slot, lambda: self._reader.do(versions))

    @property
    def serving(self) -> str | None:
        """The key of the version that answers searches by text."""
        version = self._retriever.version
        return version.version_key if version else None

    def served(self) -> Mapping[str, str]:
        """The served version as labels; none when there is no version yet."""
        version = self._retriever.version
        if version is None:
            return {}
        pinned = "true" if os.environ.get(ROLLBACK_VARIABLE) else "false"
        return {"version": version.version_key, "encoder": version.encoder_name, "pinned": pinned}

    def pool(self) -> Mapping[str, float]:
        """The pool's connections: total, free, and how many searches wait."""
        # psycopg_pool's own statistics, which the retriever does not expose otherwise.
        stats = self._retriever._pool.get_stats()
        names = {"connections": "pool_size", "free": "pool_available", "waiting": "requests_waiting"}
        return {f"pool_{name}": float(stats.get(known, 0)) for name, known in names.items()}

    # -- health -------------------------------------------------------------------------------------------------

    async def ready(self) -> bool:
        """Whether a search would be answered now; cached for a second, since anybody may ask."""
        running = self._probe is not None and not self._probe.done()
        if not running and (self._probe is None or time.monotonic() - self._probed_at > PROBE_S):
            self._probed_at = time.monotonic()
            self._probe = asyncio.wrap_future(self._prober.submit(self._answers))
        assert self._probe is not None  # noqa: S101  (made above)
        done, _ = await asyncio.wait({self._probe}, timeout=PROBE_S)
        return bool(done) and self._probe.result()

    def _answers(self) -> bool:
        try:
            self._reader.do(versions)
            version = self._retriever.version
            if version is not None:
                self._encoders.encoder(version)
        except RevectorError:
            return False
        return version is not None

    # -- the end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close connections and threads; a hanging thread is left behind."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._prober.shutdown(wait=False, cancel_futures=True)
        self._retriever.close()
        if self._mirror is not None:
            self._mirror.close()
        self._reader.close()

    async def _in_time(self, slot: Slot, work: Callable[[], T]) -> T:
        begun = time.monotonic()
        try:
            return await self._in_thread(slot, work)
        except UnreachableError as error:
            # The retriever enforces its own time limit; its error names what it waited for.
            if error.temporary and time.monotonic() - begun >= self._limits.timeout_s:
                raise Refused(replace(too_slow(self._limits.timeout_s), detail=error.problem)) from None
            raise

    async def _in_thread(self, slot: Slot, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        slot.hold()

        def over(_future: Future[T]) -> None:
            with contextlib.suppress(RuntimeError):  # the server has stopped meanwhile
                loop.call_soon_threadsafe(slot.release)

        future = self._threads.submit(work)
        future.add_done_callback(over)
        return await asyncio.wrap_future(future)
