"""A service for the benchmark of shadow traffic: it searches on request, and reports the time of each search.

    python -m tests.benchmarks.shadow_user DSN SCHEMA plain|mirrored

On its input, a line each: `follow ID` waits until its mirror follows that shadow, and answers `follows`; `search N`
searches N times, says `half` when half of them are over, and then one line of JSON, the seconds of each. By then its
mirror has done what it could of them, so that nothing is left that the next service would be slowed down by.
"""

from __future__ import annotations

import json
import sys
import time

from revector.core.database import Database
from revector.core.retrieval import Retriever
from revector.core.shadow import Mirror
from tests.faults.one_searcher import say

K = 10
_TOPICS = ("rotate", "key", "token", "server", "client", "index", "vector", "search", "version", "table", "query")
_PAUSE_S = 0.002
_WARM_UP = 60
"""Searches before each turn: another service has had the machine meanwhile."""
_DRAIN_S = 0.5


def main() -> None:
    """Serve until the input ends."""
    dsn, schema, kind = sys.argv[1:]
    database = Database(dsn, schema)
    mirror = Mirror(database) if kind == "mirrored" else None
    with Retriever(database, mirror=mirror) as retriever:
        done = 0
        for line in sys.stdin:
            word, number = line.split()
            if word == "follow":
                _follow(mirror, int(number))
                say("follows")
            else:
                say(json.dumps(_search(retriever, done, int(number))))
                done += int(number)
                if mirror is not None:
                    mirror.flush(_DRAIN_S)
                say("over")
    if mirror is not None:
        mirror.close()


def _follow(mirror: Mirror | None, shadow: int) -> None:
    assert mirror is not None
    while mirror.run is None or mirror.run.id != shadow:
        time.sleep(0.01)


def _search(retriever: Retriever, first: int, many: int) -> list[float]:
    for number in range(_WARM_UP):
        retriever.search(f"warm up {first + number}", K)
        time.sleep(_PAUSE_S)
    seconds = []
    for place in range(first, first + many):
        if place == first + many // 2:
            say("half")
        query = " ".join(_TOPICS[(place * step) % len(_TOPICS)] for step in (1, 3, 7))
        began = time.perf_counter()
        found = retriever.search(f"{query} {place}", K)
        seconds.append(time.perf_counter() - began)
        if len(found.hits) != K or found.version_key != "active":
            raise RuntimeError("a user did not get the active version's answer")
        time.sleep(_PAUSE_S)
    return seconds


if __name__ == "__main__":
    main()
