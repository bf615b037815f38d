"""What users notice of shadow traffic: their p99 with a candidate that hangs, errors or is dropped; within 5 %.

Users search by a Retriever, one query every other millisecond, each another one. Every query is drawn (sample 1). In
each round every case has its turn: without shadowing, twice, to see what the machine adds by itself; a candidate that
answers, for comparison (it takes part of the machine's cores and of Python's one lock, which is what the sample is
for); one whose encoder never answers; one whose encoder answers with errors; and one that is retired and dropped
half-way. A version is made before, and dropped half-way through, every turn: that alone costs something. Figures are
over all rounds.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np

from core import cutover, registry, shadow
from core.database import Connection, Database
from core.retrieval import Retriever
from core.shadow import Mirror
from tests.benchmarks.corpus import LONG_TEXT, fill
from tests.benchmarks.measure import own_database, show_table, tell
from tests.protocol_server import Gate, ProtocolServer
from tests.versions import ready_version

CHUNKS, K = 5_000, 10
QUERIES_A_TURN = 2_000
"""Some seconds: what a candidate costs until its breaker opens is part of them, and not all."""
LIMIT = 1.05
_PAUSE_S = 0.002
_LOCAL = "static:wordllama-64"
_TOPICS = ("rotate", "key", "token", "server", "client", "index", "vector", "search", "version", "table", "query")
_COUNTED = ("drawn", "done", "failed", "dropped")
DROPPED = "is dropped half-way"
CANDIDATES = {"answers": "answers", "hangs": "hangs", "errors": "errors", DROPPED: "dropped"}
"""Versions by what they do."""
CASES = ("no shadowing", "no shadowing, again", *CANDIDATES)
TROUBLE = ("hangs", "errors", DROPPED)


def run(rounds: int) -> None:
    """Measure, and print median and p99 of each case against no shadowing."""
    with (
        ProtocolServer() as hanging,
        ProtocolServer() as failing,
        own_database("bench") as database,
        database.session("bench") as connection,
    ):
        fill(connection, CHUNKS, words=LONG_TEXT)
        ready_version(database, connection, "active", _LOCAL)
        cutover.run(connection, "active", confirm="active")
        ready_version(database, connection, "answers", _LOCAL)
        for key, server in (("hangs", hanging), ("errors", failing)):
            ready_version(
                database, connection, key, f"openai:house-model?max_retries=0&base_url={server.base_url}"
            )
        gate = Gate(hanging, lambda _text: True)
        failing.fail(400, 1_000_000, message="no such model any more")
        _measure(database, connection, rounds)
        gate.open()


def _measure(database: Database, connection: Connection, rounds: int) -> None:
    seconds: dict[str, list[float]] = {case: [] for case in CASES}
    made: dict[str, Counter[str]] = {case: Counter() for case in CASES}
    numbers = itertools.count()
    with Retriever(database) as plain, Mirror(database) as mirror, Retriever(database, mirror=mirror) as mirrored:
        for number in range(rounds + 1):  # the first one warms up
            for case in CASES if number % 2 else reversed(CASES):
                ready_version(database, connection, "dropped", _LOCAL)
                if case in CANDIDATES:
                    _follow(connection, mirror, CANDIDATES[case])
                retriever = mirrored if case in CANDIDATES else plain
                took = _turn(retriever, numbers)
                registry.retire_version(connection, "dropped")
                registry.drop_version(connection, "dropped")
                took += _turn(retriever, numbers)
                made[case] += _end(connection)
                seconds[case] += took if number else []
    _show(seconds, made)


def _show(seconds: dict[str, list[float]], made: dict[str, Counter[str]]) -> None:
    base = float(np.quantile(seconds[CASES[0]], 0.99))
    ratios = {case: float(np.quantile(seconds[case], 0.99)) / base for case in CASES}
    rows = [
        (
            case, f"{len(took):,}", f"{statistics.median(took) * 1000:.2f}", f"{ratios[case] * base * 1000:.2f}",
            f"{ratios[case]:.3f}", "/".join(f"{made[case][name]:,}" for name in _COUNTED),
        )
        for case, took in seconds.items()
    ]  # fmt: skip
    show_table(
        f"users' searches of {CHUNKS:,} chunks, k {K}",
        ("queries", "median ms", "p99 ms", "× none", "/".join(_COUNTED)),
        rows,
    )
    worst = max(ratios[case] for case in TROUBLE)
    tell(
        f"{'within' if worst <= LIMIT else 'ABOVE'} {LIMIT - 1:.0%} at p99: the worst case is {worst - 1:+.1%}; "
        f"without shadowing, measured twice: {ratios[CASES[1]] - 1:+.1%}"
    )


def _follow(connection: Connection, mirror: Mirror, key: str) -> None:
    """A shadow of all queries to that version, which the mirror follows."""
    started = shadow.start(connection, key, sample=1)
    while not mirror.wait(1) or mirror.run is None or mirror.run.id != started.id:
        time.sleep(0.01)


def _end(connection: Connection) -> Counter[str]:
    """End the shadow, if one runs; what its process made of the queries."""
    run_ = shadow.running(connection)
    if run_ is None:
        return Counter()
    time.sleep(1.2)  # the mirror writes its counts once a second
    found = shadow.report(connection, shadow_id=run_.id, limit=1)
    shadow.stop(connection)
    return Counter({name: getattr(found, name) for name in _COUNTED})


def _turn(retriever: Retriever, numbers: Iterator[int]) -> list[float]:
    """What each search of half a turn took, in seconds."""
    for _ in range(5):
        retriever.search(f"warm up {next(numbers)}", K)
    took = []
    for _ in range(QUERIES_A_TURN // 2):
        place = next(numbers)
        query = " ".join(_TOPICS[(place * step) % len(_TOPICS)] for step in (1, 3, 7))
        began = time.perf_counter()
        found = retriever.search(f"{query} {place}", K)
        took.append(time.perf_counter() - began)
        if len(found.hits) != K or found.version_key != "active":
            raise RuntimeError("a user did not get the active version's answer")
        time.sleep(_PAUSE_S)
    return took
