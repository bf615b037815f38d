"""Faults in the middle of a flip: it has happened, or it has not; the log agrees; and the error says which is known."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import psycopg
import pytest

from revector.core import audit, cutover
from revector.core.cutover import Flip
from revector.core.database import Connection, Database
from revector.core.errors import RefusedError, UnreachableError
from revector.core.registry import versions
from tests.faults.numbers import LONG, NUMBERS
from tests.faults.servers import FaultyServer
from tests.faults.statements import Moment, StatementProxy
from tests.faults.watch import wait_until
from tests.versions import NUMBERS as TEXTS
from tests.versions import add_chunks, ready_version

NOTHING, UNKNOWN = "nothing was changed", "it is unknown whether it happened"


@pytest.fixture
def flips(target: Database) -> Iterator[StatementProxy]:
    """v1 active, v2 and v3 ready; a proxy between operators and the server."""
    with target.session("test") as connection:
        add_chunks(connection, TEXTS)
        for key in ("v1", "v2", "v3"):
            ready_version(target, connection, key)
        cutover.run(connection, "v1", confirm="v1")
    proxy = StatementProxy(target.dsn)
    yield proxy
    proxy.close()


def whole(database: Database) -> str:
    """The active version; fails unless it is one, and the log and the history end with it."""

    def looked() -> str | None:
        try:
            with database.session("test") as connection, connection.transaction():
                connection.execute("SELECT lock_flip()")  # the flipping process has ended then
                (active,) = [version for version in versions(connection) if version.active]
                newest = next(e for e in audit.entries(connection) if e.outcome == "done" and "to" in e.detail)
                told = cutover.history(connection, limit=1)[0]
                assert newest.version_key == newest.detail["to"] == told.to_version == active.version_key
                assert (
                    newest.detail["client_says"]["flip"]
                    == connection.execute(
                        "SELECT detail #>> '{client_says,flip}' FROM cutovers ORDER BY id DESC LIMIT 1"
                    ).fetchone()[0]
                )  # type: ignore[index]
                assert newest.detail["from"] == told.from_version
                assert [v.version_key for v in versions(connection) if v.state == "active"] == [active.version_key]
                return active.version_key
        except (psycopg.OperationalError, UnreachableError):
            return None

    return str(wait_until("the database answers", looked))


def flipped(database: Database, key: str, action: str = "run") -> Flip | str:
    """What an operator gets: the flip, or the first line of the error."""
    with database.connect("test") as connection:
        try:
            if action == "run":
                return cutover.run(connection, key, confirm=key)
            return cutover.rollback(connection, confirm=key)
        except (RefusedError, UnreachableError) as error:
            return error.problem


WAYS = {"run": ("v1", "v2", "rollback"), "rollback": ("v2", "v1", "run")}
"""From, to, and the way back."""


def statements_of(through: Database, proxy: StatementProxy, action: str) -> int:
    """How many statements a flip has; it is done and undone."""
    before, after, back = WAYS[action]
    proxy.arm(None)
    assert isinstance(flipped(through, after, action), Flip)
    number = len(proxy.statements)
    assert b"COMMIT" in proxy.statements[-1]
    assert isinstance(flipped(through, before, back), Flip)
    return number


def moments(statements: int, *, all_of_them: bool) -> list[Moment]:
    """Before and after every statement; in the short form one of the two for each but the last."""
    both = ("before", "after")
    return [
        (number, when)
        for number in range(1, statements + 1)
        for place, when in enumerate(both)
        if all_of_them or number == statements or place == number % 2
    ]


@pytest.mark.parametrize("action", ["run", "rollback"])
def test_a_connection_cut_at_every_statement(target: Database, flips: StatementProxy, action: str) -> None:
    through = Database(flips.dsn, target.schema)
    before, after, back = WAYS[action]
    if action == "rollback":
        assert isinstance(flipped(target, "v2"), Flip)
    last = statements_of(through, flips, action)
    for moment in moments(last, all_of_them=LONG or action == "rollback"):
        flips.arm(moment)
        found = flipped(through, after, action)
        assert flips.sprung.wait(NUMBERS.patience_s), moment
        if moment == (last, "after"):
            assert isinstance(found, Flip), (moment, found)
            assert whole(target) == after
            flipped(target, before, back)
        else:
            assert isinstance(found, str), moment
            assert NOTHING in found, (moment, found)
            assert whole(target) == before


def test_a_session_terminated_at_every_statement(target: Database, flips: StatementProxy) -> None:
    through = Database(flips.dsn, target.schema)
    flipped(target, "v2")
    last = statements_of(through, flips, "rollback")
    for number in range(1, last + 1):
        flips.arm((number, "before"), lambda: terminate(target))
        found = flipped(through, "v1", "rollback")
        assert flips.sprung.wait(NUMBERS.patience_s), number
        assert isinstance(found, str), number
        assert NOTHING in found, number
        assert whole(target) == "v2"


def terminate(database: Database) -> None:
    """End the operator's session, as an administrator would, and wait until it was deleted."""
    with database.connect("other") as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'revector test'"
        )


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_cannot_be_known_is_said_so(target: Database, flips: StatementProxy, when: str) -> None:
    """The network fails at the COMMIT, and does not come back."""
    with target.session("test") as connection:
        cutover.change_policy(connection, {"lock_timeout_s": 0.2})
    through = Database(flips.dsn, target.schema)
    last = statements_of(through, flips, "run")

    def refuse() -> None:
        flips.refusing = True

    flips.arm((last, when), refuse)
    found = flipped(through, "v2")
    assert isinstance(found, str)
    assert UNKNOWN in found
    assert whole(target) == ("v1" if when == "before" else "v2")


