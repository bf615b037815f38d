"""Search: by the active version, for applications; and by a named version, on the caller's connection.

Encoder and table always belong to the same version. The search's statement also reads which version is active:
when that changed since the query was encoded, the search is repeated with the new one.
"""

from __future__ import annotations

from revector.core.retrieval.async_retriever import AsyncRetriever
from revector.core.retrieval.encoding import EncoderCache, check_query, open_version_encoder
from revector.core.retrieval.options import MAX_EF_SEARCH, MAX_K, check_options, ef_search_for
from revector.core.retrieval.pointer import ROLLBACK_VARIABLE
from revector.core.retrieval.result import Comparison, Hit, SearchResult
from revector.core.retrieval.retriever import Retriever
from revector.core.retrieval.searcher import VersionSearcher
from revector.core.retrieval.statements import search_statement, search_vector

__all__ = [
    "MAX_EF_SEARCH",
    "MAX_K",
    "ROLLBACK_VARIABLE",
    "AsyncRetriever",
    "Comparison",
    "EncoderCache",
    "Hit",
    "Retriever",
    "SearchResult",
    "VersionSearcher",
    "check_options",
    "check_query",
    "ef_search_for",
    "open_version_encoder",
    "search_statement",
    "search_vector",
]
