"""Which limits of the policy the searches since a flip break: by evidence, not by one figure.

A watch looks every second for a day, so a limit that is judged by a plain figure is broken by chance sooner or later.

**Shares.** Errors, empty results and "slower than x" are shares of searches. A share is above its limit when
Chernoff's bound gives what was seen a chance below alpha were it not (Hoeffding 1963, "Probability inequalities for
sums of bounded random variables", theorem 1). It holds for every number of searches, and nothing is assumed of how
latencies are distributed: "the median is above x" is "more than half are slower than x" (the order-statistic interval
of a quantile). The mean overlap is bounded by the same paper's theorem 2.

**Many looks.** The look in second t gets alpha / (t (t + 1)), which adds up to alpha over all looks, whatever they
have in common (Lan and DeMets 1983, "Discrete sequential boundaries for clinical trials": alpha spending).

**A busy machine** slows down searches for seconds at a time, together, which no bound on single searches knows. So
latency is judged by the newest three quarters of the time since the flip (4 s at least, an hour at most): in each of
its four parts searches must be slower by half of what is allowed, on a logarithmic scale; and the lower quartile must
have moved beyond the limit as well as the median, since a burst leaves some searches as quick as ever. If only p95 has
moved, that must have lasted for ten minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, TypeAlias

from revector.core.cutover.policy import Policy
from revector.core.retrieval.counts import (
    Slot,
    added,
    bucket_of,
    figures_of,
    in_bucket_ms,
    percentile,
    slot_s,
)

ALPHA = 0.005
"""The chance, for each limit and watch, that it is found broken though it holds."""
_ALPHA_BEFORE = 0.05
_ALPHA_TIMES = 0.2
"""For latency: a version whose times are at the limit exactly. One that is as quick as before is far from it."""
FEWEST_SEARCHES = 100
"""Searches needed of each version before their times and empty results are compared."""
FEWEST_COMPARED = 20
"""Queries that both versions must have answered before their overlap is judged."""
_SHORTEST_S = 4.0
_LONGEST_S = 3_600.0
_LATELY_S = 600.0
_TAIL_S = 600.0
_NEWEST = 3 / 4
_COLD_S = 4.0
"""Of the time since the flip: the warm-up, and counts that are on their way."""
_PARTS = 4
_FEWEST_IN_PART = 3
_LASTING_S = 1.0
"""From the first to the last error: a connection that was lost once is no outage."""
_OVER_S = 5.0
"""After its last error an outage is over."""
_QUANTILES = (0.25, 0.5, 0.95)
_Kind: TypeAlias = Callable[[Slot], Sequence[int]]
_KINDS: tuple[_Kind, ...] = (lambda slot: slot.latencies, lambda slot: slot.cached)
"""Searches that encoded their query, and those that did not: each is compared with its like."""


@dataclass(frozen=True)
class Breach:
    """A limit of the policy, and the figures for it."""

    limit: Annotated[str, "the setting of the policy"]
    detail: Annotated[str, "the figures"]


@dataclass(frozen=True)
class Seen:
    """What is known of a flip's effect `age_s` seconds after it; slots are ordered by time.

    `warm` are the slots since the flip without each process's first seconds; `overlap` is the mean over `compared`
    queries.
    """

    age_s: float
    before: Sequence[Slot]
    since: Sequence[Slot]
    warm: Sequence[Slot]
    overlap: float | None = None
    compared: int = 0

    @property
    def alpha(self) -> float:
        """What the look in this second may spend."""
        look = max(1, int(self.age_s))
        return ALPHA / (look * (look + 1))


_Found: TypeAlias = tuple[str, bool] | str
"""The figures, and whether they break the limit; or why it cannot be judged."""


def judge(policy: Policy, seen: Seen) -> tuple[tuple[Breach, ...], tuple[Breach, ...]]:
    """The limits that are broken, and those that cannot be judged yet."""
    judges: dict[str, Callable[[float, Seen], _Found]] = {
        "max_error_rate": _error_rate,
        "max_empty_rate_rise": _empty_rate,
        "max_latency_ratio": _latency,
        "min_overlap": _overlap,
    }
    breaches, unjudged = [], []
    for name, judged in judges.items():
        limit: float | None = getattr(policy, name)
        match judged(limit, seen) if limit is not None else ("", False):
            case str(why):
                unjudged.append(Breach(name, why))
            case (detail, True):
                breaches.append(Breach(name, detail))
    return tuple(breaches), tuple(unjudged)


def surely_above(found: int, of: int, share: float, alpha: float) -> bool:
    """Whether `found` of `of` shows that the true share is above `share`, with an error of at most alpha."""
    if found <= share * of:
        return False
    return of * _divergence(found / of, share) >= -math.log(alpha)


def _divergence(seen: float, share: float) -> float:
    """Kullback and Leibler's, of two coins, in nats."""
    if share <= 0 or share >= 1:
        return 0.0 if seen == share else math.inf
    yes = seen * math.log(seen / share) if seen > 0 else 0.0
    return yes + ((1 - seen) * math.log((1 - seen) / (1 - share)) if seen < 1 else 0.0)


