"""A cut carried over by the share of results that it keeps."""

from __future__ import annotations

import datetime
import uuid

import numpy as np
import pytest

from revector.core.errors import UsageError
from revector.core.evaluation.document import Run
from revector.core.evaluation.measures.thresholds import QUANTILES, thresholds
from revector.core.evaluation.runs.store import QueryHits, Results

NOW = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)


def results(key: str, distances: list[list[float]], k: int = 10) -> Results:
    run = Run(
        1,
        "set",
        "r",
        key,
        "e",
        "1",
        k,
        True,
        False,
        None,
        {},
        None,
        9,
        len(distances),
        "done",
        NOW,
        NOW,
        1.0,
        "me",
    )
    hits = {
        f"q{n}": QueryHits(
            f"q{n}",
            np.arange(len(row), dtype=np.int64),
            tuple(uuid.UUID(int=i) for i in range(len(row))),
            np.array(row, dtype=np.float32),
            0.0,
            0.0,
        )
        for n, row in enumerate(distances)
    }
    return Results(run, hits)


def test_a_cut_keeps_the_same_share_of_the_other_versions_results() -> None:
    primary = results("a", [[d / 100] for d in range(5, 45)])  # scores 0.56 to 0.95
    candidate = results("b", [[d / 1000] for d in range(100, 140)])  # scores 0.861 to 0.900
    found = thresholds(primary, candidate, ("cosine", "cosine"), cut=0.845)
    assert found.asked is not None
    assert found.asked.kept == pytest.approx(11 / 40)
    assert found.asked.candidate == pytest.approx(0.89)
    kept = sum(1 - hits.distances[0] >= found.asked.candidate for hits in candidate.hits.values())
    assert kept == 11
    assert found.asked.if_copied == 1.0  # the copied number would let everything through
    assert [row.kept for row in found.rows] == pytest.approx([1 - q for q in QUANTILES], abs=1 / 40)
    assert found.results == (40, 40)


def test_random_scores_keep_their_shares() -> None:
    generator = np.random.default_rng(3)
    primary = results("a", generator.uniform(0, 1, (300, 5)).tolist())
    candidate = results("b", (generator.beta(2, 5, (300, 5)) + 7).tolist())
    found = thresholds(primary, candidate, ("l2", "ip"), depth=5)
    everything = np.concatenate([-hits.distances for hits in candidate.hits.values()])
    for row in found.rows:
        assert (everything >= row.candidate).mean() == pytest.approx(row.kept, abs=1e-9)
    assert found.score == "− L2 distance and inner product"


def test_a_cut_that_keeps_nothing_keeps_nothing_elsewhere() -> None:
    found = thresholds(results("a", [[0.5]]), results("b", [[0.2]]), ("cosine", "cosine"), cut=0.99)
    assert found.asked is not None
    assert (found.asked.kept, found.asked.if_copied) == (0.0, 0.0)
    assert found.asked.candidate > 1 - float(np.float32(0.2))


@pytest.mark.parametrize(("cut", "depth"), [(float("nan"), 1), (None, 0), (None, 11)])
def test_what_cannot_be_asked_is_refused(cut: float | None, depth: int) -> None:
    with pytest.raises(UsageError, match="expected"):
        thresholds(results("a", [[0.5]]), results("b", [[0.2]]), ("cosine", "cosine"), cut=cut, depth=depth)


def test_runs_that_found_nothing_are_named() -> None:
    with pytest.raises(UsageError, match="no results for any query"):
        thresholds(results("a", [[]]), results("b", [[0.2]]), ("cosine", "cosine"))
