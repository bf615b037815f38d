"""Rank overlap of two top-k lists. Ranks are compared, never the scores of two encoders."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated

RBO_P = 0.9
"""Persistence of RBO: at 0.9 the first ten ranks carry 86 % of the weight."""


@dataclass(frozen=True)
class Overlap:
    """The overlap of two rankings at depth k."""

    k: Annotated[int, "the depth"]
    overlap: Annotated[float, "the share of results that both have"]
    jaccard: Annotated[float, "results that both have, of those that either has"]
    rbo: Annotated[float, "rank-biased overlap"]
    kendall_tau: Annotated[float | None, "null with fewer than two results in common"]


@dataclass(frozen=True)
class Move:
    """An item's rank in the primary (`before`, from 1) and in the candidate (`after`); None if missing there."""

    before: int | None
    after: int | None

    @property
    def label(self) -> str:
        """`▲2` two ranks higher in the candidate, `▼3` three lower, `=` the same, `new` only there, `gone` missing
        there."""
        if self.before is None:
            return "new"
        if self.after is None:
            return "gone"
        change = self.before - self.after
        return "=" if change == 0 else f"▲{change}" if change > 0 else f"▼{-change}"


def compare(first: Sequence[Hashable], second: Sequence[Hashable], k: int) -> Overlap:
    """All measures of two rankings, cut at k. Raises ValueError when an item is in a ranking twice."""
    first, second = first[:k], second[:k]
    return Overlap(
        k,
        overlap_at(first, second, k),
        jaccard(first, second),
        rank_biased_overlap(first, second),
        kendall_tau(first, second),
    )


def overlap_at(first: Sequence[Hashable], second: Sequence[Hashable], k: int) -> float:
    """The share of the first k items that both lists have, in 0 to 1: |A∩B| / k.

    If both lists are shorter than k, the longer length replaces k, so that equal lists score 1.
    """
    depth = min(k, max(len(first), len(second)))
    if depth == 0:
        return 1.0
    return len(set(first[:k]) & set(second[:k])) / depth


def overlap_by_depth(first: Sequence[Hashable], second: Sequence[Hashable], k: int) -> list[float]:
    """overlap@1 to overlap@k."""
    return [overlap_at(first, second, depth) for depth in range(1, k + 1)]


def jaccard(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """|A∩B| / |A∪B|; 1 for two empty lists."""
    union = set(first) | set(second)
    return len(set(first) & set(second)) / len(union) if union else 1.0


def rank_biased_overlap(first: Sequence[Hashable], second: Sequence[Hashable], p: float = RBO_P) -> float:
    """Extrapolated rank-biased overlap, RBO_EXT, for lists of any lengths, from 0 to 1.

    Equation 32 of Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", ACM TOIS 28(4), 2010.
    Raises ValueError unless 0 < p < 1 and every item is in a list once.
    """
    if not 0 < p < 1:
        raise ValueError(f"p is {p}; expected a number between 0 and 1")
    short, long = sorted((list(first), list(second)), key=len)
    if len(set(short)) != len(short) or len(set(long)) != len(long):
        raise ValueError("an item stands in a ranking twice")
    s, l = len(short), len(long)  # noqa: E741  (the paper's names)
    if l == 0:
        return 1.0
    if s == 0:
        return 0.0
    common = [0] * (l + 1)  # common[d]: the paper's X_d, the overlap of both lists to depth d
    rank = {item: depth for depth, item in enumerate(long, 1)}
    for depth, item in enumerate(short, 1):
        if item in rank:
            common[max(depth, rank[item])] += 1
    common = list(accumulate(common))
    agreement = sum(common[d] / d * p**d for d in range(1, l + 1))
    beyond_short = sum(common[s] * (d - s) / (s * d) * p**d for d in range(s + 1, l + 1))
    extrapolated = ((common[l] - common[s]) / l + common[s] / s) * p**l
    return (1 - p) / p * (agreement + beyond_short) + extrapolated


def kendall_tau(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Kendall's tau over the items in both lists, from −1 to 1; None for fewer than two.

    Ranks have no ties, so tau-a equals tau-b: (concordant − discordant) / all pairs.
    """
    rank = {item: position for position, item in enumerate(second)}
    positions = [rank[item] for item in first if item in rank]
    pairs = len(positions) * (len(positions) - 1) // 2
    if pairs == 0:
        return None
    concordant = 0
    seen: list[int] = []
    for position in positions:
        before = bisect(seen, position)
        concordant += before
        seen.insert(before, position)
    return (2 * concordant - pairs) / pairs


def moves(primary: Sequence[Hashable], candidate: Sequence[Hashable]) -> tuple[list[Move], list[Move]]:
    """The moves of the primary's items and of the candidate's items, each in ranking order."""
    before = {item: rank for rank, item in enumerate(primary, 1)}
    after = {item: rank for rank, item in enumerate(candidate, 1)}
    return (
        [Move(before[item], after.get(item)) for item in primary],
        [Move(before.get(item), after[item]) for item in candidate],
    )
