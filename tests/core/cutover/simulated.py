"""Searches of a busy machine before and after a flip, as slots of counts: what the watch has to judge.

Latencies are lognormal. What makes single searches a poor guide is that they are slow together: the machine's pace
wanders from second to second, drifts over minutes, and bursts of other work slow down most searches for seconds. A
process is slow in its first seconds with a version. All of this is the same before and after the flip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from revector.core.cutover.limits import WARM_UP_S, Breach, Seen, judge, merged
from revector.core.cutover.policy import Policy
from revector.core.retrieval.counts import BOUNDS_MS, BUCKETS, Slot, slot_s

BEFORE_S = 480
PROCESSES = 3
POLICY = Policy(max_error_rate=0.05, max_empty_rate_rise=0.05, max_latency_ratio=1.5)


@dataclass(frozen=True)
class Version:
    """What the version after the flip is like: times that of the one before, from a moment on."""

    slower: float = 1.0
    failing: float = 0.0
    empty: float = 0.02
    from_s: float = 0.0


@dataclass(frozen=True)
class Machine:
    """The pace of each second, from BEFORE_S before the flip on, and of searches that a burst does not meet."""

    pace: NDArray[np.float64]
    burst: NDArray[np.float64]
    met: float
    rate: float
    spread: float

    @classmethod
    def drawn(cls, chance: np.random.Generator, seconds: int) -> Machine:
        """20 to 200 searches a second, a burst every 10 to 60 seconds, and a drift of up to 10 %.

        The pace of a second varies by a sixth: what searches on two cores beside a load of four showed, whose
        bursts lasted for two seconds at most.
        """
        total = BEFORE_S + seconds
        wander = np.zeros(total)
        for second in range(1, total):
            wander[second] = 0.5 * wander[second - 1] + chance.normal(0, 0.15)
        period = chance.uniform(300, 3_600)
        drift = chance.uniform(0, 0.1) * np.sin(2 * np.pi * (np.arange(total) / period + chance.uniform()))
        burst = np.ones(total)
        second = chance.exponential(20)
        every = chance.uniform(10, 60)
        while second < total:
            lasts = 0.5 + chance.exponential()
            burst[int(second) : int(second + lasts)] = chance.uniform(1.5, 4)
            second += lasts + chance.exponential(every)
        return cls(
            np.exp(wander + drift), burst, chance.uniform(0.5, 0.95), 10 ** chance.uniform(1.3, 2.3),
            chance.uniform(0.2, 0.6),
        )  # fmt: skip


class Run:
    """One flip: its slots are made second by second."""

    def __init__(self, seed: int, version: Version, seconds: int) -> None:
        self._chance = np.random.default_rng(seed)
        self._machine = Machine.drawn(self._chance, seconds)
        self._version = version
        self._since: dict[float, Slot] = {}
        self._warm: dict[float, Slot] = {}
        self._joined = {f"p{number}": self._chance.exponential(0.5) for number in range(PROCESSES)}
        before = [
            self._searched(second, process, Version())
            for second in range(-BEFORE_S, 0)
            for process in self._joined
        ]
        self.before = merged([replace(one, at=one.at // 60 * 60) for one in before])

    def looks(self, seconds: int) -> Iterator[Seen]:
        """What each look sees: one a second at first, one in ten seconds later; counts are a second old."""
        began: dict[str, int] = {}
        for second in range(seconds):
            for process, joined in self._joined.items():
                if second >= joined:
                    one = self._searched(second, process, self._version)
                    _add(self._since, one)
                    if second - began.setdefault(process, second) >= WARM_UP_S:
                        _add(self._warm, one)
            if self._since and (second < 180 or second % 10 == 0):
                yield Seen(second + 2.0, self.before, list(self._since.values()), list(self._warm.values()))

    def _searched(self, second: int, process: str, version: Version) -> Slot:
        machine, chance, at = self._machine, self._chance, second + BEFORE_S
        number = int(chance.poisson(machine.rate / PROCESSES))
        changed = second >= version.from_s
        failed = int(chance.binomial(number, version.failing if changed else 0.001))
        times = chance.lognormal(np.log(8 * machine.pace[at]), machine.spread, number - failed)
        times[chance.random(times.size) < machine.met] *= machine.burst[at]
        if second >= 0:
            times *= 1 + 2 * np.exp(-(second - self._joined[process]))  # cold
            times *= version.slower if changed else 1.0
        counts = np.bincount(np.searchsorted(BOUNDS_MS, times), minlength=BUCKETS)
        errors = (float(second), second + 0.9) if failed else (None, None)
        empty = int(chance.binomial(times.size, version.empty if changed else 0.02))
        return Slot(float(second), number, empty, failed, counts.tolist(), (0,) * BUCKETS, *errors, process)


def _add(slots: dict[float, Slot], one: Slot) -> None:
    step = slot_s(one.at)
    at = one.at // step * step
    slots[at] = merged([replace(one, at=at), *([slots[at]] if at in slots else [])])[0]


def first_breach(seed: int, version: Version, seconds: int) -> tuple[float, Breach] | None:
    """When the watch would roll back in a run, in seconds after the flip, and why; None when it would not."""
    for seen in Run(seed, version, seconds).looks(seconds):
        breaches, _ = judge(POLICY, seen)
        if breaches:
            return seen.age_s, breaches[0]
    return None
