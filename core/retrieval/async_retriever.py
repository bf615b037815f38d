"""The Retriever for asyncio: the same searches, without blocking the event loop.

async with AsyncRetriever(database) as retriever:
    result = await retriever.search("how do I rotate an api key", 5)
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from revector.core.errors import UnreachableError
from revector.core.registry import Version
from revector.core.retrieval.base import RetrieverBase
from revector.core.retrieval.connections import AsyncSearchConnection, late
from revector.core.retrieval.encoding import check_queries, check_query
from revector.core.retrieval.options import check_options
from revector.core.retrieval.result import SearchResult
from revector.core.retrieval.steps import Work

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class AsyncRetriever(RetrieverBase):
    """Used by the tasks of one event loop. Closed by `close`, or as an asynchronous context manager.

    See RetrieverBase for the arguments.
    """

    def _open_pool(self, options: dict[str, Any]) -> None:
        from revector.core.retrieval.pools import AsyncConnectionPool

        self._places = asyncio.Semaphore(self._pool_size)
        self._pool = AsyncConnectionPool(connection_class=AsyncSearchConnection, open=False, **options)
        self._opened = False

    async def search(
        self,
        text: str,
        k: int = 10,
        *,
        hybrid: bool = False,
        rerank: str | None = None,
        where: Mapping[str, object] | None = None,
        ef_search: int | None = None,
        timeout_s: float | None = None,
        segment: str = "",
    ) -> SearchResult:
        """The top-k for a query. The arguments and the errors are those of Retriever.search."""
        text = check_query(text)
        options = check_options(k, hybrid=hybrid, where=where, ef_search=ef_search, rerank=rerank)
        steps = self._open_searches().search(text, options)
        return self._mirrored(await self._carry_out(steps, timeout_s), segment)

    async def search_many(
        self,
        texts: Iterable[str],
        k: int = 10,
        *,
        hybrid: bool = False,
        rerank: str | None = None,
        where: Mapping[str, object] | None = None,
        ef_search: int | None = None,
        timeout_s: float | None = None,
        segment: str = "",
    ) -> list[SearchResult]:
        """The top-k of each query, in their order; as many at once as there are connections.

        `timeout_s` is for each. Each answer is by one version, but a flip may come between two of them. Raises what
        `search` does, for the first query that fails; the rest is not searched then.
        """
        found: dict[int, SearchResult] = {}
        queries = check_queries(texts)
        waiting = iter(enumerate(queries))

        async def search_on() -> None:
            for place, text in waiting:
                found[place] = await self.search(
                    text, k, hybrid=hybrid, rerank=rerank, where=where, ef_search=ef_search,
                    timeout_s=timeout_s, segment=segment,
                )  # fmt: skip

        tasks = [asyncio.ensure_future(search_on()) for _ in range(min(self._pool_size, len(queries)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return [found[place] for place in range(len(queries))]

    async def search_vector(
        self,
        vector: NDArray[np.float32] | Sequence[float],
        version_key: str,
        k: int = 10,
        *,
        where: Mapping[str, object] | None = None,
        ef_search: int | None = None,
        timeout_s: float | None = None,
    ) -> SearchResult:
        """The top-k for a vector (d,). The arguments and the errors are those of Retriever.search_vector."""
        options = check_options(k, where=where, ef_search=ef_search)
        steps = self._open_searches().search_vector(vector, version_key, options)
        return await self._carry_out(steps, timeout_s)

    async def ready(self, timeout_s: float = 30.0, *, rerank: str | None = None) -> Version:
        """Connect and open what the first search needs: see Retriever.ready."""
        return await self._carry_out(self._open_searches().ready(rerank), timeout_s)

    async def open(self) -> None:
        """Start connecting. The first search does so too."""
        self._open_searches()
        if not self._opened:
            self._opened = True
            await self._pool.open()

    async def close(self) -> None:
        """Stop the thread, write the counts and close the connections."""
        if not self._ends():
            return
        await asyncio.to_thread(self._pointer.close)
        await self._pool.close()
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    # -- the waiting ------------------------------------------------------------------------------------------

    async def _has_place(self, left_s: float) -> bool:
        await self.open()
        try:
            # With a free place there is nothing to wait for, and no task to make.
            acquired = self._places.acquire()
            return bool(await (asyncio.wait_for(acquired, left_s) if self._places.locked() else acquired))
        except TimeoutError:
            return False

    async def _work(self, step: Work, deadline: float, limit_s: float) -> Any:
        future = self._submitted(step)
        try:
            return await self._wait(future, deadline, lambda: late(step.about, limit_s, step.trouble()))
        finally:
            future.cancel()  # if no thread has begun it

    async def _wait(
        self, future: concurrent.futures.Future[Any], deadline: float, too_late: Callable[[], UnreachableError]
    ) -> Any:
        waited = asyncio.wrap_future(future)
        done, _ = await asyncio.wait([waited], timeout=max(0.0, deadline - time.monotonic()))
        if not done:
            waited.add_done_callback(lambda late_one: late_one.cancelled() or late_one.exception())
            raise too_late()
        return waited.result()