def _highest(found: int, of: int, alpha: float) -> float:
    """The highest true share that `found` of `of` leaves possible."""
    low, high = found / of, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if of * _divergence(found / of, middle) < -math.log(alpha):
            low = middle
        else:
            high = middle
    return high


# -- errors --------------------------------------------------------------------------------------------------------


def _error_rate(limit: float, seen: Seen) -> _Found:
    """Judged by the newest 1, 2, 4 … seconds, so that an outage hours after the flip is seen as soon."""
    searches, errors = (sum(getattr(one, name) for one in seen.since) for name in ("searches", "errors"))
    if not searches:
        return "no search was counted since the cutover"
    lately = figures_of([one for one in seen.before if one.at >= -_LONGEST_S])
    if lately.error_rate is not None and lately.searches >= FEWEST_SEARCHES:
        limit = max(limit, lately.error_rate)  # the version before failed as often, so it is no way out
    windows = list(_newest(seen.since))
    for seconds, slots in windows:
        some, failed = sum(one.searches for one in slots), sum(one.errors for one in slots)
        if surely_above(failed, some, limit, seen.alpha / len(windows)):
            began, ended = _errors_of(slots)
            if (ended - (0.0 if errors == searches else began) >= _LASTING_S) and seen.age_s - ended <= _OVER_S:
                return (
                    f"{failed / some:.1%} of {some:,} searches failed in the last {seconds} s; "
                    f"at most {limit:.1%} may",
                    True,
                )
    return f"{errors / searches:.1%} of searches failed; at most {limit:.1%} may", False


def _newest(slots: Sequence[Slot]) -> Iterator[tuple[int, Sequence[Slot]]]:
    """The slots of the newest 1, 2, 4 … seconds, up to an hour."""
    end = slots[-1].at + slot_s(slots[-1].at)
    seconds, last = 1, -1
    while seconds < 2 * _LONGEST_S and last != len(slots):
        found = [one for one in slots if one.at >= end - seconds]
        if found and len(found) != last:
            yield seconds, found
            last = len(found)
        seconds *= 2


def _errors_of(slots: Sequence[Slot]) -> tuple[float, float]:
    """When the first and the last error were, in seconds after the flip."""
    failing = [one for one in slots if one.errors]
    first = min(one.at if one.first_error is None else one.first_error for one in failing)
    last = max(one.at if one.last_error is None else one.last_error for one in failing)
    return first, last


# -- empty results -------------------------------------------------------------------------------------------------


def _empty_rate(rise: float, seen: Seen) -> _Found:
    if few := _too_few(seen):
        return few
    before, since = figures_of(seen.before), figures_of(seen.since)
    if before.empty_rate is None or since.empty_rate is None:
        return "no search was answered"
    answered, empty = _answered(seen.before)
    allowed = min(1.0, _highest(empty, answered, _ALPHA_BEFORE) + rise)
    detail = (
        f"{since.empty_rate:.1%} of searches find nothing, {before.empty_rate:.1%} before; "
        f"at most {rise:.1%} more is allowed"
    )
    for slots in (seen.since, [one for part in _parts(seen.since, seen.age_s) for one in part]):
        answered, empty = _answered(slots)
        if surely_above(empty, answered, allowed, seen.alpha / 2):
            return detail, True
    return detail, False


def _answered(slots: Sequence[Slot]) -> tuple[int, int]:
    return sum(one.searches - one.errors for one in slots), sum(one.empty for one in slots)


def _too_few(seen: Seen) -> str:
    for slots, when in ((seen.before, "before the cutover"), (seen.since, "since the cutover")):
        searches = sum(one.searches for one in slots)
        if searches < FEWEST_SEARCHES:
            return f"{searches:,} searches counted {when}, {FEWEST_SEARCHES} needed"
    return ""


# -- latency -------------------------------------------------------------------------------------------------------


def _latency(ratio: float, seen: Seen) -> _Found:
    if few := _too_few(seen):
        return few
    judged = [found for kind in _KINDS if (found := _times(ratio, seen, kind)) is not None]
    if not judged:
        return "too few searches were answered since the cutover after each process's first seconds"
    return max(judged, key=lambda one: one[1])


