"""Search: by the version that is active, for applications; and by a named one, on a connection of the caller's.

Encoder and table always belong to one version. The search's own statement also reads which version is active:
when that moved since the query was encoded, the search is made again with the new one.
"""

from __future__ import annotations

from core.retrieval.async_retriever import AsyncRetriever
from core.retrieval.base import Mirror
from core.retrieval.counts import SearchFigures, read_counts
from core.retrieval.encoding import EncoderCache, check_query, open_version_encoder
from core.retrieval.options import MAX_EF_SEARCH, MAX_K, SearchOptions, check_options, ef_search_for
from core.retrieval.pointer import ROLLBACK_VARIABLE
from core.retrieval.result import Comparison, Hit, SearchResult
from core.retrieval.retriever import Retriever
from core.retrieval.searcher import VersionSearcher
from core.retrieval.statements import search_statement, search_vector

__all__ = [
    "MAX_EF_SEARCH",
    "MAX_K",
    "ROLLBACK_VARIABLE",
    "AsyncRetriever",
    "Comparison",
    "EncoderCache",
    "Hit",
    "Mirror",
    "Retriever",
    "SearchFigures",
    "SearchOptions",
    "SearchResult",
    "VersionSearcher",
    "check_options",
    "check_query",
    "ef_search_for",
    "open_version_encoder",
    "read_counts",
    "search_statement",
    "search_vector",
]
