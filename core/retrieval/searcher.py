"""Search on one connection of the caller: for screens, commands and evaluation, which name their version."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace

from revector.core import overlap as ranks
from revector.core.database import Connection
from revector.core.errors import NotFoundError
from revector.core.registry import Version, get_version, require_active
from revector.core.retrieval.encoding import EncoderCache, check_query
from revector.core.retrieval.options import SearchOptions, check_options
from revector.core.retrieval.pointer import ROLLBACK_VARIABLE, pinned_to_nothing
from revector.core.retrieval.query_text import without_operators
from revector.core.retrieval.rerank import Rerankers, reranked, reranked_depth
from revector.core.retrieval.result import Comparison, SearchResult, keys_of
from revector.core.retrieval.statements import encoded_vector, search_vector


class VersionSearcher:
    """Searches versions on one connection. Applications use a Retriever, which has its own connections."""

    def __init__(
        self, connection: Connection, encoders: EncoderCache | None = None, rerankers: Rerankers | None = None
    ) -> None:
        self._connection = connection
        self._encoders = encoders or EncoderCache()
        self._rerankers = rerankers or Rerankers()

    def search(
        self,
        text: str,
        k: int = 10,
        *,
        version: Version | None = None,
        hybrid: bool = False,
        rerank: str | None = None,
        where: Mapping[str, object] | None = None,
        ef_search: int | None = None,
    ) -> SearchResult:
        """The top-k by `version`; without it by the active one, or the one that RETRIEVAL_ROLLBACK_VERSION pins.

        `hybrid` adds full text search; `rerank` is the spec of a cross-encoder that reranks the hits; `where` is
        what a chunk's metadata must contain. Raises UsageError for an empty query, k or ef_search outside 1 to
        1,000 and a filter that is not JSON; RefusedError when the version has no vectors, or none is active.
        """
        text = check_query(text)
        options = check_options(k, hybrid=hybrid, where=where, ef_search=ef_search, rerank=rerank)
        if version is None and (pinned := os.environ.get(ROLLBACK_VARIABLE)):
            try:
                version = get_version(self._connection, pinned)
            except NotFoundError:
                raise pinned_to_nothing(pinned) from None
        if version is not None:
            return self._search(text, options, version)
        while True:
            # Repeat after a flip: the query was encoded for the previous version.
            result = self._search(text, options, require_active(self._connection))
            if result.active:
                return result

    def compare(self, text: str, primary: Version, candidate: Version, k: int = 10) -> Comparison:
        """The top-k of two versions for one query."""
        first = self.search(text, k, version=primary)
        second = self.search(text, k, version=candidate)
        return Comparison(text, k, first, second, ranks.compare(keys_of(first), keys_of(second), k))

    def _search(self, text: str, options: SearchOptions, version: Version) -> SearchResult:
        model = self._rerankers.opened(options.rerank) if options.rerank is not None else None
        encoder = self._encoders.encoder(version)
        deep = (options if model is None else replace(options, k=reranked_depth(options.k))).of(text)
        spoken = without_operators(text) if options.hybrid else text
        started = time.perf_counter()
        vector = encoded_vector(version, encoder.encode_query(spoken))
        encoded = time.perf_counter()
        hits, active = search_vector(self._connection, version, vector, deep, text)
        searched = time.perf_counter()
        if model is not None:
            hits = reranked(model, spoken, hits, options.k)
        return SearchResult(
            text, version.version_key, hits, encoded - started, searched - encoded, active == version.id,
            options.k, options.hybrid, options.where, options.rerank, time.perf_counter() - searched,
        )  # fmt: skip