def _times(ratio: float, seen: Seen, kind: _Kind) -> tuple[str, bool] | None:
    """Whether the searches of one kind take longer; None when they are too few."""
    usual = _usual(seen, kind)
    parts = [added([kind(one) for one in part]) for part in _parts(seen.warm, seen.age_s)]
    window = added(parts)
    if usual is None or sum(window) < FEWEST_SEARCHES // _PARTS:
        return None
    moved = []
    for q, most in zip(_QUANTILES, usual, strict=True):
        half = math.sqrt(ratio) * most
        throughout = all(
            sum(part) >= _FEWEST_IN_PART and _slower_than(part, half) > (1 - q) * sum(part) for part in parts
        )
        alpha = 1.0 if q == _QUANTILES[0] else seen.alpha * _ALPHA_TIMES / ALPHA
        moved.append(throughout and surely_above(_slower_than(window, ratio * most), sum(window), 1 - q, alpha))
    lasted = _width(seen.age_s)
    broken = all(moved[:-1]) or (moved[-1] and lasted >= _TAIL_S)
    median, p95 = (percentile(window, share) or 0.0 for share in _QUANTILES[1:])
    return (
        f"median {median:.1f} ms and p95 {p95:.1f} ms in the last {lasted:.0f} s, "
        f"{usual[1]:.1f} and {usual[2]:.1f} ms before; {ratio:g} times that is the limit",
        broken,
    )


def _usual(seen: Seen, kind: _Kind) -> list[float] | None:
    """The quantiles before the flip in milliseconds, as high as chance allows; None without enough searches.

    At first those of the minutes before. Later, when the time of day may have changed the load, those of the
    slowest of the hours before.
    """
    lately = added([kind(one) for one in seen.before if one.at >= -_LATELY_S])
    if seen.age_s < _LONGEST_S and sum(lately) >= FEWEST_SEARCHES:
        return [_upper_quantile(lately, q) for q in _QUANTILES]
    hours: dict[int, list[Sequence[int]]] = {}
    for one in seen.before:
        hours.setdefault(int(-one.at // _LONGEST_S), []).append(kind(one))
    whole = [added(hours[hour]) for hour in sorted(hours)]
    known = [times for times in whole if sum(times) >= FEWEST_SEARCHES] or [added(whole)]
    if sum(known[0]) < FEWEST_SEARCHES:
        return None
    return [max(_upper_quantile(times, q) for times in known) for q in _QUANTILES]


def _upper_quantile(times: Sequence[int], q: float) -> float:
    """The highest value of a quantile that a histogram leaves possible, in milliseconds."""
    total = sum(times)
    low, rank = int(q * total), total
    while low + 1 < rank:
        middle = (low + rank) // 2
        low, rank = (low, middle) if surely_above(middle, total, q, _ALPHA_BEFORE) else (middle, rank)
    for bucket, number in enumerate(times):
        if number >= rank:
            return in_bucket_ms(bucket, rank / number)
        rank -= number
    return math.inf


def _slower_than(times: Sequence[int], ms: float) -> int:
    """How many took longer, as far as a histogram says."""
    bucket, share = bucket_of(ms)
    return sum(times[bucket + 1 :]) + int(times[bucket] * (1 - share))


def _width(age_s: float) -> float:
    return min(max(_SHORTEST_S, _NEWEST * (age_s - _COLD_S)), _LONGEST_S)


def _parts(slots: Sequence[Slot], age_s: float) -> list[list[Slot]]:
    """The newest part of the time since the flip in four; empty while the slots do not cover it."""
    parts: list[list[Slot]] = [[] for _ in range(_PARTS)]
    if slots:
        width = _width(age_s)
        start = slots[-1].at + slot_s(slots[-1].at) - width
        for one in slots if slots[0].at <= start else ():
            if one.at >= start:
                parts[min(_PARTS - 1, int((one.at - start) / width * _PARTS))].append(one)
    return parts


# -- overlap -------------------------------------------------------------------------------------------------------


def _overlap(least: float, seen: Seen) -> _Found:
    mean, queries = seen.overlap, seen.compared
    if mean is None or queries < FEWEST_COMPARED:
        return f"{queries:,} queries answered by both versions since the cutover, {FEWEST_COMPARED} needed"
    surely = mean < least and 2 * queries * (least - mean) ** 2 >= -math.log(seen.alpha)
    return f"mean overlap is {mean:.2f} over {queries:,} queries; {least:.2f} is the limit", surely


# -- warm-up -------------------------------------------------------------------------------------------------------

WARM_UP_S = 2.0
"""A process's first seconds with a version: its caches, connections and encoder are cold."""


def merged(slots: Sequence[Slot]) -> list[Slot]:
    """The slots of all processes together, by time."""
    found: dict[float, list[Slot]] = {}
    for one in slots:
        found.setdefault(one.at, []).append(one)
    return [_together(found[at]) for at in sorted(found)]


def _together(slots: Sequence[Slot]) -> Slot:
    if len(slots) == 1:
        return replace(slots[0], process="")
    errors = [at for one in slots for at in (one.first_error, one.last_error) if at is not None]
    return Slot(
        slots[0].at,
        sum(one.searches for one in slots),
        sum(one.empty for one in slots),
        sum(one.errors for one in slots),
        added([one.latencies for one in slots]),
        added([one.cached for one in slots]),
        min(errors, default=None),
        max(errors, default=None),
    )
