"""Intervals and p-values are SciPy's, and errors come as often as promised, on simulated and on real queries."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from revector.core.encoders import open_encoder
from revector.core.evaluation.measures.significance import compare_paired, compare_to_bound, further_queries

DRAWS = 2_000
DATA = Path(__file__).resolve().parents[5] / "shared" / "data" / "cranfield"

Values = NDArray[np.float64]
shares = st.floats(0, 1, allow_subnormal=False)


def pairs(rng: np.random.Generator, draws: int, queries: int) -> tuple[Values, Values]:
    """Two exchangeable systems (draws, queries) as nDCG has it: in 0 to 1, skewed, many zeros and many ties."""
    shape = (draws, queries)
    first, second = (np.where(rng.random(shape) < 0.2, 0.0, rng.beta(0.8, 1.2, shape)) for _ in range(2))
    return first, np.where(rng.random(shape) < 0.45, first, second)


@settings(deadline=None)
@given(arrays(np.float64, st.tuples(st.just(2), st.integers(2, 40)), elements=shares), st.floats(0.5, 0.999))
def test_the_paired_test_is_scipys(both: Values, confidence: float) -> None:
    primary, candidate = both
    found = compare_paired(primary, candidate, confidence)
    assert found.difference == pytest.approx(candidate.mean() - primary.mean())
    if np.ptp(candidate - primary) <= 1e-9:
        assert found.low == found.high == found.difference
        return
    expected = stats.ttest_rel(candidate, primary)
    assert found.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(confidence)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    # Two views of one computation: the interval leaves out 0 exactly when the test rejects it.
    assert found.low is not None
    assert found.high is not None
    assert found.p_value is not None
    if abs(found.p_value - (1 - confidence)) > 1e-9:
        assert (found.low > 0 or found.high < 0) == (found.p_value < 1 - confidence)


@settings(deadline=None)
@given(arrays(np.float64, st.integers(2, 40), elements=shares), shares, st.floats(0.5, 0.999))
def test_the_test_against_a_bound_is_scipys_both_ways(values: Values, bound: float, confidence: float) -> None:
    found = compare_to_bound(values, bound, confidence)
    assert not (found.above and found.below)
    if np.ptp(values) <= 1e-9:
        return
    greater = stats.ttest_1samp(values, bound, alternative="greater")
    less = stats.ttest_1samp(values, bound, alternative="less")
    assert found.p_value == pytest.approx(greater.pvalue)
    assert found.low == pytest.approx(greater.confidence_interval(confidence).low)
    assert found.high == pytest.approx(less.confidence_interval(confidence).high)
    for p_value, decided in ((greater.pvalue, found.above), (less.pvalue, found.below)):
        if abs(p_value - (1 - confidence)) > 1e-6:
            assert decided == (p_value < 1 - confidence)


def test_a_mean_alone_decides_at_one_half() -> None:
    values = np.array([0.1, 0.9, 0.4])
    found = compare_to_bound(values, 0.46, 0.5)
    assert found.low == pytest.approx(found.mean)
    assert found.high == pytest.approx(found.mean)
    assert found.above
    assert compare_to_bound(values, 0.48, 0.5).below


@pytest.mark.slow
def test_the_false_positive_rate_is_the_one_promised() -> None:
    primary, candidate = pairs(np.random.default_rng(2026), DRAWS, 50)
    tests = [compare_paired(a, b, 0.95) for a, b in zip(primary, candidate, strict=True)]
    rejected = np.mean([test.p_value < 0.05 for test in tests if test.p_value is not None])
    assert 0.04 <= rejected <= 0.06
    missed = np.mean([not test.low <= 0 <= test.high for test in tests])  # type: ignore[operator]
    assert missed == rejected


@pytest.mark.slow
def test_non_inferiority_passes_a_candidate_on_the_margin_as_seldom_as_promised() -> None:
    primary, candidate = pairs(np.random.default_rng(2027), DRAWS, 50)
    found = [compare_to_bound(row, -0.01, 0.95) for row in candidate - primary - 0.01]
    assert 0.04 <= np.mean([test.above for test in found]) <= 0.06
    assert 0.04 <= np.mean([test.below for test in found]) <= 0.06


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data is not there")
def test_the_false_positive_rate_on_real_queries() -> None:
    """Cranfield's nDCG@10 by two encoders: draws of queries, with the two systems swapped at random in each."""
    values = np.stack([ndcg_of_cranfield(f"static:wordllama-{dimensions}") for dimensions in (64, 256)])
    rng = np.random.default_rng(2028)
    rejected = 0
    for _ in range(DRAWS):
        drawn = values[:, rng.integers(values.shape[1], size=50)]
        swapped = np.where(rng.random(50) < 0.5, drawn, drawn[::-1])
        p_value = compare_paired(swapped[0], swapped[1], 0.95).p_value
        assert p_value is not None
        rejected += p_value < 0.05
    assert 0.04 <= rejected / DRAWS <= 0.06


