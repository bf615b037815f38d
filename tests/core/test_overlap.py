"""Rank overlap against published examples, SciPy, and the measures' own bounds."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revector.core.overlap import (
    compare,
    jaccard,
    kendall_tau,
    moves,
    overlap_at,
    overlap_by_depth,
    rank_biased_overlap,
)

rankings = st.lists(st.integers(0, 15), unique=True, max_size=12)


def rbo_by_definition(first: list[int], second: list[int], p: float, depth: int = 4000) -> float:
    """RBO's infinite sum with both lists going on in agreement at the rate of their last rank, term by term."""
    k = len(first)
    last = len(set(first) & set(second))
    total = 0.0
    for d in range(1, depth):
        agreement = len(set(first[:d]) & set(second[:d])) / d if d <= k else last / k
        total += p ** (d - 1) * agreement
    return (1 - p) * total


def test_rbo_equals_its_definition_on_lists_of_one_length() -> None:
    first, second = [1, 2, 3, 4, 5, 6], [2, 1, 7, 3, 8, 5]
    for p in (0.5, 0.9, 0.98):
        assert rank_biased_overlap(first, second, p) == pytest.approx(rbo_by_definition(first, second, p))


def test_the_overlap_by_depth_of_the_papers_example() -> None:
    # Figure 5 of Webber, Moffat and Zobel: the average overlap of these two lists to depth 1 to 7.
    by_depth = overlap_by_depth(list("abcdefg"), list("zcavwxy"), 7)
    average = [sum(by_depth[:depth]) / depth for depth in range(1, 8)]
    assert average == pytest.approx([0, 0, 0.222, 0.292, 0.313, 0.317, 0.312], abs=5e-4)


def test_rbo_of_the_papers_example() -> None:
    first, second, p = list("abcdefg"), list("zcavwxy"), 0.9
    # agreement at depths 1..7: 0, 0, 2/3, 2/4, 2/5, 2/6, 2/7
    terms = [0, 0, 2 / 3, 2 / 4, 2 / 5, 2 / 6, 2 / 7]
    expected = (1 - p) / p * sum(a * p**d for d, a in enumerate(terms, 1)) + 2 / 7 * p**7
    assert rank_biased_overlap(first, second, p) == pytest.approx(expected, abs=1e-12)


def test_rbo_of_published_lists_of_uneven_lengths() -> None:
    # The example of the implementation that accompanies Corsi and Urbano, "The Treatment of Ties in Rank-Biased
    # Overlap", SIGIR 2024: red (blue green) yellow pink against (blue red) white (yellow black purple) green at
    # p = 0.95. They give 0.6922853 as the mean over every way to break the ties.
    firsts = [["red", *tie, "yellow", "pink"] for tie in permutations(["blue", "green"])]
    seconds = [
        [*tie, "white", *three, "green"]
        for tie in permutations(["blue", "red"])
        for three in permutations(["yellow", "black", "purple"])
    ]
    found = [rank_biased_overlap(first, second, 0.95) for first in firsts for second in seconds]
    assert sum(found) / len(found) == pytest.approx(0.6922853, abs=5e-8)


def test_rbo_of_a_list_and_its_beginning_is_one() -> None:
    assert rank_biased_overlap([1, 2, 3, 4, 5], [1, 2, 3]) == pytest.approx(1.0)


@given(rankings, rankings)
def test_bounds_and_symmetry(first: list[int], second: list[int]) -> None:
    for measure in (jaccard, rank_biased_overlap):
        value = measure(first, second)
        assert -1e-9 <= value <= 1 + 1e-9
        assert value == pytest.approx(measure(second, first))
    assert rank_biased_overlap(first, first) == pytest.approx(1.0)
    assert jaccard(first, first) == overlap_at(first, first, 10) == 1.0


@given(rankings, rankings)
def test_kendall_is_scipys_on_the_common_items(first: list[int], second: list[int]) -> None:
    from scipy.stats import kendalltau

    common = [item for item in first if item in second]
    found = kendall_tau(first, second)
    if len(common) < 2:
        assert found is None
    else:
        expected = kendalltau([first.index(i) for i in common], [second.index(i) for i in common]).statistic
        assert found == pytest.approx(expected)


def test_overlap_at_a_depth_beyond_both_lists() -> None:
    assert overlap_at([1, 2, 3], [3, 2, 1], 10) == 1.0
    assert overlap_at([1, 2, 3, 4], [1, 2], 10) == 0.5
    assert overlap_at([], [1], 10) == 0.0
    assert overlap_by_depth([1, 2, 3], [2, 1, 9], 3) == [0.0, 1.0, pytest.approx(2 / 3)]


def test_moves_say_where_an_item_came_from() -> None:
    primary, candidate = moves(["a", "b", "c", "d"], ["x", "a", "c", "b"])
    assert [move.label for move in primary] == ["▼1", "▼2", "=", "gone"]
    assert [move.label for move in candidate] == ["new", "▼1", "=", "▼2"]


def test_compare_cuts_at_k_and_refuses_a_repeated_item() -> None:
    result = compare(["a", "b", "x"], ["b", "a", "y"], 2)
    assert (result.k, result.overlap, result.jaccard, result.kendall_tau) == (2, 1.0, 1.0, -1.0)
    with pytest.raises(ValueError, match="twice"):
        compare(["a", "a"], ["a", "b"], 2)
    with pytest.raises(ValueError, match="between 0 and 1"):
        rank_biased_overlap([1], [1], 1.0)
