"""The limits that hold a backfill, each measured on a real server: a standby included."""

from __future__ import annotations

import datetime
import itertools
import re
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import sql

from revector.core import embedded
from revector.core.backfill.job import throttles
from revector.core.backfill.job.job import change_settings
from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.job.status import status
from revector.core.backfill.job.working_hours import closed_until
from revector.core.database import Connection, Database, fetch_one
from revector.core.errors import RefusedError, UsageError
from revector.core.registry import Version
from tests.core.backfill.steps import eventually, job_status
from tests.encoders import Steps
from tests.standby import PAUSE, Standby, streaming_standby
from tests.versions import NUMBERS, add, add_chunks, worker_on


def look(connection: Connection, kept: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return throttles.look(connection, JobSettings(**settings), 1.25, kept or {})


def reason(found: dict[str, Any]) -> str | None:
    return found[found["held_by"]]["reason"] if found["held_by"] else None


def test_what_is_not_set_is_not_measured(connection: Connection) -> None:
    assert look(connection) == {"held_by": None}


def test_money_disk_and_size(connection: Connection) -> None:
    assert reason(look(connection, max_spend_usd=1.25)) == "spend cap of $1.25 reached ($1.2500 spent)"
    assert reason(look(connection, max_spend_usd=1.26)) is None
    assert "GB free on the server's disk, limit 1e+09 GB" in str(reason(look(connection, min_free_gb=1e9)))
    free = look(connection, min_free_gb=1e-6)
    assert reason(free) is None
    (folder,) = fetch_one(connection, "SHOW data_directory")
    assert free["min_free_gb"]["value"] == pytest.approx(shutil.disk_usage(folder).free / 1e9, rel=0.2)
    small = look(connection, max_database_gb=1e-6)
    assert re.search(r"the database has 0\.\d GB, limit 1e-06 GB", str(reason(small)))
    assert reason(look(connection, small, max_database_gb=1000)) is None


def test_the_size_of_a_database_is_not_asked_for_each_time(connection: Connection) -> None:
    kept = {"max_database_gb": {"keep": [77.0, datetime.datetime.now().timestamp()]}}
    assert look(connection, kept, max_database_gb=70)["max_database_gb"]["value"] == 77
    kept["max_database_gb"]["keep"][1] -= 60
    assert look(connection, kept, max_database_gb=70)["max_database_gb"]["value"] < 1


def test_other_sessions(database: Database, connection: Connection) -> None:
    with database.connect("app") as other, other.transaction():
        other.execute("SELECT 1")
        held = look(connection, max_transaction_s=1e-9)
        assert str(reason(held)).startswith(
            f"a transaction of process {other.info.backend_pid} (revector app) is 0 s"
        )
        assert reason(look(connection, max_transaction_s=3600)) is None
    with database.connect("backfill") as own, own.transaction():
        own.execute("SELECT 1")
        pids = [
            row[0]
            for row in connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE xact_start IS NOT NULL AND application_name LIKE '%backfill'"
            ).fetchall()
        ]
        assert own.info.backend_pid in pids
        assert reason(look(connection, max_transaction_s=1e-9)) is None  # ours does not count


