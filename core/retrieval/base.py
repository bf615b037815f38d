"""What the blocking and the asynchronous retriever share: everything but the waiting."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from revector.core.database import Database
from revector.core.errors import UnreachableError, UsageError
from revector.core.registry import Version
from revector.core.retrieval.connections import Failures
from revector.core.retrieval.counts import Counter
from revector.core.retrieval.encoding import EncoderCache, QueryCache
from revector.core.retrieval.pointer import Pointer
from revector.core.retrieval.result import SearchResult
from revector.core.retrieval.steps import SearchSteps
from revector.core.serving import plain_word

MirrorHook: TypeAlias = Callable[[SearchResult, str], None]
"""Called with a result and its segment when the answer is ready; must return at once and never raise."""


class RetrieverBase:
    """Searches a collection by its active version, or by the one that is pinned.

    `pool_size` is the maximum of connections; `timeout_s` is for a whole search, except opening a model;
    `cache_size` is how many query vectors are cached. RETRIEVAL_ROLLBACK_VERSION, or else `pinned`, names a
    version to stay with. `program` is one word that others see in application_name. Creating a retriever does not
    wait for the database.

    Raises UnreachableError for a malformed connection string.
    """

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
        program = plain_word(program)
        self._failures = Failures(database)
        self._pool_size = pool_size
        options = self._options_of_pool(pool_size, program)
        encoders, counter = encoders or EncoderCache(), Counter()
        self._workers = concurrent.futures.ThreadPoolExecutor(pool_size, "revector-encoder")
        self._pointer = Pointer(database, counter, encoders, program=program, pinned=pinned, poll_s=poll_s)
        self._searches = SearchSteps(self._pointer, encoders, QueryCache(cache_size), counter)
        self._open_pool(options)

    def _open_pool(self, options: dict[str, Any]) -> None:
        raise NotImplementedError

    @property
    def version(self) -> Version | None:
        """The version served now, as far as this process knows; None before it knows one."""
        return self._pointer.version

    def _options_of_pool(self, pool_size: int, program: str) -> dict[str, Any]:
        options = self._database.connect_options(program)
        return {
            "conninfo": options.pop("conninfo"),
            "kwargs": options
            | {"database": self._database, "failed": self._failures.note, "limit_s": self._timeout_s},
            "min_size": 1,
            "max_size": pool_size,
            # One try, and another when a search asks again: with a backoff, searches would still wait after an
            # outage.
            "reconnect_timeout": 0,
            "name": f"revector {program}",
        }

    def _limit(self, timeout_s: float | None) -> tuple[float, float]:
        """The time limit of a search in seconds, and its deadline."""
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        if not limit_s > 0:
            raise UsageError(f"The timeout is {limit_s} s; expected more than 0.")
        return limit_s, time.monotonic() + limit_s

    def _mirrored(self, result: SearchResult, segment: str) -> SearchResult:
        if self._mirror is not None:
            self._mirror(result, segment)
        return result

    def _busy(self, limit_s: float) -> UnreachableError:
        return UnreachableError(
            f"No connection was free within {limit_s:g} s: {self._pool_size} searches were running.",
            "Try again, or raise pool_size.",
            temporary=True,
        )

    def _late_database(self) -> str:
        return f"The database {self._database.name}"
