"""When a fault comes: at random, and while there is work that it can harm."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.watch import Watch
    from tests.faults.workers import Process


def spread(chance: random.Random, times: int, chunks: int, *, until: float = 0.9) -> list[int]:
    """Moments in a run, as chunks done by then: one in each of `times` equal parts of its first `until`."""
    part = until * chunks / times
    return [int(part * (n + chance.random())) for n in range(times)]


def a_moment(chance: random.Random) -> None:
    """Let a random instant pass, so that what follows meets any step of a batch and not always the same one."""
    time.sleep(chance.uniform(0, 0.02))


def a_little_later(chance: random.Random, watch: Watch, chunks: int, *processes: Process) -> None:
    """Wait until up to so many chunks more are done, and for a random instant on top."""
    watch.past(watch.done() + chance.randrange(1, chunks + 1), *processes)
    a_moment(chance)
