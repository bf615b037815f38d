"""The Retriever for asyncio: the same searches, without blocking the event loop.

async with AsyncRetriever(database) as retriever:
    result = await retriever.search("how do I rotate an api key", 5)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from revector.core.retrieval.base import RetrieverBase
from revector.core.retrieval.connections import AsyncSearchConnection, late
from revector.core.retrieval.encoding import check_query
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

    async def search_vector(
        self,
        vector: NDArray[np.float32],
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

    async def _do(self, step: Work) -> Any:
        return await self._off_loop(step)

    async def _work(self, step: Work, deadline: float, limit_s: float) -> Any:
        future = self._off_loop(step)
        done, _ = await asyncio.wait([future], timeout=max(0.0, deadline - time.monotonic()))
        if not done:  # the thread continues; its result is not used
            future.add_done_callback(lambda late_one: late_one.cancelled() or late_one.exception())
            raise late(step.about, limit_s)
        return future.result()

    def _off_loop(self, step: Work) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._workers, step.do)