def test_active_sessions(database: Database, connection: Connection) -> None:
    with database.connect("app") as locker, locker.transaction():
        locker.execute("LOCK TABLE dead_letters")
        waiting = [database.connect("app") for _ in range(2)]
        threads = [
            threading.Thread(target=one.execute, args=["SELECT count(*) FROM dead_letters"]) for one in waiting
        ]
        for thread in threads:
            thread.start()
        eventually(lambda: reason(look(connection, max_active=1)) == "2 active sessions, limit 1")
        assert reason(look(connection, max_active=2)) is None
    for thread, one in zip(threads, waiting, strict=True):
        thread.join()
        one.close()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT 0", None),
        ("SELECT 7", "throttle_query returned 7"),
        ("SELECT 0.5", "throttle_query returned 0.5"),
        ("SELECT true", "throttle_query returned true"),
        ("SELECT false", None),
        ("SELECT NULL", None),
        ("SELECT 'replica b is ill' WHERE true", "replica b is ill"),
        ("SELECT 1 WHERE false", None),
        ("SELECT count(*) FROM document_chunks WHERE content LIKE '%x%'", None),
        ("SELECT 1/0", "throttle_query cannot be measured: division by zero"),
        ("SELECT nothing", 'throttle_query cannot be measured: column "nothing" does not exist'),
        ("DELETE FROM document_chunks RETURNING 1", "cannot execute DELETE in a read-only transaction"),
        ("COMMIT; DELETE FROM document_chunks", "cannot insert multiple commands into a prepared statement"),
        ("SELECT pg_sleep(100)", "canceling statement due to statement timeout"),
    ],
)
def test_a_query_of_ones_own(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, query: str, expected: str | None
) -> None:
    monkeypatch.setattr(throttles, "_TIMEOUT_MS", 300)
    add_chunks(connection, ["one"])
    found = reason(look(connection, throttle_query=query))
    assert found is None if expected is None else expected in str(found)
    assert connection.execute("SELECT count(*) FROM document_chunks").fetchone() == (1,)


def test_the_first_reason_in_the_table_is_the_one_that_is_said(connection: Connection) -> None:
    found = look(connection, throttle_query="SELECT 1", max_spend_usd=0, working_hours="off")
    assert found["held_by"] == "working_hours"
    assert found["throttle_query"]["reason"] == "throttle_query returned 1"


