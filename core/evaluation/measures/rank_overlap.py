"""Rank overlap of two runs over all their queries at once, and the recall of an index against exact search.

The same measures as in core.overlap, but computed by NumPy for ten thousand pairs of lists at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from revector.core.evaluation.document import OverlapResult
from revector.core.evaluation.judged_sets.judgements import TargetKind
from revector.core.evaluation.measures.measures import Target, rankings
from revector.core.evaluation.runs.store import Results
from revector.core.overlap import RBO_P, Overlap

if TYPE_CHECKING:
    from numpy.typing import NDArray

QUANTILES = (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)
_BINS = 10
_PAIRS_AT_ONCE = 4_000_000
"""Comparisons for Kendall's tau in one step, one byte each."""


def query_overlaps(
    primary: Results, candidate: Results, level: TargetKind, k: int, p: float = RBO_P
) -> dict[str, Overlap]:
    """The overlap of the first k, by id of the queries that both runs have. `p` is RBO's persistence.

    Raises ValueError unless k is positive and 0 < p < 1.
    """
    if k < 1 or not 0 < p < 1:
        raise ValueError(f"k is {k} and p is {p}; expected k above 0 and p between 0 and 1")
    ranked = [rankings(results, level) for results in (primary, candidate)]
    queries = [query for query in ranked[0] if query in ranked[1]]
    if not queries:
        return {}
    first, second = ([each[query][:k] for query in queries] for each in ranked)
    n, m = (np.fromiter(map(len, lists), np.int64, len(lists)) for lists in (first, second))
    positions = _positions(first, second, k)
    common_by_depth = _common_by_depth(positions)
    common = common_by_depth[:, -1]
    longer = np.maximum(n, m)
    with np.errstate(invalid="ignore", divide="ignore"):
        overlap = np.where(longer == 0, 1.0, common / longer)
        jaccard = np.where(longer == 0, 1.0, common / (n + m - common))
    rbo = _rank_biased_overlap(common_by_depth, np.minimum(n, m), longer, p)
    pairs = common * (common - 1) // 2
    concordant = _concordant(positions)
    return {
        query: Overlap(
            k,
            float(overlap[i]),
            float(jaccard[i]),
            float(rbo[i]),
            float((2 * concordant[i] - pairs[i]) / pairs[i]) if pairs[i] else None,
        )
        for i, query in enumerate(queries)
    }


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


def _positions(first: Sequence[Sequence[Target]], second: Sequence[Sequence[Target]], k: int) -> NDArray[np.int64]:
    """For each item of the first lists, its index in the second one: (n, k), −1 where it is missing."""
    found = np.full((len(first), k), -1, np.int64)
    for row, before, after in zip(found, first, second, strict=True):
        place = {target: number for number, target in enumerate(after)}
        row[: len(before)] = [place.get(target, -1) for target in before]
    return found


def _common_by_depth(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many items both lists share at depths 1 to k: (n, k), from `_positions`."""
    n, k = positions.shape
    # An item is shared from the deeper of its two positions on.
    query, place = np.nonzero(positions >= 0)
    depth = np.maximum(place, positions[query, place])
    counts = np.bincount(query * k + depth, minlength=n * k).reshape(n, k)
    return np.cumsum(counts, axis=1)


def _rank_biased_overlap(
    common: NDArray[np.int64], short: NDArray[np.int64], long: NDArray[np.int64], p: float
) -> NDArray[np.float64]:
    """RBO_EXT, equation 32 of Webber, Moffat and Zobel 2010, from the overlap by depth (n, k) and both lengths (n,)."""
    n, k = common.shape
    depth = np.arange(1, k + 1)
    weight = p**depth
    everyone = np.arange(n)
    # Rows without results have no depth to look up; they are filled in at the end.
    s, l = np.maximum(short, 1), np.maximum(long, 1)  # noqa: E741  (the paper's names)
    at_s, at_l = common[everyone, s - 1], common[everyone, l - 1]
    within = depth <= l[:, None]
    agreement = np.where(within, common / depth, 0) @ weight
    beyond = (
        np.where(within & (depth > s[:, None]), (depth - s[:, None]) / (s[:, None] * depth), 0) @ weight * at_s
    )
    extrapolated = ((at_l - at_s) / l + at_s / s) * p**l
    rbo = (1 - p) / p * (agreement + beyond) + extrapolated
    return np.where(long == 0, 1.0, np.where(short == 0, 0.0, rbo))


def _concordant(positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many pairs of common items both lists have in the same order: (n,), from `_positions` (n, k)."""
    n, k = positions.shape
    found = np.zeros(n, np.int64)
    rows = max(1, _PAIRS_AT_ONCE // (k * k))
    later = np.triu(np.ones((k, k), np.bool_), 1)
    small = positions.astype(np.int16)
    for start in range(0, n, rows):
        part = small[start : start + rows]
        # Items that are not shared are neither before nor after any other.
        before = np.where(part >= 0, part, np.int16(np.iinfo(np.int16).max))
        found[start : start + rows] = np.count_nonzero(
            (before[:, :, None] < part[:, None, :]) & later, axis=(1, 2)
        )
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
