"""What a search answers with, and two answers side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from revector.core import overlap as ranks


@dataclass(frozen=True)
class Hit:
    """One result. `distance` has a meaning within its version only: never compare it with another's."""

    rank: int
    chunk_id: int
    semantic_key: str
    source_id: str
    chunk_no: int
    distance: float
    content: str


@dataclass(frozen=True)
class SearchResult:
    """The top-k of one version, and how it was asked for. Times are seconds on the clock.

    `query` is empty for a caller who encodes by himself. `active` says whether the version was the active one at the
    moment of the search. Hits are ordered by distance; those of a hybrid or reranked search are not.
    """

    query: str
    version_key: str
    hits: tuple[Hit, ...]
    encode_s: float
    search_s: float
    active: bool = True
    k: int = 10
    hybrid: bool = False
    where: Mapping[str, object] | None = None
    rerank: str | None = None
    rerank_s: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """The top-k of two versions for one query, and how alike they are."""

    query: str
    k: int
    primary: SearchResult
    candidate: SearchResult
    overlap: ranks.Overlap

    @property
    def primary_moves(self) -> list[ranks.Move]:
        """For each hit of the primary, where it goes in the candidate."""
        return ranks.moves(keys_of(self.primary), keys_of(self.candidate))[0]

    @property
    def candidate_moves(self) -> list[ranks.Move]:
        """For each hit of the candidate, where it comes from in the primary."""
        return ranks.moves(keys_of(self.primary), keys_of(self.candidate))[1]

    @property
    def overlap_by_depth(self) -> list[float]:
        """overlap@1 to overlap@k."""
        return ranks.overlap_by_depth(keys_of(self.primary), keys_of(self.candidate), self.k)


def keys_of(result: SearchResult) -> list[str]:
    """The semantic keys of the hits, best first."""
    return [hit.semantic_key for hit in result.hits]
