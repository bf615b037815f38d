"""Two versions on judged queries: nDCG of both, and the overlap of their rankings, by segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from core import overlap
from core.database import Connection, Progress
from core.evaluation.formats import JudgedQueries
from core.evaluation.queries import WHOLE_SET, Query
from core.registry import Version
from core.retrieval import MAX_K, EncoderCache, Retriever

# Judgements are on documents and results are chunks; a document counts by its best chunk. So more chunks than k
# are asked for, since several can be of one document.
_CHUNKS_PER_DOCUMENT = 3


@dataclass(frozen=True)
class SegmentResult:
    """Means over a segment's queries. `difference` is candidate − primary."""

    measure: str
    segment: str
    queries: int
    primary: float
    candidate: float
    overlap: float
    rbo: float

    @property
    def difference(self) -> float:
        """How much better the candidate is."""
        return self.candidate - self.primary


def compare_versions(
    connection: Connection,
    query_set: JudgedQueries,
    primary: Version,
    candidate: Version,
    *,
    k: int = 10,
    on_progress: Progress | None = None,
) -> list[SegmentResult]:
    """nDCG@k and overlap@k of both versions: the whole set first, then each segment by name.

    Queries without judgements are left out. nDCG as trec_eval computes it, by ir-measures.
    """
    retriever = Retriever(connection, EncoderCache())
    judged = [query for query in query_set.queries if query_set.qrels.get(query.id)]
    rankings: list[dict[str, list[str]]] = [{}, {}]
    for done, query in enumerate(judged, 1):
        for version, ranking in zip((primary, candidate), rankings, strict=True):
            ranking[query.id] = _documents(retriever, version, query, k)
        if on_progress:
            on_progress("comparing", done, len(judged))
    scores = [_ndcg(query_set, ranking, k) for ranking in rankings]
    segments = [(WHOLE_SET, judged)] + [
        (name, [query for query in judged if query.segment == name])
        for name in sorted({query.segment for query in judged})
    ]
    return [_result(name, queries, scores, rankings, k) for name, queries in segments if queries]


def _documents(retriever: Retriever, version: Version, query: Query, k: int) -> list[str]:
    result = retriever.search_version(query.text, version, min(MAX_K, k * _CHUNKS_PER_DOCUMENT))
    return list(dict.fromkeys(hit.source_id for hit in result.hits))[:k]


def _ndcg(query_set: JudgedQueries, ranking: dict[str, list[str]], k: int) -> dict[str, float]:
    import ir_measures

    measure = ir_measures.nDCG @ k
    run = {
        query: {document: float(len(documents) - rank) for rank, document in enumerate(documents)}
        for query, documents in ranking.items()
    }
    qrels = {query: dict(query_set.qrels[query]) for query in ranking}
    found = {metric.query_id: metric.value for metric in ir_measures.iter_calc([measure], qrels, run)}
    return {query: found.get(query, 0.0) for query in ranking}


def _result(
    name: str,
    queries: Sequence[Query],
    scores: Sequence[dict[str, float]],
    rankings: Sequence[dict[str, list[str]]],
    k: int,
) -> SegmentResult:
    pairs = [(rankings[0][query.id], rankings[1][query.id]) for query in queries]
    return SegmentResult(
        f"nDCG@{k}",
        name,
        len(queries),
        fmean(scores[0][query.id] for query in queries),
        fmean(scores[1][query.id] for query in queries),
        fmean(overlap.overlap_at(first, second, k) for first, second in pairs),
        fmean(overlap.rank_biased_overlap(first, second) for first, second in pairs),
    )
