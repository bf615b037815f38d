"""The reader thread: never queues, abandons reads that hang, and distinguishes lost from slow."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from revector.core.database import Connection, Database
from revector.core.overview import Overview, read_overview
from revector.core.settings import Settings
from revector.screens.frame import snapshots as module
from revector.screens.frame.snapshots import SnapshotReader


def wait_for(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


@contextmanager
def reading(database: Database, **settings: object) -> Iterator[SnapshotReader]:
    found = SnapshotReader(database, Settings(**settings))  # type: ignore[arg-type]
    try:
        yield found
    finally:
        found.stop()


def test_it_reads_at_once_and_when_asked(library: Database) -> None:
    with reading(library) as found:
        news = threading.Event()
        found.start(news.set)
        assert news.wait(20)
        first = found.latest.overview
        assert first is not None
        assert [one.version.version_key for one in first.versions if one.version.active] == ["demo-64"]
        news.clear()
        found.request()
        assert news.wait(20)
        assert found.latest.overview is not first
        assert not found.latest.lost


def test_what_is_asked_for_while_a_read_runs_is_one_more_read(
    library: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, reads, news = threading.Event(), threading.Event(), [], []

    def slow(connection: Connection, schema: str) -> Overview:
        reads.append(threading.current_thread())
        begun.set()
        assert go_on.wait(20)
        return read_overview(connection, schema)

    monkeypatch.setattr(module, "read_overview", slow)
    with reading(library) as found:
        found.start(lambda: news.append(found.latest))
        assert begun.wait(20)
        for _ in range(50):
            found.request()
        go_on.set()
        wait_for(lambda: len(news) == 2, "one more")
        begun.clear()
        assert not begun.wait(0.3), "nothing was queued"
        assert len(reads) == 2
        assert len(set(reads)) == 1, "one thread reads"


def test_the_console_names_itself_and_has_a_timeout(library: Database) -> None:
    with reading(library, read_timeout_s=1.5) as found:
        found.start()
        wait_for(lambda: found.latest.overview, "a snapshot")
        assert found._round is not None
        connection = found._round.connection
        assert connection is not None
        row = connection.execute(
            "SELECT current_setting('application_name'), current_setting('statement_timeout')"
        ).fetchone()
        assert row == ("revector console", "1500ms")


def test_a_killed_connection_is_opened_again(library: Database, logged: list[str]) -> None:
    with reading(library) as found:
        found.start()
        wait_for(lambda: found.latest.overview, "a snapshot")
        first = found.latest.overview
        kill_console(library)
        found.request()
        wait_for(lambda: found.latest.error or found.latest.overview is not first, "noticed")
        wait_for(lambda: found.latest.error is None and found.latest.overview is not first, "reads again")
    lost, again = (
        f"WARNING cannot refresh from {library.name}: DatabaseUnreachableError",
        f"INFO reading {library.name} again",
    )
    assert logged == [lost, again]


def kill_console(database: Database) -> None:
    with database.session("test") as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'revector console'"
        )


def test_a_busy_server_is_slow_and_not_lost(library: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(connection: Connection, _schema: str) -> Overview:
        connection.execute("SELECT pg_sleep(30)")
        raise AssertionError("not cancelled")

    with reading(library, read_timeout_s=0.2) as found:
        found.start()
        wait_for(lambda: found.latest.overview, "a snapshot")
        monkeypatch.setattr(module, "read_overview", slow)
        found.request()
        wait_for(lambda: found.latest.error, "the timeout")
        assert "took longer than 0.2 s" in found.latest.error.problem  # type: ignore[union-attr]
        assert not found.latest.lost
        monkeypatch.undo()
        wait_for(lambda: found.latest.error is None, "it recovers by itself")


def test_a_server_that_hangs_is_given_up_and_reached_again(library: Database) -> None:
    """The process at the other end is stopped, as if the network swallowed everything: no timeout of its works."""
    with reading(library, read_timeout_s=0.1) as found:
        found._patience_s = 0.5
        found.start()
        wait_for(lambda: found.latest.overview, "a snapshot")
        assert found._round is not None
        assert found._round.connection is not None
        pid = found._round.connection.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_for(lambda: found.request() or found.latest.error, "given up")
            assert found.latest.lost
            assert "has not answered" in found.latest.error.problem  # type: ignore[union-attr]
            wait_for(lambda: found.latest.error is None, "another connection reads")
            assert found._round.connection.info.backend_pid != pid
        finally:
            os.kill(pid, signal.SIGCONT)


def test_pauses_grow_to_a_limit_and_can_be_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "_LONGEST_PAUSE_S", 0.04)
    pauses: list[float] = []
    nowhere = Database("host=/nowhere dbname=x", "docs")
    with reading(nowhere) as found:
        wait = found._hurry.wait

        def noted(pause: float) -> bool:
            pauses.append(pause)
            return wait(pause)

        monkeypatch.setattr(found._hurry, "wait", noted)
        found.start()
        wait_for(lambda: len(pauses) >= 5, "tries")
        assert pauses[:5] == [0.01, 0.02, 0.04, 0.04, 0.04]
        assert found.latest.lost
        monkeypatch.setattr(module, "_LONGEST_PAUSE_S", 600.0)
        monkeypatch.setattr(module, "_FIRST_PAUSE_S", 600.0)
        wait_for(lambda: pauses[-1] > 500, "a long pause")
        tries = len(pauses)
        found.retry()
        wait_for(lambda: len(pauses) > tries, "the pause is cut short")


def test_a_bug_in_reading_does_not_end_the_thread(library: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(module, "read_overview", lambda *_: 1 / 0)
    with reading(library) as found:
        found.start()
        wait_for(lambda: found.latest.error, "an error")
        assert "ZeroDivisionError" in found.latest.error.problem  # type: ignore[union-attr]
        monkeypatch.undo()
        wait_for(lambda: found.latest.error is None, "reads again")


def test_stopping_ends_the_thread(library: Database) -> None:
    before = set(threading.enumerate())
    with reading(library) as found:
        found.start()
        wait_for(lambda: found.latest.overview, "a snapshot")
        ours = [thread for thread in threading.enumerate() if thread not in before]
    wait_for(lambda: not any(thread.is_alive() for thread in ours), "the thread ends")
