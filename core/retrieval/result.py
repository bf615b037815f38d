"""The result of a search, and two results compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Struct

from revector.core import overlap as ranks


class Hit(Struct, frozen=True):
    """One result. A Struct, since each search makes k of them: a frozen dataclass takes five times as long to make."""

    rank: Annotated[int, "from 1"]
    chunk_id: Annotated[int, "the chunk's number"]
    semantic_key: Annotated[str, "the chunk's key, which follows from document, place and text"]
    source_id: Annotated[str, "the document's id"]
    chunk_no: Annotated[int, "its place in the document"]
    distance: Annotated[float, "to be compared within its version only"]
    content: Annotated[str, "its text"]
    metadata_json: str = "{}"
    score: Annotated[float | None, "of a hybrid search: what the ranks add up to"] = None
    vector_rank: Annotated[int | None, "of a hybrid search: its rank by vector"] = None
    text_rank: Annotated[int | None, "of a hybrid search: its rank by words"] = None

    @property
    def metadata(self) -> Annotated[dict[str, Any], "the chunk's own"]:
        """The chunk's metadata. Read when asked for: most searches do not need it."""
        found: dict[str, Any] = json.loads(self.metadata_json)
        return found


@dataclass(frozen=True)
class SearchResult:
    """The top-k of one version, and the options of the search. Times are seconds.

    `query` is empty for a caller that encodes itself. `active` says whether the version was active at the time of
    the search. Hits are ordered by distance, except in a hybrid or reranked search.
    """

    query: Annotated[str, "what was searched for"]
    version_key: Annotated[str, "the version that answered"]
    hits: Annotated[tuple[Hit, ...], "the best first"]
    encode_s: float
    search_s: float
    active: Annotated[bool, "whether that version was the active one"] = True
    k: int = 10
    hybrid: Annotated[bool, "whether full text was searched too"] = False
    where: Annotated[Mapping[str, object] | None, "the filters"] = None
    rerank: Annotated[str | None, "the cross-encoder; null without one"] = None
    rerank_s: float = 0.0

    @property
    def encode_ms(self) -> Annotated[float, "to encode the query"]:
        """`encode_s` in milliseconds."""
        return round(self.encode_s * 1000, 3)

    @property
    def search_ms(self) -> Annotated[float, "to search"]:
        """`search_s` in milliseconds."""
        return round(self.search_s * 1000, 3)

    @property
    def rerank_ms(self) -> Annotated[float, "to rerank; 0 without a cross-encoder"]:
        """`rerank_s` in milliseconds."""
        return round(self.rerank_s * 1000, 3)


@dataclass(frozen=True)
class Comparison:
    """The top-k of two versions for one query, and their overlap."""

    query: str
    k: int
    primary: SearchResult
    candidate: SearchResult
    overlap: ranks.Overlap

    @property
    def primary_moves(self) -> list[ranks.Move]:
        """For each hit of the primary, its move to the candidate."""
        return ranks.moves(keys_of(self.primary), keys_of(self.candidate))[0]

    @property
    def candidate_moves(self) -> list[ranks.Move]:
        """For each hit of the candidate, its move from the primary."""
        return ranks.moves(keys_of(self.primary), keys_of(self.candidate))[1]

    @property
    def overlap_by_depth(self) -> Annotated[list[float], "overlap@1 to overlap@k"]:
        """overlap@1 to overlap@k."""
        return ranks.overlap_by_depth(keys_of(self.primary), keys_of(self.candidate), self.k)


def keys_of(result: SearchResult) -> list[str]:
    """The semantic keys of the hits, best first."""
    return [hit.semantic_key for hit in result.hits]
