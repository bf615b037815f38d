"""Search for applications: by the currently active version, from any number of threads.

    with Retriever(database) as retriever:
        for hit in retriever.search("how do I rotate an api key", 5).hits: ...

A search is one round trip: its statement also says whether the version it was encoded for is still active
(core.retrieval.steps). A Retriever that was created before a fork may be used on both sides of it.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from revector.core.retrieval.base import RetrieverBase
from revector.core.retrieval.connections import completed, late
from revector.core.retrieval.encoding import check_query
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

        Raises UsageError for an empty query, k or ef_search outside 1 to 1,000 and a filter that is not JSON;
        RefusedError when no version is active, or the version has no vectors; UnreachableError when database or
        encoder do not answer in time.
        """
        text = check_query(text)
        options = check_options(k, hybrid=hybrid, where=where, ef_search=ef_search, rerank=rerank)
        steps = self._open_searches().search(text, options)
        return self._mirrored(completed(self._carry_out(steps, timeout_s)), segment)

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
        steps = self._open_searches().search_vector(vector, version_key, options)
        return completed(self._carry_out(steps, timeout_s))

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

    async def _do(self, step: Work) -> Any:
        return step.do()

    async def _work(self, step: Work, deadline: float, limit_s: float) -> Any:
        if step.quick:
            return step.do()
        future = self._workers.submit(step.do)
        try:
            return future.result(max(0.0, deadline - time.monotonic()))
        except concurrent.futures.TimeoutError:
            if future.done():  # its own
                raise
            raise late(step.about, limit_s) from None
