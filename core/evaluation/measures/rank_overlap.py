"""Rank overlap of two runs over all their queries, and the recall of an index against exact search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from revector.core.evaluation.document import OverlapResult
from revector.core.evaluation.judged_sets.judgements import TargetKind
from revector.core.evaluation.measures.measures import rankings
from revector.core.evaluation.runs.store import Results
from revector.core.overlap import Overlap, compare

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
_BINS = 10


def query_overlaps(primary: Results, candidate: Results, level: TargetKind, k: int) -> dict[str, Overlap]:
    """The overlap of the first k, by id of the queries that both runs have. Raises ValueError for k below 1."""
    if k < 1:
        raise ValueError(f"k is {k}; expected 1 or more")
    first, second = (rankings(results, level) for results in (primary, candidate))
    return {query: compare(first[query], second[query], k) for query in first if query in second}


def overlap_results(
    overlaps: Mapping[str, Overlap], segments: Mapping[str, Sequence[str]]
) -> tuple[OverlapResult, ...]:
    """How `overlap`, `jaccard`, `rbo` and `kendall_tau` are distributed over each segment's queries.

    `segments` maps names to query ids. Queries without an overlap are left out, and so are segments left empty.
    For `kendall_tau` only queries count that have one.
    """
    found = []
    for segment, queries in segments.items():
        here = [overlaps[query] for query in queries if query in overlaps]
        for measure in ("overlap", "jaccard", "rbo", "kendall_tau"):
            given = [value for value in (getattr(each, measure) for each in here) if value is not None]
            if given:
                low = -1.0 if measure == "kendall_tau" else 0.0
                found.append(_distribution(measure, segment, np.array(given, dtype=np.float64), low))
    return tuple(found)


def index_recall(exact: Results, indexed: Results, k: int) -> dict[str, float]:
    """By query, the share of the exact top k that the index found, from 0 to 1; queries without exact hits are
    left out.

    A chunk as near as the k-th of the exact search counts as found: repeated texts have equal vectors. Distances
    are of one version. Raises ValueError for runs of two versions.
    """
    if exact.run.version_key != indexed.run.version_key:
        raise ValueError("the recall of an index is that of one version")
    found = {}
    for query, truth in exact.hits.items():
        nearest = truth.distances[:k]
        if len(nearest) and query in indexed.hits:
            near = indexed.hits[query].distances[:k] <= nearest[-1]
            found[query] = min(1.0, int(near.sum()) / len(nearest))
    return found


def _distribution(measure: str, segment: str, values: NDArray[np.float64], low: float) -> OverlapResult:
    # Rounded, so that 3 of 10 falls into the fourth bin although 0.3 times 10 may be slightly less than 3.
    bins = np.floor(np.round((values - low) / (1 - low) * _BINS, 9)).astype(np.int64)
    histogram = np.bincount(np.clip(bins, 0, _BINS - 1), minlength=_BINS)
    return OverlapResult(
        measure,
        segment,
        len(values),
        float(values.mean()),
        tuple(np.quantile(values, QUANTILES).tolist()),
        tuple(histogram.tolist()),
    )
