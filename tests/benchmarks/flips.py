"""What users notice of a flip: searches by services of three kinds, alone and while versions are flipped.

No search may be slower than 10 ms over the services' own p99 without flips. For comparison: vecshift, which renames
columns, states a longest pause of 0.29 s on cutover and of 0.99 s on rollback.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from core.database import Database
from tests.benchmarks.measure import own_database, show_table, tell
from tests.faults.searching import KINDS, Searched, fill, flip, searching

CHUNKS = 20_000
FLIPS_A_ROUND = 112
"""Nine rounds are a thousand flips."""
SLACK_MS = 10
_PAUSE_S = 0.02
_THINK_S = 0.02
"""After each search, where eight services share the machine: what waits for a core says nothing of flips."""


def run(rounds: int) -> None:
    """Measure, and print the longest search by kind of service against its own p99 without flips."""
    flips = rounds * FLIPS_A_ROUND
    with own_database("bench") as database:
        fill(database, CHUNKS)
        for kind in ("retriever", "http", "sql"):
            _compare(database, (kind,), flips, 0.0)
        _compare(database, KINDS, flips, _THINK_S)


def _compare(database: Database, kinds: Sequence[str], flips: int, think_s: float) -> None:
    took: list[float] = []
    with searching(database, kinds, pause_s=think_s) as services:
        time.sleep(flips * _PAUSE_S)
        alone = services.end()
    with searching(database, kinds, pause_s=think_s) as services, database.session("bench") as connection:
        for number in range(flips):
            start = time.perf_counter()
            flip(connection, number)
            took.append(time.perf_counter() - start)
            time.sleep(max(0.0, _PAUSE_S - took[-1]))
        beside = services.end()
    rows = []
    for kind in dict.fromkeys(kinds):
        before, during = _milliseconds(alone, kind), _milliseconds(beside, kind)
        limit = float(np.quantile(before, 0.99)) + SLACK_MS
        slower = float((during > limit).mean())
        rows.append(
            [
                kind, f"{len(during):,}", *_figures(before), *_figures(during),
                f"{limit:.1f}", f"{slower:.3%}",
            ]
        )  # fmt: skip
    columns = ("searches", "alone ms", "p99", "max", "flips ms", "p99", "max", f"p99 + {SLACK_MS}", "slower")
    title = f"{len(kinds)} services beside {flips:,} flips, {CHUNKS:,} chunks; medians without flips and with them"
    show_table(title, columns, rows)
    wrong = sum(len(one.wrong) + len(one.errors) for one in beside)
    tell(
        f"A flip took {np.median(took) * 1000:.1f} ms (most {max(took) * 1000:.1f}); wrong answers or errors: {wrong}"
    )


def _milliseconds(found: Sequence[Searched], kind: str) -> np.ndarray:
    return np.concatenate([np.array(one.seconds) for one in found if one.kind == kind]) * 1000


def _figures(milliseconds: np.ndarray) -> list[str]:
    return [f"{value:.1f}" for value in (*np.quantile(milliseconds, (0.5, 0.99)), milliseconds.max())]
