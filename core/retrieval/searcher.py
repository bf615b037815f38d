"""Search on one connection of the caller's: for screens, commands and evaluation, which name their version."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from core import overlap as ranks
from core.database import Connection
from core.registry import Version, get_version, require_active
from core.retrieval.encoding import EncoderCache, check_query
from core.retrieval.options import SearchOptions, check_options
from core.retrieval.pointer import ROLLBACK_VARIABLE
from core.retrieval.result import Comparison, SearchResult, keys_of
from core.retrieval.statements import search_vector


class VersionSearcher:
    """Search versions on one connection. Applications take a Retriever, which has connections of its own."""

    def __init__(self, connection: Connection, encoders: EncoderCache | None = None) -> None:
        self._connection = connection
        self._encoders = encoders or EncoderCache()

    def search(
        self,
        text: str,
        k: int = 10,
        *,
        hybrid: bool = False,
        where: Mapping[str, object] | None = None,
        ef_search: int | None = None,
    ) -> SearchResult:
        """The top-k by the active version, or by the one that RETRIEVAL_ROLLBACK_VERSION pins.

        Raises RefusedError when no version is active, and what `search_version` does.
        """
        text, options = check_query(text), check_options(k, hybrid=hybrid, where=where, ef_search=ef_search)
        pinned = os.environ.get(ROLLBACK_VARIABLE)
        if pinned:
            return self._search(text, get_version(self._connection, pinned), options, where)
        while True:
            # Once more when a flip came between: the query was encoded for the version before.
            result = self._search(text, require_active(self._connection), options, where)
            if result.active:
                return result

    def search_version(
        self,
        text: str,
        version: Version,
        k: int = 10,
        *,
        hybrid: bool = False,
        where: Mapping[str, object] | None = None,
        ef_search: int | None = None,
    ) -> SearchResult:
        """The top-k by one version, active or not.

        `hybrid` joins full text to it; `where` is what a chunk's metadata must contain. Raises UsageError for an empty
        query, k or ef_search outside 1 to 1,000 and a filter that is no JSON; RefusedError when it has no vectors.
        """
        options = check_options(k, hybrid=hybrid, where=where, ef_search=ef_search)
        return self._search(check_query(text), version, options, where)

    def compare(self, text: str, primary: Version, candidate: Version, k: int = 10) -> Comparison:
        """The top-k of two versions for one query."""
        first = self.search_version(text, primary, k)
        second = self.search_version(text, candidate, k)
        return Comparison(text, k, first, second, ranks.compare(keys_of(first), keys_of(second), k))

    def _search(
        self, text: str, version: Version, options: SearchOptions, where: Mapping[str, object] | None
    ) -> SearchResult:
        started = time.perf_counter()
        vector = self._encoders.encoder(version).encode_query(text)
        encoded = time.perf_counter()
        hits, active = search_vector(self._connection, version, vector, options, text)
        searched = time.perf_counter()
        return SearchResult(
            text, version.version_key, hits, encoded - started, searched - encoded, active == version.id,
            options.k, options.hybrid, where or None,
        )  # fmt: skip
