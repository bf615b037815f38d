"""Services of every kind search while versions are flipped back and forth, and while the database goes away."""

from __future__ import annotations

import threading
import time
from collections import Counter

from revector.core.database import Database, fetch_one
from tests.faults.numbers import NUMBERS
from tests.faults.searching import KEYS, fill, flip, searching
from tests.faults.servers import FaultyServer


class Reader:
    """Reads which versions are active, again and again, until it is closed."""

    def __init__(self, database: Database) -> None:
        self.seen: Counter[tuple[str, ...]] = Counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, args=[database])
        self._thread.start()

    def _read(self, database: Database) -> None:
        with database.connect("test") as connection:
            while not self._over.is_set():
                rows = connection.execute("SELECT version_key FROM embedding_versions WHERE active").fetchall()
                self.seen[tuple(key for (key,) in rows)] += 1

    def close(self) -> None:
        self._over.set()
        self._thread.join()


def test_every_answer_is_of_one_version_while_versions_are_flipped(target: Database) -> None:
    fill(target, 400)
    logged = "SELECT count(*) FROM audit_log WHERE action IN ('cutover', 'rollback') AND outcome = 'done'"
    with searching(target) as services, target.session("test") as connection:
        (before,) = fetch_one(connection, logged)
        reader = Reader(target)
        try:
            for number in range(NUMBERS.flips):
                flip(connection, number)
        finally:
            reader.close()
        found = services.end()
        (flips,) = fetch_one(connection, logged)
    for service in found:
        assert not service.errors, (service.kind, service.errors)
        assert not service.wrong, (service.kind, service.wrong)
        assert set(service.by_version) == set(KEYS), (service.kind, service.by_version)
    assert set(reader.seen) == {(key,) for key in KEYS}  # exactly one at every read, and both were seen
    assert flips - before == NUMBERS.flips


def test_services_fail_clearly_while_the_database_is_away_and_recover_by_themselves(
    faulty: FaultyServer, target: Database
) -> None:
    fill(target, 400)
    with searching(target, ("retriever", "http", "retriever", "http")) as services:
        faulty.stop_immediately()
        services.all_say("failing")
        time.sleep(NUMBERS.away_s)
        faulty.restart()
        services.all_say("searching")
        found = services.end()
    for service in found:
        assert not service.wrong, (service.kind, service.wrong)
        assert set(service.by_version) == {"old"}
        clear = (
            ("DatabaseUnreachableError: ", "BusyError: ")
            if service.kind == "retriever"
            else ("ValueError: 503: ",)
        )
        assert all(error.startswith(clear) for error in service.errors), service.errors