def ndcg_of_cranfield(encoder_spec: str) -> Values:
    """nDCG@10 of every query (n,), by exact search."""
    import ir_measures

    encoder = open_encoder(encoder_spec)
    documents = [json.loads(line) for line in (DATA / "corpus.jsonl").read_text().splitlines()]
    vectors = encoder.encode_documents([f"{row['title']} {row['text']}" for row in documents])
    run = {}
    for line in (DATA / "queries.jsonl").read_text().splitlines():
        query = json.loads(line)
        similarity = vectors @ encoder.encode_query(query["text"])
        run[query["_id"]] = {documents[i]["_id"]: float(similarity[i]) for i in np.argsort(-similarity)[:10]}
    qrels: dict[str, dict[str, int]] = {}
    for line in (DATA / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        query_id, document, grade = line.split("\t")
        qrels.setdefault(query_id, {})[document] = int(grade)
    found = {
        metric.query_id: metric.value for metric in ir_measures.iter_calc([ir_measures.nDCG @ 10], qrels, run)
    }
    return np.array([found[query] for query in sorted(qrels)])


@pytest.mark.slow
def test_the_power_is_that_of_the_noncentral_t() -> None:
    rng = np.random.default_rng(2029)
    primary, candidate = pairs(rng, DRAWS, 60)
    differences = candidate - primary + 0.07
    true = np.concatenate([b - a for a, b in [pairs(rng, 1, 1_000_000)]])
    effect = 0.07 / true.std()
    critical = stats.t.ppf(0.975, 59)
    expected = stats.nct.sf(critical, 59, effect * 60**0.5) + stats.nct.cdf(-critical, 59, effect * 60**0.5)
    seen = np.mean([compare_paired(np.zeros(60), row, 0.95).p_value < 0.05 for row in differences])  # type: ignore[operator]
    assert 0.3 < expected < 0.9  # neither hopeless nor sure, or nothing is tested
    assert seen == pytest.approx(expected, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("shift", [0.03, -0.03])
def test_with_so_many_further_queries_four_of_five_draws_decide(shift: float) -> None:
    rng = np.random.default_rng(2030)
    primary, candidate = pairs(rng, 1, 1_000_000)
    population = (candidate - primary)[0]
    # Forty queries whose mean and spread are those of the population, so that the number is the true one.
    few = rng.choice(population, 40)
    few = (few - few.mean()) / few.std(ddof=1) * population.std() + population.mean() + shift
    further = further_queries(few, 0.0, 0.95)
    assert further is not None
    assert 0 < further < 4_000
    draws = rng.choice(population + shift, (DRAWS, 40 + further))
    tests = [compare_to_bound(row, 0.0, 0.95) for row in draws]
    assert np.mean([test.above if shift > 0 else test.below for test in tests]) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(("mean", "confidence"), [(0.9, 0.95), (0.6, 0.95), (-0.5, 0.99), (0.2, 0.9)])
def test_the_further_queries_are_the_fewest_that_have_the_power(mean: float, confidence: float) -> None:
    values = np.array([-1.0, 0.0, 1.0]) + mean  # a standard deviation of 1
    for count in range(3, 1_000):
        critical = stats.t.ppf(confidence, count - 1)
        if stats.nct.sf(critical, count - 1, abs(mean) * count**0.5) >= 0.8:
            break
    assert further_queries(values, 0.0, confidence) == count - 3


def test_further_queries_that_cannot_be_named() -> None:
    spread = np.tile([0.0, 1.0], 10)
    assert further_queries(spread, 0.5, 0.95) is None  # the mean sits on the bound
    assert further_queries(spread, 0.4999, 0.95) is None  # millions
    assert further_queries(np.full(20, 0.5), 0.4, 0.95) is None  # no spread
    assert further_queries(np.array([0.5]), 0.4, 0.95) is None
    assert further_queries(spread, 0.3, 0.99) > further_queries(spread, 0.3, 0.95) > 0  # type: ignore[operator]


def test_differences_all_the_same() -> None:
    same = compare_paired(np.full(5, 0.4), np.full(5, 0.4), 0.95)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    # 0.1 by three ways that differ in the last bits.
    better = compare_paired(np.array([0.1, 0.2, 0.7]), np.array([0.2, 0.3, 0.8]), 0.95)
    assert better.low == better.high == pytest.approx(0.1)
    assert better.p_value == 0
    on_margin = np.array([0.7, 0.7, 0.7]) - 0.71  # not quite −0.01
    assert compare_to_bound(on_margin, -0.01, 0.95).above


def test_too_few_values_have_no_interval() -> None:
    one = compare_paired(np.array([0.4]), np.array([0.6]), 0.95)
    assert one.difference == pytest.approx(0.2)
    assert (one.low, one.high, one.p_value) == (None, None, None)
    found = compare_to_bound(np.array([0.4]), 0.0, 0.95)
    assert (found.low, found.high, found.p_value, found.above, found.below) == (None, None, None, False, False)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(bad: float) -> None:
    values, others = np.array([0.1, bad, 0.3]), np.array([0.1, 0.2, 0.3])
    for refused in (
        lambda: compare_paired(values, others, 0.95),
        lambda: compare_paired(others, values, 0.95),
        lambda: compare_to_bound(values, 0.0, 0.95),
        lambda: further_queries(values, 0.0, 0.95),
    ):
        with pytest.raises(ValueError, match="not finite"):
            refused()


def test_what_else_is_refused() -> None:
    values = np.array([0.1, 0.2])
    with pytest.raises(ValueError, match="of the candidate"):
        compare_paired(values, values[:1], 0.95)
    with pytest.raises(ValueError, match="at least 1"):
        compare_paired(values[:0], values[:0], 0.95)
    with pytest.raises(ValueError, match="between 0 and 1"):
        compare_paired(values, values, 1.0)
    with pytest.raises(ValueError, match=r"from 0\.5"):
        compare_to_bound(values, 0.0, 0.4)


@settings(deadline=None)
@given(arrays(np.float64, st.integers(2, 30), elements=shares), shares)
def test_nearly_equal_values_bring_no_warning(values: Values, bound: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nearly = 0.5 + values * 1e-8
        compare_to_bound(nearly, bound, 0.95)
        further_queries(nearly, bound, 0.95)
        compare_paired(np.full(len(values), 0.5), nearly, 0.95)
