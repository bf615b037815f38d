"""Search for applications: by the currently active version, from any number of threads.

    with Retriever(database) as retriever:
        for hit in retriever.search("how do I rotate an api key", 5).hits: ...

A search is one round trip: its statement also says whether the version it was encoded for is still active
(core.retrieval.steps). A Retriever that was created before a fork may be used on both sides of it.
"""

from __future__ import annotations

import concurrent.futures
import functools
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from revector.core.errors import UnreachableError
from revector.core.registry import Version
from revector.core.retrieval.base import RetrieverBase
from revector.core.retrieval.connections import completed, late
from revector.core.retrieval.encoding import check_queries, check_query
from revector.core.retrieval.options import check_options
from revector.core.retrieval.result import SearchResult
from revector.core.retrieval.steps import Work

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Retriever(RetrieverBase):
    """Safe to share between threads. Closed by `close`, or as a context manager.

    See RetrieverBase for the arguments.
    """

    def _open_pool(self, options: dict[str, Any]) -> None:
        from revector.core.retrieval.pools import SearchPool

        self._places = threading.Semaphore(self._pool_size)
        self._pool = SearchPool(open=True, **options)

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

        Raises UsageError for an empty query, k or ef_search outside 1 to 1,000, a time limit outside 10 ms to a day and
        a filter that cannot be read, EncoderError when the encoder fails or answers with no vector of the version,
        RefusedError when no version is active, or the version has no vectors (PinnedVersionError, when this process
        is pinned to it); BusyError when all connections are taken or the database takes too long, NotReadyError
        while a model is being opened; DatabaseUnreachableError and EncoderUnreachableError when either does not
        answer; ClosedError after `close`.
        """
        text = check_query(text)
        options = check_options(k, hybrid=hybrid, where=where, ef_search=ef_search, rerank=rerank)
        steps = self._open_searches().search(text, options)
        return self._mirrored(completed(self._carry_out(steps, timeout_s)), segment)

    def search_many(
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
        search = functools.partial(
            self.search, k=k, hybrid=hybrid, rerank=rerank, where=where, ef_search=ef_search,
            timeout_s=timeout_s, segment=segment,
        )  # fmt: skip
        queries = check_queries(texts)
        with concurrent.futures.ThreadPoolExecutor(self._pool_size, "revector-many") as threads:
            futures = [threads.submit(search, text) for text in queries]
            try:
                return [future.result() for future in futures]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def search_vector(
        self,
        vector: NDArray[np.float32] | Sequence[float],
        version_key: str,
        k: int = 10,
        *,
        where: Mapping[str, object] | None = None,
        ef_search: int | None = None,
        timeout_s: float | None = None,
    ) -> SearchResult:
        """The top-k for a vector (d,) that was encoded for that version; `active` says whether it is still active.

        Raises what `search` does, NotFoundError for an unknown key, UsageError for what is no row of numbers, and
        RefusedError for a vector of other dimensions, a zero vector, and one with a number that is not finite.
        """
        options = check_options(k, where=where, ef_search=ef_search)
        steps = self._open_searches().search_vector(vector, version_key, options)
        return completed(self._carry_out(steps, timeout_s))

    def ready(self, timeout_s: float = 30.0, *, rerank: str | None = None) -> Version:
        """Connect and open the encoder of the version that is served, and that reranker; returns the version.

        Call it before the first search, as in a health check or when a server begins. Raises what `search` does;
        NotReadyError when a model is still being opened after that time.
        """
        return completed(self._carry_out(self._open_searches().ready(rerank), timeout_s))

    def close(self) -> None:
        """Stop the thread, write the counts and close the connections."""
        if not self._ends():
            return
        self._pointer.close()
        self._pool.close()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- the waiting ------------------------------------------------------------------------------------------

    async def _has_place(self, left_s: float) -> bool:
        return bool(self._places.acquire(timeout=left_s))

    async def _work(self, step: Work, deadline: float, limit_s: float) -> Any:
        if step.quick:
            return step.do()
        future = self._submitted(step)
        try:
            return await self._wait(future, deadline, lambda: late(step.about, limit_s, step.trouble()))
        finally:
            future.cancel()  # if no thread has begun it

    async def _wait(
        self, future: concurrent.futures.Future[Any], deadline: float, too_late: Callable[[], UnreachableError]
    ) -> Any:
        try:
            return future.result(max(0.0, deadline - time.monotonic()))
        except concurrent.futures.TimeoutError:
            if future.done():  # its own
                raise
            raise too_late() from None
