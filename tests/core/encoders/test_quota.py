from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revector.core.encoders.quota import BURST_S, MINUTE_S, Quota


def run(quota, amounts, *, share=lambda now: 1.0):
    """Spend the amounts one after the other, each as soon as it fits: (moment, amount) of each."""
    now, passed = 1000.0, []
    for amount in amounts:
        looks = 0
        while (moment := quota.next(amount, share(now), now)[0]) > now + 1e-6:
            now, looks = moment, looks + 1
            assert looks <= 2, "it fits when it said it would, unless the share changed meanwhile"
        quota.spend(amount, share(now), now)
        passed.append((now, amount))
    return passed


def most_in_a_minute(passed):
    return max(sum(amount for at, amount in passed if start <= at <= start + 60) for start, _ in passed)


@given(
    limit=st.integers(1, 2000),
    parts=st.lists(st.floats(0.001, 1.0), min_size=1, max_size=60),
)
def test_no_minute_holds_more_than_the_limit(limit, parts):
    amounts = [part * limit for part in parts]
    assert most_in_a_minute(run(Quota("tokens", limit), amounts)) <= limit + 1e-3


@pytest.mark.parametrize(("limit", "amount"), [(60, 1), (7, 1), (1, 1), (6000, 1), (1_000_000, 50_000)])
def test_the_limit_is_used_up(limit, amount):
    n = 5 * limit // amount
    passed = run(Quota("tokens", limit), [amount] * n)
    assert passed[-1][0] - passed[0][0] <= 5 * MINUTE_S


def test_it_is_spread_over_the_minute():
    passed = run(Quota("requests", 600), [1] * 600)
    for second in range(58):
        inside = [at for at, _ in passed if second <= at - 1000 < second + 1]
        assert len(inside) <= 2 * 600 * BURST_S / MINUTE_S + 1


def test_a_share_is_that_part_of_it():
    assert most_in_a_minute(run(Quota("requests", 600), [1] * 300, share=lambda _: 0.25)) <= 150
    halves = run(Quota("requests", 60), [1] * 120, share=lambda now: 1.0 if now < 1061 else 0.5)
    assert most_in_a_minute([each for each in halves if each[0] > 1122]) <= 30


def test_what_is_larger_than_the_limit_goes_alone():
    passed = run(Quota("tokens", 100), [50, 500, 50])
    first, second, third = (at for at, _ in passed)
    assert second - first >= 60
    assert third - second >= 60


def test_an_estimate_is_corrected():
    quota = Quota("tokens", 100)
    spending = quota.spend(90, 1.0, 0.0)
    assert quota.next(20, 1.0, 0.0)[0] == MINUTE_S
    quota.correct(spending, 10)
    assert quota.next(20, 1.0, 60 * 0.1)[0] <= 6.0
    quota.next(1, 1.0, 100.0)
    quota.correct(spending, 10_000)  # too late to matter
    assert quota.next(20, 1.0, 100.0)[0] <= 100.0


def test_without_a_limit_everything_fits_at_once():
    assert run(Quota("tokens", None), [10**9] * 3) == [(1000.0, 10**9)] * 3


def test_the_providers_word():
    quota = Quota("requests", None)
    first = quota.spend(1, 1.0, 0.0)
    second = quota.spend(1, 1.0, 0.0)
    quota.hear(second, 1, 30.0)
    quota.hear(first, 5, 99.0)  # overtaken
    assert quota.next(1, 1.0, 1.0)[0] == 1.0
    quota.spend(1, 1.0, 1.0)
    moment, reason = quota.next(1, 1.0, 2.0)
    assert moment == 30.0
    assert "the provider has too few requests left" in reason
    assert quota.next(1, 1.0, 30.0)[0] == 30.0
    quota.disregard()
    assert quota.next(1, 1.0, 2.0)[0] == 2.0
