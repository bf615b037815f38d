"""Search: by the active version, for applications; and by a named version, on the caller's connection.

Encoder and table always belong to the same version. The search's statement also reads which version is active:
when that changed since the query was encoded, the search is repeated with the new one.
"""

from __future__ import annotations

from revector.core.retrieval.async_retriever import AsyncRetriever as AsyncRetriever
from revector.core.retrieval.encoding import EncoderCache as EncoderCache
from revector.core.retrieval.encoding import check_query as check_query
from revector.core.retrieval.encoding import open_version_encoder as open_version_encoder
from revector.core.retrieval.options import MAX_EF_SEARCH as MAX_EF_SEARCH
from revector.core.retrieval.options import MAX_K as MAX_K
from revector.core.retrieval.options import check_options as check_options
from revector.core.retrieval.options import ef_search_for as ef_search_for
from revector.core.retrieval.pointer import ROLLBACK_VARIABLE as ROLLBACK_VARIABLE
from revector.core.retrieval.result import Comparison as Comparison
from revector.core.retrieval.result import Hit as Hit
from revector.core.retrieval.result import SearchResult as SearchResult
from revector.core.retrieval.retriever import Retriever as Retriever
from revector.core.retrieval.searcher import VersionSearcher as VersionSearcher
from revector.core.retrieval.statements import encoded_vector as encoded_vector
from revector.core.retrieval.statements import search_statement as search_statement
from revector.core.retrieval.statements import search_vector as search_vector
