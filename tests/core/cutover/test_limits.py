"""What breaks a limit of the watch, by counts alone: bounds, many looks, warm-up, bursts, and a busy machine."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import replace

import pytest

from revector.core.cutover.limits import ALPHA, Seen, judge, surely_above
from revector.core.cutover.policy import Policy
from revector.core.retrieval.counts import BOUNDS_MS, BUCKETS, Slot, slot_s
from tests.core.cutover.simulated import POLICY, Version, first_breach


def times(ms: float, number: int) -> tuple[int, ...]:
    """A histogram of that many searches that all took as long."""
    found = [0] * BUCKETS
    found[bisect.bisect_left(BOUNDS_MS, ms)] = number
    return tuple(found)


def second(at: float, ms: float = 10, *, number: int = 40, errors: int = 0, empty: int = 0) -> Slot:
    seen = (at, at + 0.9) if errors else (None, None)
    return Slot(at, number, empty, errors, times(ms, number - errors), (0,) * BUCKETS, *seen)


BEFORE = [second(at) for at in range(-60, 0)]


def broken(
    since: Sequence[Slot], age_s: float, *, before: Sequence[Slot] = BEFORE, policy: Policy = POLICY
) -> list[str]:
    breaches, _ = judge(policy, Seen(age_s, before, since, [one for one in since if one.at >= 2]))
    return [one.limit for one in breaches]


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.95])
@pytest.mark.parametrize("of", [3, 20, 100, 1_000])
def test_a_share_is_called_above_no_more_often_than_alpha_allows(share: float, of: int) -> None:
    from scipy.stats import binom

    for alpha in (0.05, 1e-5):
        called = [found for found in range(of + 1) if surely_above(found, of, share, alpha)]
        assert not called or binom.sf(called[0] - 1, of, share) <= alpha * 1.0001
    assert surely_above(of, of, 0.001, 1e-6)
    assert not surely_above(of, of, 1.0, 0.05)


def test_all_looks_of_a_day_together_spend_no_more_than_alpha() -> None:
    assert sum(Seen(float(look), [], [], []).alpha for look in range(1, 86_400)) <= ALPHA


def test_a_version_that_answers_nothing_is_judged_by_its_first_searches() -> None:
    assert broken([second(0, number=2, errors=2)], 2) == []  # might be chance
    assert (
        broken([second(0, number=5, errors=5)], 0.5) == []
    )  # and might be a connection that was lost in the flip
    assert broken([second(0, number=5, errors=5), second(1, number=5, errors=5)], 2) == ["max_error_rate"]


@pytest.mark.parametrize("quiet_s", [5, 600, 80_000])
def test_an_outage_hours_after_the_flip_is_seen_as_soon(quiet_s: int) -> None:
    steps = sorted({at // slot_s(at) * slot_s(at) for at in range(quiet_s)})
    well = [second(at, number=40 * slot_s(at)) for at in steps]
    at = well[-1].at + slot_s(well[-1].at)
    lost = replace(second(at, number=200, errors=200), first_error=at + 0.1, last_error=at + 3.1)
    assert broken([*well, lost], at + 4) == ["max_error_rate"]
    # What lasted for a moment, or is over, is not held against the version.
    moment = replace(lost, last_error=at + 0.9)
    assert broken([*well, moment], at + 4) == []
    assert broken([*well, lost], at + 10) == []


def test_a_version_that_fails_as_often_as_the_one_before_is_no_worse() -> None:
    since = [second(at, errors=8) for at in range(20)]
    assert broken(since, 21) == ["max_error_rate"]
    assert broken(since, 21, before=[second(at, errors=10) for at in range(-60, 0)]) == []


def test_searches_that_find_nothing_are_compared_with_those_before() -> None:
    since = [second(at, empty=6) for at in range(10)]
    assert broken(since, 11) == ["max_empty_rate_rise"]
    assert broken(since, 11, before=[second(at, empty=5) for at in range(-60, 0)]) == []


def test_latency_must_have_moved_for_seconds_after_the_warm_up() -> None:
    cold = [second(0, 60), second(1, 60)]
    slow = [*cold, *(second(at, 20) for at in range(2, 6))]
    assert broken([*cold, *(second(at) for at in range(2, 6))], 7) == []
    assert broken(slow[:-1], 6) == []
    assert broken(slow, 7) == ["max_latency_ratio"]
    # A burst that meets all searches for five seconds, half a minute after the flip.
    burst = [*cold, *(second(at) for at in range(2, 30)), *(second(at, 40) for at in range(30, 35))]
    assert broken(burst, 36) == []
    # A burst that leaves every third search alone.
    spared = [replace(second(at, 40), latencies=both(times(10, 14), times(40, 26))) for at in range(2, 20)]
    assert broken([*cold, *spared], 21) == []


def both(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


def test_a_version_that_is_slow_now_and_then_only_is_seen_by_its_p95() -> None:
    def tail(at: int, ms: float) -> Slot:
        number = 40 * slot_s(at)
        return replace(
            second(at, number=number), latencies=both(times(10, number - number // 8), times(ms, number // 8))
        )

    before = [tail(at, 30) for at in range(-60, 0)]
    since = [tail(at, 90) for at in sorted({at // slot_s(at) * slot_s(at) for at in range(1_500)})]
    assert broken([one for one in since if one.at < 600], 601, before=before) == []
    assert broken(since, 1_501, before=before) == ["max_latency_ratio"]


def test_queries_whose_vector_was_cached_are_compared_with_their_like() -> None:
    """After a flip nothing is cached: with the same encoder every search seems five times as slow."""
    before = [Slot(at, 80, latencies=times(10, 20), cached=times(2, 60)) for at in range(-60, 0)]
    assert broken([second(at) for at in range(20)], 21, before=before) == []
    cached = [Slot(at, 40, cached=times(4, 40)) for at in range(20)]
    assert broken(cached, 21, before=before) == ["max_latency_ratio"]


@pytest.mark.parametrize("seed", range(3))
def test_a_busy_machine_is_told_from_a_version(seed: int) -> None:
    """A few runs of those that `make bench watch` counts."""
    assert first_breach(seed, Version(), 30) is None
    for version, within_s in ((Version(failing=1.0), 5), (Version(slower=2.0), 30), (Version(empty=0.3), 10)):
        seen = first_breach(seed, version, 30)
        assert seen is not None
        assert seen[0] <= within_s  # seconds of the run, not of this machine
