"""The Retriever for asyncio: the same searches, without blocking the event loop.

async with AsyncRetriever(database) as retriever:
    result = await retriever.search("how do I rotate an api key", 5)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import psycopg

from revector.core.database import readable_errors
from revector.core.retrieval.base import RetrieverBase
from revector.core.retrieval.connections import LOOK_S, AsyncSearchConnection, late, timeout_setting, unset
from revector.core.retrieval.encoding import check_query
from revector.core.retrieval.options import check_options
from revector.core.retrieval.result import SearchResult
from revector.core.retrieval.statements import SET_SESSION
from revector.core.retrieval.steps import Statement, Steps, Work

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class AsyncRetriever(RetrieverBase):
    """Used by the tasks of one event loop. Closed by `close`, or as an asynchronous context manager.

    See RetrieverBase for the arguments.
    """

    def _open_pool(self, options: dict[str, Any]) -> None:
        from psycopg_pool import AsyncConnectionPool

        # Searches wait here for a free connection, in order; in the pool only while a connection is being opened.
        self._places = asyncio.Semaphore(self._pool_size)
        self._pool: AsyncConnectionPool[AsyncSearchConnection] = AsyncConnectionPool(
            connection_class=AsyncSearchConnection, open=False, **options
        )
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
        steps = self._searches.search(text, options)
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
        return await self._carry_out(self._searches.search_vector(vector, version_key, options), timeout_s)

    async def open(self) -> None:
        """Start connecting. The first search does so too."""
        if not self._opened:
            self._opened = True
            await self._pool.open()

    async def close(self) -> None:
        """Stop the thread, write the counts and close the connections."""
        await asyncio.to_thread(self._pointer.close)
        await self._pool.close()
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    # -- the steps of a search -------------------------------------------------------------------------------

    async def _carry_out(self, steps: Steps, timeout_s: float | None) -> SearchResult:
        limit_s, deadline = self._limit(timeout_s)
        with readable_errors(self._database):
            try:
                step = next(steps)
                while True:
                    try:
                        if isinstance(step, Statement):
                            answer: Any = await self._run(step, deadline, limit_s)
                        elif step.unlimited:
                            started = time.monotonic()
                            answer = await self._off_loop(step)
                            deadline += time.monotonic() - started
                        else:
                            answer = await self._work(step, deadline, limit_s)
                    except Exception as error:  # noqa: BLE001  (the search decides what to make of it)
                        step = steps.throw(error)
                    else:
                        step = steps.send(answer)
            except StopIteration as done:
                result: SearchResult = done.value
                return result

    async def _run(self, step: Statement, deadline: float, limit_s: float) -> Sequence[Sequence[Any]]:
        if self._places.locked():
            try:
                await asyncio.wait_for(self._places.acquire(), max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise self._busy(limit_s) from None
        else:
            await self._places.acquire()
        try:
            return await self._run_on_one(step, deadline, limit_s)
        finally:
            self._places.release()

    async def _run_on_one(self, step: Statement, deadline: float, limit_s: float) -> Sequence[Sequence[Any]]:
        while True:
            connection = await self._taken(deadline, limit_s)
            try:
                connection.deadline = deadline
                missing = unset(connection, step.settings | timeout_setting(limit_s))
                if missing:
                    await connection.execute(SET_SESSION, [list(missing), list(missing.values())])
                    connection.settings |= missing
                cursor = connection.cursor(binary=True)
                await cursor.execute(step.query, step.params, prepare=step.prepare)
                return await cursor.fetchall()
            except psycopg.OperationalError:
                if time.monotonic() >= deadline:
                    await connection.close()
                    raise late(self._late_database(), limit_s) from None
                if not connection.closed:
                    raise
                # The connection was lost while idle, for example by a restart of the server. A search changes
                # nothing, so repeat it on another connection; if there is none, that error says why.
            finally:
                connection.deadline = None
                await self._pool.putconn(connection)

    async def _taken(self, deadline: float, limit_s: float) -> AsyncSearchConnection:
        from psycopg_pool import PoolTimeout

        await self.open()
        asked = time.monotonic()
        while True:
            try:
                return await self._pool.getconn(timeout=min(LOOK_S, max(0.0, deadline - time.monotonic())))
            except PoolTimeout:
                if (failure := self._failures.since(asked)) is not None:
                    raise failure from None
                if time.monotonic() >= deadline:
                    raise late(self._late_database(), limit_s) from None

    async def _work(self, step: Work, deadline: float, limit_s: float) -> Any:
        future = self._off_loop(step)
        done, _ = await asyncio.wait([future], timeout=max(0.0, deadline - time.monotonic()))
        if not done:  # the thread continues; its result is not used
            future.add_done_callback(lambda late_one: late_one.cancelled() or late_one.exception())
            raise late(step.about, limit_s)
        return future.result()

    def _off_loop(self, step: Work) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._workers, step.do)
