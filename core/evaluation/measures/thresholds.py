"""Absolute score thresholds ("answer only if the score is above 0.82"), and their equivalent with another encoder.

Scores of two encoders cannot be compared. What can be carried over is the share of results that pass a threshold:
the same quantile of the candidate's scores. It holds for queries like those of the set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from revector.core.errors import UsageError
from revector.core.evaluation.runs.store import Results

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from revector.core.registry import Metric

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class ThresholdRow:
    """A threshold for the primary, and the one for the candidate that the same share of results pass."""

    kept: Annotated[float, "the share of results that the cut keeps"]
    primary: Annotated[float, "the cut of the primary"]
    candidate: Annotated[float, "the cut of the candidate that keeps the same share"]
    if_copied: Annotated[float, "the share that the candidate keeps at the primary's number"]


@dataclass(frozen=True)
class Thresholds:
    """The table, and the row of the requested threshold (None without one).

    `score` says what the numbers are: 1 − distance for cosine, the inner product for ip, the negative distance for
    l2, so that more is always better. `results` is how many results each version's share is based on: the first
    `depth` of every query.
    """

    score: Annotated[str, "what the numbers are; more is better"]
    queries: Annotated[int, "behind the table"]
    depth: Annotated[int, "results of each query"]
    results: Annotated[tuple[int, int], "how many each version's share is taken of"]
    rows: Annotated[tuple[ThresholdRow, ...], "cuts of the primary"]
    asked: Annotated[ThresholdRow | None, "the cut that was asked for; null without one"]

    @property
    def says(self) -> str:
        """What the numbers are, and why they are carried over by shares."""
        return (
            f"Scores ({self.score}) of the first {self.depth} of each of {self.queries:,} queries. Scores of two "
            "encoders cannot be compared; the share of results that a cut keeps can."
        )

    def answer(self, primary: str, candidate: str) -> str:
        """The requested threshold in words; empty without one."""
        if (row := self.asked) is None:
            return ""
        return (
            f"A cut at {row.primary:g} keeps {row.kept:.1%} with {primary}. {candidate} keeps as many at "
            f"{row.candidate:.4f}; at {row.primary:g} it would keep {row.if_copied:.1%}."
        )


_SCORES = {"cosine": "1 − cosine distance", "ip": "inner product", "l2": "− L2 distance"}


def _scores(distances: NDArray[np.float32], metric: Metric) -> NDArray[np.float64]:
    """Distances (n,) as scores (n,): more is better. pgvector's ip distance is the negative inner product."""
    given = np.asarray(distances, np.float64)
    return 1 - given if metric == "cosine" else -given


def thresholds(
    primary: Results,
    candidate: Results,
    metrics: tuple[Metric, Metric],
    *,
    cut: float | None = None,
    depth: int = 1,
) -> Thresholds:
    """The thresholds of both versions that keep the same share of the first `depth` results of every query.

    `depth` 1 asks whether the best answer is good enough, which is what such a threshold mostly decides. Raises
    UsageError for a depth beyond the runs', a non-finite threshold, and runs without results.
    """
    most = min(primary.run.k, candidate.run.k)
    if not 1 <= depth <= most:
        raise UsageError(f"The depth is {depth}; expected 1 to {most}, the depth of the runs.")
    if cut is not None and not np.isfinite(cut):
        raise UsageError(f"The cut is {cut}; expected a number such as 0.82.")
    sides = [
        np.sort(
            np.concatenate(
                [_scores(hits.distances[:depth], metric) for hits in side.hits.values()] or [np.empty(0)]
            )
        )
        for side, metric in zip((primary, candidate), metrics, strict=True)
    ]
    for results, side in zip((primary, candidate), sides, strict=True):
        if not len(side):
            raise UsageError(f"Run {results.run.id} of {results.run.version_key} has no results for any query.")
    rows = [_row(sides[0], sides[1], float(np.quantile(sides[0], q))) for q in QUANTILES]
    return Thresholds(
        score=_SCORES[metrics[0]] if metrics[0] == metrics[1] else " and ".join(_SCORES[m] for m in metrics),
        queries=len(primary.hits),
        depth=depth,
        results=(len(sides[0]), len(sides[1])),
        rows=tuple(rows),
        asked=None if cut is None else _row(sides[0], sides[1], cut),
    )


def _row(primary: NDArray[Any], candidate: NDArray[Any], cut: float) -> ThresholdRow:
    """`primary` and `candidate` are sorted scores; a result is kept when its score is at least the threshold."""
    kept = _kept(primary, cut)
    count = round(kept * len(candidate))
    # The lowest kept score; to keep none, the next number above the highest.
    same = float(candidate[-count]) if count else float(np.nextafter(candidate[-1], np.inf))
    return ThresholdRow(kept, cut, same, _kept(candidate, cut))


def _kept(scores: NDArray[Any], cut: float) -> float:
    return float(len(scores) - np.searchsorted(scores, cut, side="left")) / len(scores)