def test_a_server_killed_in_mid_flip(target: Database, faulty: FaultyServer, flips: StatementProxy) -> None:
    with target.session("test") as connection:
        cutover.change_policy(connection, {"lock_timeout_s": 0.2})
    through = Database(flips.dsn, target.schema)
    last = statements_of(through, flips, "run")
    every = [(number, when) for number in range(1, last + 1) for when in ("before", "after")]
    for moment in every if LONG else every[-2:]:
        flips.arm(moment, lambda: kill(faulty))
        found = flipped(through, "v2")
        assert flips.sprung.wait(NUMBERS.patience_s), moment
        assert isinstance(found, str)
        assert (UNKNOWN if moment[0] == last else NOTHING) in found, moment
        faulty.restart()
        active = whole(target)
        assert active == ("v2" if moment == (last, "after") else "v1")
        if active == "v2":
            flipped(target, "v1", "rollback")


def kill(faulty: FaultyServer) -> None:
    """kill -9 of every process of the server: nothing is written any more."""
    postmaster = psutil.Process(faulty.running.pid)
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=NUMBERS.patience_s)


def test_pairs_of_operators_at_the_same_instant(target: Database, flips: StatementProxy) -> None:
    """Operators with revector and with psql, each of a pair with another version, while another session keeps
    reading."""
    seen: list[tuple[int, str]] = []
    over = threading.Event()

    def read() -> None:
        with target.connect("reader") as connection:
            while not over.is_set():
                seen.append(actives(connection))

    def by_hand(key: str) -> Flip | str:
        with target.connect("psql") as connection:
            connection.execute(cutover.FLIP, {"key": key})
        return key

    ways: list[tuple[Callable[[str], object], Callable[[str], object]]] = [
        (by_operator(target), by_operator(target)),
        (by_operator(target), by_hand),
        (by_hand, by_hand),
    ]
    with ThreadPoolExecutor(3) as pool:
        reader = pool.submit(read)
        try:
            for number in range(NUMBERS.pairs):
                keys = [key for key in ("v1", "v2", "v3") if key != active_now(target)]
                gate = threading.Barrier(2)

                def flip(way: Callable[[str], object], key: str, gate: threading.Barrier = gate) -> object:
                    gate.wait()
                    return way(key)

                pair = ways[number % len(ways)]
                ends = [pool.submit(flip, way, key) for way, key in zip(pair, keys, strict=True)]
                results = [end.result() for end in ends]
                won = [key for key, result in zip(keys, results, strict=True) if result is not None]
                assert won, results
                assert agreed(target) in won
        finally:
            over.set()
        reader.result()
    assert {count for count, _ in seen} == {1}
    assert len(seen) > NUMBERS.pairs


def by_operator(database: Database) -> Callable[[str], object]:
    def flip(key: str) -> object:
        with database.connect("test") as connection:
            try:
                return cutover.run(connection, key, confirm=key)
            except RefusedError:
                return None

    return flip


def actives(connection: Connection) -> tuple[int, str]:
    row = connection.execute("SELECT count(*), max(version_key) FROM embedding_versions WHERE active").fetchone()
    assert row is not None
    return row[0], row[1]


def active_now(database: Database) -> str:
    with database.connect("test") as connection:
        return actives(connection)[1]


def agreed(database: Database) -> str:
    """The active version. The log and the history are one chain, in which each flip begins where the last one ended."""
    with database.connect("test") as connection:
        entries = [e for e in audit.entries(connection, limit=100_000) if e.outcome == "done" and "to" in e.detail]
        log = [(e.detail["from"], e.detail["to"]) for e in entries]
        assert log == [(one.from_version, one.to_version) for one in cutover.history(connection, limit=100_000)]
        assert all(later[0] == earlier[1] for later, earlier in itertools.pairwise(log))
        assert log[0][1] == actives(connection)[1]
        return str(log[0][1])
