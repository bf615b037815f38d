"""The effect of a flip on users: searches by services of three kinds, alone and while versions are flipped.

No search may be slower than 10 ms over the services' own p99 without flips. The machine slows searches down by itself
now and then, so turns without flips and with them alternate, as long and as many: what is slower without flips as well
says nothing of flips. For comparison: vecshift, which renames columns, states a longest pause of 0.29 s on cutover and
of 0.99 s on rollback.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from revector.core.database import Database
from tests.benchmarks.measure import own_database, show_table, tell
from tests.faults.searching import KINDS, Searched, fill, flip, searching

CHUNKS = 20_000
FLIPS_A_ROUND = 112
"""Nine rounds are a thousand flips."""
TURNS = 3
SLACK_MS = 10
_THINK_S = 0.02
"""After each search, where eight services share the machine: what waits for a core says nothing of flips."""


def run(rounds: int) -> None:
    """Measure, and print the longest search by kind of service against its own p99 without flips."""
    flips = rounds * FLIPS_A_ROUND
    with own_database("bench") as database:
        fill(database, CHUNKS)
        for kind in ("retriever", "http", "sql"):
            _compare(database, (kind,), flips, every_s=0.02, think_s=0)
        _compare(database, KINDS, flips, every_s=0.05, think_s=_THINK_S)


def _compare(database: Database, kinds: Sequence[str], flips: int, *, every_s: float, think_s: float) -> None:
    alone: list[Searched] = []
    beside: list[Searched] = []
    took: list[float] = []
    for turn in range(TURNS):
        numbers = range(turn * flips // TURNS, (turn + 1) * flips // TURNS)
        with searching(database, kinds, pause_s=think_s) as services:
            time.sleep(len(numbers) * every_s)
            alone += services.end()
        with searching(database, kinds, pause_s=think_s) as services, database.session("bench") as connection:
            for number in numbers:
                start = time.perf_counter()
                flip(connection, number)
                took.append(time.perf_counter() - start)
                time.sleep(max(0.0, every_s - took[-1]))
            beside += services.end()
    rows = []
    for kind in dict.fromkeys(kinds):
        found = [_milliseconds(services, kind) for services in (alone, beside)]
        limit = float(np.quantile(found[0], 0.99)) + SLACK_MS
        for name, milliseconds in zip((kind, "… beside flips"), found, strict=True):
            figures = (*np.quantile(milliseconds, (0.5, 0.99)), milliseconds.max(), limit)
            slower = int((milliseconds > limit).sum())
            rows.append([name, f"{len(milliseconds):,}", *(f"{figure:.1f}" for figure in figures), f"{slower}"])
    show_table(
        f"{len(kinds)} services beside {flips:,} flips, one every {every_s * 1000:.0f} ms, {CHUNKS:,} chunks",
        ("searches", "median ms", "p99", "max", f"p99 + {SLACK_MS}", "slower"),
        rows,
    )
    wrong = sum(len(one.wrong) + len(one.errors) for one in beside)
    tell(
        f"A flip took {np.median(took) * 1000:.1f} ms (most {max(took) * 1000:.1f}); wrong answers or errors: {wrong}"
    )


def _milliseconds(found: Sequence[Searched], kind: str) -> NDArray[np.float64]:
    return np.concatenate([np.array(one.seconds) for one in found if one.kind == kind]) * 1000