def test_the_wal_rate_is_an_average_over_seconds(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(1000)
    monkeypatch.setattr(throttles.time, "time", lambda: float(next(seconds)))
    found = look(connection, max_wal_mb_s=0.2)
    assert reason(found) is None
    connection.execute(
        "CREATE TABLE burst AS SELECT repeat(md5(n::text), 100) AS t FROM generate_series(1, 20000) n"
    )
    found = look(connection, found, max_wal_mb_s=0.2)
    assert "MB/s of WAL, limit 0.2 MB/s" in str(reason(found))
    burst = found["max_wal_mb_s"]["value"]
    values = []
    for _ in range(20):
        found = look(connection, found, max_wal_mb_s=0.2)
        values.append(found["max_wal_mb_s"]["value"])
    assert burst > values[0] > values[5] > values[-1]
    assert reason(found) is None


@pytest.fixture
def standby(server: embedded.EmbeddedServer) -> Iterator[Standby]:
    """A standby of the tests' server."""
    with streaming_standby(server) as found:
        yield found


def test_a_standby_that_replays_nothing_holds_the_job(
    database: Database, connection: Connection, standby: Standby
) -> None:
    kept: dict[str, Any] = {}

    def lag() -> float:
        kept.update(look(connection, kept, max_replication_lag_s=0.5))
        return float(kept["max_replication_lag_s"]["value"])

    connection.execute("CREATE TABLE written (n int)")
    eventually(lambda: _standbys(connection) == 1)
    eventually(lambda: lag() == 0)
    standby.run(PAUSE)
    connection.execute("INSERT INTO written SELECT generate_series(1, 1000)")
    eventually(lambda: lag() > 0.5)
    assert "standby b is 1 s behind, limit 0.5 s" in str(reason(kept))
    standby.run("SELECT pg_wal_replay_resume()")
    eventually(lambda: lag() == 0)
    assert reason(kept) is None


def _standbys(connection: Connection) -> int:
    row = connection.execute("SELECT count(*) FROM pg_stat_replication WHERE replay_lsn IS NOT NULL").fetchone()
    assert row is not None
    return int(row[0])


def test_a_limit_that_this_role_cannot_measure_is_refused(database: Database, connection: Connection) -> None:
    connection.execute("CREATE ROLE plain_role")
    try:
        connection.execute(
            sql.SQL("GRANT USAGE ON SCHEMA {} TO plain_role").format(sql.Identifier(database.schema))
        )
        connection.execute("SET ROLE plain_role")
        for name in ("max_replication_lag_s", "max_active", "max_transaction_s"):
            with pytest.raises(RefusedError, match="pg_monitor"):
                throttles.require_measurable(connection, JobSettings(**{name: 5}), [name])  # type: ignore[arg-type]
            throttles.require_measurable(connection, JobSettings(), [name])
    finally:
        connection.execute("RESET ROLE")
        connection.execute("DROP OWNED BY plain_role")
        connection.execute("DROP ROLE plain_role")


def test_hours() -> None:
    def at(text: str) -> datetime.datetime:
        return datetime.datetime.fromisoformat(text)

    nights = "Mo-Fr 20:00-06:00; Sa,Su 00:00-24:00"
    assert closed_until(nights, "UTC", at("2026-11-23T21:00+00:00")) is None
    assert closed_until(nights, "UTC", at("2026-11-23T12:00+00:00")) == at("2026-11-23T20:00+00:00")
    # 19:30 in UTC is 20:30 in Berlin
    assert closed_until(nights, "Europe/Berlin", at("2026-11-23T19:30+00:00")) is None
    assert closed_until("off", "UTC", at("2026-11-23T12:00+00:00")) == datetime.datetime.max.replace(
        tzinfo=datetime.UTC
    )


def throttle_of(connection: Connection, version: Version) -> str | None:
    found = status(connection, version)
    return found.throttle if found else None


def test_a_held_job_says_since_when_and_goes_on_when_the_limit_is_lifted(
    database: Database, connection: Connection, logged: list[str]
) -> None:
    add_chunks(connection, NUMBERS)
    version, encoder = add(connection, "v1"), Steps(opened=True)  # nothing but the limit holds it
    settings = JobSettings(batch_size=2, throttle_query="SELECT 'not now'")
    worker = worker_on(database, version, encoder, settings)
    thread = threading.Thread(target=worker.join)
    thread.start()
    try:
        eventually(lambda: throttle_of(connection, version) == "not now")
        held = job_status(connection, version)
        assert held.throttle_since is not None
        change_settings(connection, version, {"throttle_query": "SELECT 'still not, but otherwise'"})
        eventually(lambda: job_status(connection, version).throttle == "still not, but otherwise")
        assert job_status(connection, version).throttle_since == held.throttle_since
        assert job_status(connection, version).state == "running"
        assert encoder.seen == []
        change_settings(connection, version, {"throttle_query": "none"})
        thread.join()
        assert job_status(connection, version).state == "done"
        held_lines = [line for line in logged if "held" in line]
        assert held_lines == [
            "WARNING backfill of v1: held by throttle_query",
            "INFO backfill of v1: no longer held",
        ]
    finally:
        change_settings(connection, version, {"throttle_query": "none"})
        thread.join()


def test_settings_are_checked_by_name(database: Database, connection: Connection) -> None:
    add_chunks(connection, NUMBERS)
    version = add(connection, "v1")
    worker_on(database, version, Steps(opened=True)).join()
    for changes, message in (
        ({"max_rat": "5"}, "Did you mean max_rate"),
        ({"max_rate": "-5"}, "max_rate cannot be '-5'"),
        ({"workers": "many"}, "workers cannot be 'many'"),
        ({"max_failed_share": "1.5"}, "max_failed_share cannot be '1.5'"),
        ({"working_hours": "whenever"}, "'whenever' cannot be read"),
        ({"timezone": "Mars/Base"}, "no time zone 'Mars/Base'"),
    ):
        with pytest.raises(UsageError, match=message):
            change_settings(connection, version, changes)
    after = change_settings(connection, version, {"max_rate": "5", "batch_size": "64", "max_spend_usd": 2})
    assert (after.max_rate, after.batch_size, after.max_spend_usd) == (5, 64, 2)
    after = change_settings(connection, version, {"max_rate": "none", "batch_size": "auto"})
    assert (after.max_rate, after.batch_size, after.max_spend_usd) == (None, None, 2)
    logged = connection.execute(
        "SELECT detail FROM audit_log WHERE action = 'backfill set' ORDER BY id"
    ).fetchall()
    assert logged[1] == ({"max_rate": {"from": 5.0, "to": None}, "batch_size": {"from": 64, "to": None}},)
