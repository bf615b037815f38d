"""Reranking: a cross-encoder reads the query with the text of each hit, and orders the hits."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future

from msgspec.structs import replace

from revector.core import forks
from revector.core.cross_encoders import PairModel, parse_pair_spec
from revector.core.retrieval.encoding import Openings
from revector.core.retrieval.options import MAX_K
from revector.core.retrieval.result import Hit

RERANK_DEPTH = 50
"""The minimum number of texts to rerank: what the first search ranked lower cannot move up."""


def reranked_depth(k: int) -> int:
    """How many hits a search fetches for reranking."""
    return min(MAX_K, max(k, RERANK_DEPTH))


def reranked(model: PairModel, text: str, hits: Sequence[Hit], k: int) -> tuple[Hit, ...]:
    """The k hits that the model finds most relevant, best first; ties keep the search's order."""
    scores = model.scores([(text, hit.content) for hit in hits])
    order = sorted(range(len(hits)), key=lambda place: -scores[place])[:k]
    return tuple(replace(hits[place], rank=rank) for rank, place in enumerate(order, 1))


class Rerankers:
    """A cache of open cross-encoders; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[str, PairModel] = {}
        self._openings: Openings[str, PairModel] = Openings()

    def check(self, spec: str) -> None:
        """Raise UsageError for a malformed spec."""
        if spec not in self._models:
            parse_pair_spec(spec, "reranker")

    def opening(self, spec: str) -> Future[PairModel]:
        """The model as soon as a thread has opened it; the errors are those of `opened`."""
        return self._openings.begin(spec, lambda: self.opened(spec))

    def opened(self, spec: str) -> PairModel:
        """The model of a spec. Raises UnreachableError when it cannot be opened."""
        with self._lock:
            if spec not in self._models:
                with forks.unforked():
                    self._models[spec] = PairModel(parse_pair_spec(spec, "reranker"))
            return self._models[spec]
