"""A service that searches beside a flip, to a version whose encoder may fail or be slow, and the watch that looks."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from revector.core import cutover
from revector.core.cutover import Flip, Watch
from revector.core.database import Connection, Database
from revector.core.errors import RevectorError
from revector.core.registry import get_version
from revector.core.retrieval import Retriever
from revector.core.retrieval.counts import SearchFigures, read_counts
from tests.protocol_server import Failure, ProtocolServer, Spoilt
from tests.versions import NUMBERS, add_chunks, ready_version

LATENCY_S = 0.012
"""Of both encoders; with the rest, a search takes about twice as long as the rest alone."""
LIMITS = {"max_latency_ratio": 1.5, "max_empty_rate_rise": 0.05, "auto_rollback": True}
_THREADS = 4
_PAUSE_S = 0.03
_LOOK_S = 1.0


class _Server(ProtocolServer):
    """An encoder that may be gone: it answers every request with 500."""

    gone = False

    def next_answer(self) -> Failure | Spoilt | None:
        return Failure(500, "The model is gone.") if self.gone else super().next_answer()


@dataclass
class Shop:
    """A collection with the versions v1 and v2, whose encoders may be changed, and its searches."""

    database: Database
    encoders: dict[str, _Server]
    answered: int = 0
    failed: int = 0


@contextlib.contextmanager
def searched_shop(database: Database) -> Iterator[Shop]:
    """Searches by threads until the block ends, first by v1; no query comes twice."""
    with _Server(latency_s=LATENCY_S) as one, _Server(latency_s=LATENCY_S) as other:
        shop = Shop(database, {"v1": one, "v2": other})
        with database.session("test") as connection:
            add_chunks(connection, [f"{a} and {b}" for a in NUMBERS for b in NUMBERS])
            for key, server in shop.encoders.items():
                spec = f"openai:text-embedding-3-small?dimensions=64&parallel=16&base_url={server.base_url}"
                ready_version(database, connection, key, spec)
            cutover.change_policy(connection, LIMITS)
            connection.execute(cutover.FLIP, {"key": "v1"})
        over, numbers = threading.Event(), itertools.count()
        with Retriever(database) as retriever:

            def search() -> None:
                while not over.wait(_PAUSE_S):
                    number = next(numbers)
                    try:
                        retriever.search(f"{NUMBERS[number % 16]} and {number}")
                        shop.answered += 1
                    except RevectorError:
                        shop.failed += 1

            threads = [threading.Thread(target=search) for _ in range(_THREADS)]
            for thread in threads:
                thread.start()
            try:
                yield shop
            finally:
                over.set()
                for thread in threads:
                    thread.join()


def since_active(connection: Connection, key: str) -> SearchFigures:
    """What has been counted of a version since it became active."""
    version = get_version(connection, key)
    assert version.activated_at is not None
    return read_counts(connection, version.id, version.activated_at)


def watched(connection: Connection, seconds: float) -> tuple[Flip | None, Watch]:
    """Look every second, as `revector cutover watch` does, until it rolls back or the time is over."""
    last: Watch | None = None
    end = time.monotonic() + seconds
    while True:
        found = cutover.observe(connection, last)
        assert found is not None, "the watch has ended"
        if (flip := cutover.roll_back_broken(connection, found)) is not None:
            return flip, found
        if time.monotonic() > end:
            return None, found
        last = found
        time.sleep(max(0.0, _LOOK_S - time.monotonic() % _LOOK_S))
