"""Agreement of judges: the figures are scikit-learn's, on every scale and at every level."""

from __future__ import annotations

import math
from importlib import import_module
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revector.core.database import Connection
from revector.core.errors import UsageError
from revector.core.evaluation.judged_sets.agreement import agreement, agreement_with_people, weighted_kappa
from revector.core.evaluation.judged_sets.query_sets import Query
from tests.core.evaluation.support import add_document, judge, new_set

GRADES = st.integers(0, 5)


@pytest.fixture(scope="module")
def metrics() -> ModuleType:
    """scikit-learn's, which takes seconds to import."""
    return import_module("sklearn.metrics")


@given(pairs=st.lists(st.tuples(GRADES, GRADES), min_size=1, max_size=60))
def test_kappa_is_scikit_learns(pairs: list[tuple[int, int]], metrics: ModuleType) -> None:
    first, second = zip(*pairs, strict=True)
    found = weighted_kappa(first, second)
    if len(set(first + second)) == 1:
        assert found is None
        return
    assert found == pytest.approx(
        metrics.cohen_kappa_score(first, second, labels=list(range(6)), weights="quadratic"), abs=1e-12
    )


def test_kappa_at_its_ends() -> None:
    assert weighted_kappa([0, 1, 2, 3], [0, 1, 2, 3]) == 1
    assert weighted_kappa([0, 3, 0, 3], [3, 0, 3, 0]) == -1
    assert weighted_kappa([1, 1], [2, 2]) == 0
    assert weighted_kappa([], []) is None
    # A near miss costs less than a far one.
    near, far = (weighted_kappa([0, 1, 2, 3, 3, 0], [0, 1, 2, 3, last, 0]) for last in (2, 0))
    assert near is not None
    assert far is not None
    assert near > far
    with pytest.raises(ValueError, match="one length"):
        weighted_kappa([1, 2], [1])


def test_two_judges_on_what_both_judged(connection: Connection, metrics: ModuleType) -> None:
    query_set = new_set(connection)
    rng = np.random.default_rng(7)
    a = {(f"q{q}", f"d{d}"): int(rng.integers(0, 4)) for q in range(1, 5) for d in range(12)}
    b = {
        pair: min(3, max(0, grade + int(rng.integers(-1, 2))))
        if pair[0] in ("q1", "q3")
        else int(rng.integers(0, 4))
        for pair, grade in a.items()
    }
    judge(connection, query_set, "anna", *[(*pair, grade) for pair, grade in a.items()], ("q1", "only anna", 3))
    judge(connection, query_set, "bert", *[(*pair, grade) for pair, grade in b.items()], ("q2", "only bert", 0))
    found = agreement(connection, query_set, "anna", "bert")
    first, second = list(a.values()), [b[pair] for pair in a]
    assert (found.first, found.second, found.level) == ("anna", "bert", "document")
    assert found.pairs == 48
    assert found.exact == pytest.approx(np.mean(np.equal(first, second)))
    assert found.kappa == pytest.approx(metrics.cohen_kappa_score(first, second, weights="quadratic"))
    assert found.grades == (0, 1, 2, 3)
    assert found.confusion == tuple(map(tuple, metrics.confusion_matrix(first, second).tolist()))
    assert not found.binarised
    assert [(segment.segment, segment.pairs) for segment in found.segments] == [("even", 24), ("odd", 24)]
    for segment, ids in zip(found.segments, (("q2", "q4"), ("q1", "q3")), strict=True):
        sides = zip(*[(a[pair], b[pair]) for pair in a if pair[0] in ids], strict=True)
        assert segment.kappa == pytest.approx(metrics.cohen_kappa_score(*sides, weights="quadratic"))
    assert found.most_disagreeing == "even"
    swapped = agreement(connection, query_set, "bert", "anna")
    assert swapped.kappa == pytest.approx(found.kappa)
    assert swapped.confusion == tuple(zip(*found.confusion, strict=True))


def test_a_chunks_label_meets_a_documents_judgement_by_the_best_chunk(
    connection: Connection, metrics: ModuleType
) -> None:
    query_set = new_set(connection)
    first = add_document(connection, "d1", "a", "b", "c")
    second = add_document(connection, "d2", "e")
    judge(connection, query_set, "anna", ("q1", "d1", 2), ("q1", "d2", 0), ("q2", "d1", 1))
    judge(
        connection, query_set, "model",
        ("q1", first[0], 0), ("q1", first[1], 2), ("q1", second[0], 2), ("q1", "gone", 2), ("q2", first[2], 1),
        kind="chunk", model=True,
    )  # fmt: skip
    found = agreement_with_people(connection, query_set, "model")
    assert found is not None
    assert (found.level, found.pairs, found.unplaced, found.second) == ("document", 3, 1, "anna")
    assert found.confusion == ((0, 0, 0), (0, 1, 0), (1, 0, 1))
    assert found.kappa == pytest.approx(metrics.cohen_kappa_score([2, 2, 1], [2, 0, 1], weights="quadratic"))


