"""Search for applications: by the currently active version, from any number of threads.

    with Retriever(database) as retriever:
        for hit in retriever.search("how do I rotate an api key", 5).hits: ...

A search is one round trip: its statement also says whether the version it was encoded for is still active
(core.retrieval.steps). Create a Retriever in each process, and after a fork: it has a thread and connections.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import psycopg

from revector.core.database import readable_errors
from revector.core.retrieval.base import RetrieverBase
from revector.core.retrieval.connections import LOOK_S, SearchConnection, late, timeout_setting, unset
from revector.core.retrieval.encoding import check_query
from revector.core.retrieval.options import check_options
from revector.core.retrieval.result import SearchResult
from revector.core.retrieval.statements import SET_SESSION
from revector.core.retrieval.steps import Statement, Steps, Work

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Retriever(RetrieverBase):
    """Safe to share between threads. Closed by `close`, or as a context manager.

    See RetrieverBase for the arguments.
    """

    def _open_pool(self, options: dict[str, Any]) -> None:
        from psycopg_pool import ConnectionPool

        # Searches wait here for a free connection, in order; in the pool only while a connection is being opened.
        self._places = threading.Semaphore(self._pool_size)
        self._pool: ConnectionPool[SearchConnection] = ConnectionPool(
            connection_class=SearchConnection, open=True, **options
        )

    def search(
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
        """The top-k for a query.

        `hybrid` adds full text search; `rerank` is the spec of a cross-encoder that reranks the hits; `where` is
        what a chunk's metadata must contain; `ef_search` defaults to the version's. `segment` goes to the mirror.

        Raises UsageError for an empty query, k or ef_search outside 1 to 1,000 and a filter that is not JSON;
        RefusedError when no version is active, or the version has no vectors; UnreachableError when database or
        encoder do not answer in time.
        """
        text = check_query(text)
        options = check_options(k, hybrid=hybrid, where=where, ef_search=ef_search, rerank=rerank)
        steps = self._searches.search(text, options)
        return self._mirrored(self._carry_out(steps, timeout_s), segment)

    def search_vector(
        self,
        vector: NDArray[np.float32],
        version_key: str,
        k: int = 10,
        *,
        where: Mapping[str, object] | None = None,
        ef_search: int | None = None,
        timeout_s: float | None = None,
    ) -> SearchResult:
        """The top-k for a vector (d,) that was encoded for that version; `active` says whether it is still active.

        Raises what `search` does, UsageError for an unknown key, and RefusedError for a vector of other
        dimensions.
        """
        options = check_options(k, where=where, ef_search=ef_search)
        return self._carry_out(self._searches.search_vector(vector, version_key, options), timeout_s)

    def close(self) -> None:
        """Stop the thread, write the counts and close the connections."""
        self._pointer.close()
        self._pool.close()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- the steps of a search -------------------------------------------------------------------------------

    def _carry_out(self, steps: Steps, timeout_s: float | None) -> SearchResult:
        limit_s, deadline = self._limit(timeout_s)
        with readable_errors(self._database):
            try:
                step = next(steps)
                while True:
                    try:
                        if isinstance(step, Statement):
                            answer: Any = self._run(step, deadline, limit_s)
                        elif step.unlimited:
                            started = time.monotonic()
                            answer = step.do()
                            deadline += time.monotonic() - started
                        else:
                            answer = step.do() if step.quick else self._work(step, deadline, limit_s)
                    except Exception as error:  # noqa: BLE001  (the search decides what to make of it)
                        step = steps.throw(error)
                    else:
                        step = steps.send(answer)
            except StopIteration as done:
                result: SearchResult = done.value
                return result

    def _run(self, step: Statement, deadline: float, limit_s: float) -> Sequence[Sequence[Any]]:
        if not self._places.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise self._busy(limit_s)
        try:
            return self._run_on_one(step, deadline, limit_s)
        finally:
            self._places.release()

    def _run_on_one(self, step: Statement, deadline: float, limit_s: float) -> Sequence[Sequence[Any]]:
        while True:
            connection = self._taken(deadline, limit_s)
            try:
                connection.deadline = deadline
                missing = unset(connection, step.settings | timeout_setting(limit_s))
                if missing:
                    connection.execute(SET_SESSION, [list(missing), list(missing.values())])
                    connection.settings |= missing
                cursor = connection.cursor(binary=True)
                return cursor.execute(step.query, step.params, prepare=step.prepare).fetchall()
            except psycopg.OperationalError:
                if time.monotonic() >= deadline:
                    connection.close()
                    raise late(self._late_database(), limit_s) from None
                if not connection.closed:
                    raise
                # The connection was lost while idle, for example by a restart of the server. A search changes
                # nothing, so repeat it on another connection; if there is none, that error says why.
            finally:
                connection.deadline = None
                self._pool.putconn(connection)

    def _taken(self, deadline: float, limit_s: float) -> SearchConnection:
        from psycopg_pool import PoolTimeout

        asked = time.monotonic()
        while True:
            try:
                return self._pool.getconn(timeout=min(LOOK_S, max(0.0, deadline - time.monotonic())))
            except PoolTimeout:
                if (failure := self._failures.since(asked)) is not None:
                    raise failure from None
                if time.monotonic() >= deadline:
                    raise late(self._late_database(), limit_s) from None

    def _work(self, step: Work, deadline: float, limit_s: float) -> Any:
        future = self._workers.submit(step.do)
        try:
            return future.result(max(0.0, deadline - time.monotonic()))
        except concurrent.futures.TimeoutError:
            if future.done():  # its own
                raise
            raise late(step.about, limit_s) from None
