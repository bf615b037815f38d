"""The watch after a flip, in numbers: how often it rolls back a version that is no worse, and how soon one that is.

Simulated runs are judged by the product's own code, on a machine whose pace wanders, drifts and is disturbed by bursts
(tests.core.cutover.simulated). Real ones are flips of a service that searches on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from revector.core import cutover
from revector.core.database import Connection
from tests.benchmarks.measure import own_database, show_table, tell
from tests.core.cutover.simulated import Version, first_breach
from tests.faults.watch import wait_until
from tests.faults.watched import LATENCY_S, searched_shop, since_active, watched

SIMULATED = 200
REAL = 20
_SAME_S, _WORSE_S = 180, 40
PARTS = ("simulated", "real")


def run(rounds: int, parts: Sequence[str] = PARTS) -> None:
    """`rounds` is not used: what is said of two percent takes two hundred runs."""
    if "simulated" in parts:
        _simulated()
    if "real" in parts:
        _real()


def _simulated() -> None:
    rows = []
    for name, version, seconds, limit_s in (
        ("the same", Version(), _SAME_S, None),
        ("answers 500", Version(failing=1.0), _WORSE_S, 5),
        ("a tenth fails", Version(failing=0.1), _WORSE_S, 5),
        ("+100 % latency", Version(slower=2.0), _WORSE_S, 10),
        ("+200 % latency", Version(slower=3.0), _WORSE_S, 10),
        ("3 in 10 empty", Version(empty=0.3), _WORSE_S, 10),
    ):
        found = [first_breach(seed, version, seconds) for seed in range(SIMULATED)]
        rows.append(_row(name, seconds, limit_s, [None if one is None else one[0] for one in found]))
    _show(f"{SIMULATED} simulated flips of each", rows)


def _real() -> None:
    rows = []
    for name, gone, slower, seconds, limit_s in (
        ("the same", False, 1.0, 30, None),
        ("answers 500", True, 1.0, 20, 5),
        ("+100 % latency", False, 2.0, 30, 10),
    ):
        seen: list[float | None] = []
        with (
            own_database("bench") as database,
            searched_shop(database) as shop,
            database.session("watch") as connection,
        ):
            for _ in range(REAL):
                usual_s = _settled(connection)
                server = shop.encoders["v2"]
                server.gone, server.latency_s = gone, LATENCY_S + (slower - 1) * usual_s
                connection.execute(cutover.FLIP, {"key": "v2"})
                began = time.monotonic()
                flip, _ = watched(connection, seconds)
                seen.append(None if flip is None else time.monotonic() - began)
                if flip is None:
                    cutover.rollback(connection, confirm="v1")
        rows.append(_row(name, seconds, limit_s, seen))
        tell(str(rows[-1]))
    _show(f"{REAL} real flips of each", rows)


def _settled(connection: Connection) -> float:
    """Wait until v1 has searched for a while; returns the median seconds of a search."""
    figures = wait_until(
        "v1 has searched", lambda: (found := since_active(connection, "v1")).searches > 600 and found
    )
    return float(figures.median_ms / 1_000)


def _row(name: str, seconds: int, limit_s: int | None, seen: Sequence[float | None]) -> list[str]:
    found = sorted(one for one in seen if one is not None)
    within = "" if limit_s is None else f"{sum(one <= limit_s for one in found)} within {limit_s} s"
    times = f"{found[len(found) // 2]:.1f}, {found[-1]:.1f}" if found else ""
    return [name, f"{seconds}", f"{len(found)} of {len(seen)}", within, times]


def _show(title: str, rows: Sequence[list[str]]) -> None:
    show_table(title, ("watched s", "rolled back", "", "after s: median, last"), rows)