def test_chunks_meet_chunks_where_nobody_judged_a_document(connection: Connection) -> None:
    query_set = new_set(connection)
    judge(connection, query_set, "anna", ("q1", "k1", 1), ("q1", "k2", 0), kind="chunk")
    judge(connection, query_set, "model", ("q1", "k1", 1), ("q1", "k2", 1), kind="chunk", model=True)
    found = agreement(connection, query_set, "anna", "model")
    assert (found.level, found.pairs, found.exact, found.unplaced) == ("chunk", 2, 0.5, 0)


def test_several_people_count_as_their_lower_median(connection: Connection) -> None:
    query_set = new_set(connection)
    for name, grade in (("anna", 3), ("bert", 1), ("carl", 2), ("dora", 3)):
        judge(connection, query_set, name, ("q1", "d1", grade), ("q2", "d2", 0))
    judge(connection, query_set, "model", ("q1", "d1", 2), ("q2", "d2", 0), model=True)
    found = agreement_with_people(connection, query_set, "model")
    assert found is not None
    assert (found.second, found.exact, found.kappa) == ("people", 1, 1)
    other = agreement_with_people(connection, query_set, "anna")
    assert other is not None
    assert (other.confusion, other.grades) == (((1, 0, 0), (0, 0, 0), (0, 1, 0)), (0, 2, 3))


@pytest.mark.parametrize(
    ("first", "second", "binarised"),
    [
        ([0, 1, 1, 0], [0, 3, 1, 2], True),
        ([0, 1, 2, 0], [0, 3, 1, 2], False),
        ([0, 3, 1, 0], [0, 100, 40, 2], True),
        ([0, 0, 0, 0], [0, 0, 1, 1], False),
        ([0, 1, 1, 0], [1, 1, 0, 0], False),
    ],
)
def test_other_scales_are_said_and_made_relevant_or_not(
    connection: Connection, first: list[int], second: list[int], binarised: bool, metrics: ModuleType
) -> None:
    query_set = new_set(connection)
    for name, grades in (("anna", first), ("bert", second)):
        judge(connection, query_set, name, *[("q1", f"d{n}", grade) for n, grade in enumerate(grades)])
    found = agreement(connection, query_set, "anna", "bert")
    assert found.binarised is binarised
    assert found.scales == (max(first), max(second))
    sides = [np.array(grades) for grades in (first, second)]
    if binarised:
        sides = [(side >= 1).astype(int) for side in sides]
    assert found.exact == np.mean(sides[0] == sides[1])
    expected = metrics.cohen_kappa_score(*sides, weights="quadratic")
    assert found.kappa == pytest.approx(expected)
    assert not math.isnan(expected)


def test_nothing_in_common(connection: Connection) -> None:
    query_set = new_set(connection)
    judge(connection, query_set, "anna", ("q1", "d1", 1))
    judge(connection, query_set, "bert", ("q1", "d2", 1), ("q2", "d1", 1))
    found = agreement(connection, query_set, "anna", "bert")
    assert (found.pairs, found.exact, found.kappa, found.confusion, found.segments) == (0, None, None, (), ())
    assert found.most_disagreeing is None
    with pytest.raises(UsageError, match="no judge 'ana'"):
        agreement(connection, query_set, "ana", "bert")


def test_nobody_to_agree_with(connection: Connection) -> None:
    query_set = new_set(connection)
    judge(connection, query_set, "model", ("q1", "d1", 1), model=True)
    assert agreement_with_people(connection, query_set, "model") is None


def test_a_segment_of_a_few_pairs_is_not_the_one_that_disagrees(connection: Connection) -> None:
    query_set = new_set(connection, *[Query(name, name, name) for name in ("few", "good", "bad")])
    rows = [("few", f"d{n}", n % 2, (n + 1) % 2) for n in range(4)]
    rows += [("good", f"d{n}", n % 3, n % 3) for n in range(12)]
    rows += [("bad", f"d{n}", n % 3, (n * n) % 3) for n in range(12)]
    judge(connection, query_set, "anna", *[(query, target, grade) for query, target, grade, _ in rows])
    judge(connection, query_set, "bert", *[(query, target, grade) for query, target, _, grade in rows])
    assert agreement(connection, query_set, "anna", "bert").most_disagreeing == "bad"


def test_a_judge_of_relevant_documents_only_is_named(connection: Connection) -> None:
    query_set = new_set(connection)
    pairs = [(f"q{q}", f"d{d}") for q in range(1, 5) for d in range(10)]
    judge(connection, query_set, "qrels", *[(*pair, 1) for pair in pairs])
    judge(connection, query_set, "model", *[(*pair, n % 2) for n, pair in enumerate(pairs)], model=True)
    found = agreement(connection, query_set, "model", "qrels")
    assert (found.kappa, found.exact, found.of_one_grade) == (0, 0.5, ("qrels",))
    assert found.most_disagreeing is None
    assert agreement(connection, query_set, "qrels", "qrels").of_one_grade == ("qrels", "qrels")
