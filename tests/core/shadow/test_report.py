"""Starting, stopping, the report, retention, and the way to the judging queue."""

from __future__ import annotations

import datetime
import hashlib
import sys

import psycopg
import pytest

from revector.core import audit, shadow
from revector.core.database import Connection, Database
from revector.core.errors import RefusedError, UsageError
from revector.core.evaluation.judged_sets.query_sets import Query, get_query_set, save_queries
from revector.core.overlap import compare
from revector.core.shadow.judging import SentToJudging
from revector.core.shadow.store import MirroredQuery, clean, forget_expired, segment_of, write
from tests.core.shadow.support import TEXTS, two_versions
from tests.versions import add


@pytest.fixture
def run(database: Database, connection: Connection) -> shadow.ShadowRun:
    """A shadow of v2 that runs."""
    two_versions(database, connection, texts=TEXTS[:12])
    return shadow.start(connection, "v2", sample=1, query_text="stored")


def mirrored(
    run: shadow.ShadowRun,
    query: str | None,
    common: int,
    *,
    segment: str = "",
    age_days: float = 0.0,
    ms: tuple[float, float | None] = (1.0, 2.0),
    error: str = "",
    primary: str = "v1",
) -> MirroredQuery:
    """A query of whose ten results both versions have so many in common, in the same order."""
    first = [f"a{rank}" for rank in range(10)]
    second = first[:common] + [f"b{rank}" for rank in range(10 - common)]
    at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=age_days)
    digest = hashlib.sha256(query.encode()).digest() if query else None
    overlap = None if error else compare(first, second, 10)
    return MirroredQuery(run.id, at, primary, query, digest, segment, 10, first, second, overlap, *ms, error)


def test_a_shadow_is_started_once_and_stopped_and_both_are_in_the_log(
    run: shadow.ShadowRun, connection: Connection
) -> None:
    assert (run.candidate, run.sample, run.query_text, run.retention_days) == ("v2", 1, "stored", 14)
    assert shadow.running(connection) == run
    with pytest.raises(RefusedError, match="A shadow of v2 runs already"):
        shadow.start(connection, "v2")
    stopped = shadow.stop(connection, reason="seen enough")
    assert stopped.stopped_at is not None
    assert (shadow.running(connection), shadow.latest(connection)) == (None, stopped)
    with pytest.raises(RefusedError, match="No shadow runs"):
        shadow.stop(connection)
    assert [(e.action, e.version_key, e.reason) for e in audit.entries(connection)[:2]] == [
        ("shadow stop", "v2", "seen enough"),
        ("shadow start", "v2", ""),
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sample": 0}, "sample is 0"),
        ({"sample": 1.5}, "sample is 1.5"),
        ({"sample": float("nan")}, "sample is nan"),
        ({"query_text": "all"}, "Query text 'all'"),
        ({"retention_days": 0}, "retention is 0"),
        ({"retention_days": float("inf")}, "retention is inf"),
        ({"retention_days": 1e6}, "retention is 1e"),
    ],
)
def test_settings_out_of_bounds_are_refused(
    database: Database, connection: Connection, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        shadow.start(connection, "v2", **settings)  # type: ignore[arg-type]


def test_what_cannot_be_shadowed_is_refused(database: Database, connection: Connection) -> None:
    with pytest.raises(RefusedError, match="There is no shadow to report on"):
        shadow.report(connection)
    add(connection, "early")
    with pytest.raises(RefusedError, match="No embedding version is active"):
        shadow.start(connection, "early")
    two_versions(database, connection, texts=TEXTS[:5])
    add(connection, "empty")
    with pytest.raises(RefusedError, match="empty has no vectors"):
        shadow.start(connection, "empty")
    with pytest.raises(RefusedError, match="v1 is active"):
        shadow.start(connection, "v1")
    with pytest.raises(UsageError, match="no embedding version 'v9'"):
        shadow.start(connection, "v9")
    with pytest.raises(UsageError, match="no shadow 77"):
        shadow.report(connection, shadow_id=77)
    assert shadow.running(connection) is None


def test_the_report_is_of_the_newest_queries_that_both_answered(
    run: shadow.ShadowRun, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [
        mirrored(run, "same", 10, segment="easy", ms=(1, 10)),
        mirrored(run, "near", 9, segment="easy", ms=(2, 20)),
        mirrored(run, "far", 2, segment="hard", ms=(3, 30)),
        mirrored(run, "far", 3, segment="hard", ms=(4, 40)),
        mirrored(run, "farthest", 0, segment="hard", ms=(5, 50)),
        mirrored(run, "broken", 0, ms=(6, None), error="no answer"),
        mirrored(run, "other way round", 0, primary="v2"),
        mirrored(run, "expired", 0, age_days=15),
    ]
    write(connection, queries, [])
    found = shadow.report(connection)
    assert found.queries == 5
    assert found.overlap == pytest.approx((1 + 0.9 + 0.2 + 0.3 + 0) / 5)
    assert found.histogram == (1, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1)
    assert found.primary_ms.p50 == 3
    assert found.candidate_ms == shadow.Latency(30, pytest.approx(48), pytest.approx(49.6))
    assert [(one.segment, one.queries) for one in found.segments] == [("hard", 3), ("easy", 2)]  # worst first
    assert found.segments[1].overlap == pytest.approx(0.95)
    assert (found.failures, found.errors) == (1, (("no answer", 1),))
    assert [one.query for one in found.worst] == ["farthest", "far", "near"]
    assert [one.query for one in shadow.report(connection, limit=1).worst] == ["farthest"]
    monkeypatch.setattr(sys.modules[shadow.ShadowReport.__module__], "NEWEST", 2)
    assert shadow.report(connection).queries == 1  # of the two newest, one failed


def test_queries_go_when_their_time_is_over(run: shadow.ShadowRun, connection: Connection) -> None:
    write(connection, [mirrored(run, "old", 1, age_days=14.1), mirrored(run, "new", 1, age_days=13.9)], [])
    assert forget_expired(connection) == 1
    assert connection.execute("SELECT query FROM shadow_queries").fetchall() == [("new",)]


def test_rows_of_a_shadow_that_is_gone_are_left_out(run: shadow.ShadowRun, connection: Connection) -> None:
    from dataclasses import replace

    write(connection, [replace(mirrored(run, "lost", 1), shadow_id=run.id + 1), mirrored(run, "kept", 1)], [])
    assert connection.execute("SELECT query FROM shadow_queries").fetchall() == [("kept",)]


def test_text_that_postgres_cannot_take_is_cleaned() -> None:
    assert clean("a\0b\ud800c", 10) == "abc"
    assert segment_of("x" * 500) == "x" * 100


def test_the_worst_go_to_the_judging_queue_once(run: shadow.ShadowRun, connection: Connection) -> None:
    write(
        connection,
        [
            mirrored(run, "far", 2, segment="hard"),
            mirrored(run, "farther", 1),
            mirrored(run, None, 0),
            mirrored(run, "same", 10),
        ],
        [],
    )
    worst = [one.id for one in shadow.report(connection).worst]
    sent = shadow.send_to_judging(connection, worst)
    assert sent == SentToJudging("shadow", added=2, there_already=0, without_text=1)
    queries = get_query_set(connection, "shadow").queries
    assert {(query.text, query.segment) for query in queries} == {("far", "hard"), ("farther", "all")}
    assert shadow.send_to_judging(connection, worst).there_already == 2
    assert get_query_set(connection, "shadow").queries == queries
    save_queries(connection, "mine", [Query("1", "far")])
    assert shadow.send_to_judging(connection, worst, "mine").added == 1
    assert len(get_query_set(connection, "mine").queries) == 2
    with pytest.raises(RefusedError, match="no queries"):
        shadow.send_to_judging(connection, [])


def test_hashes_cannot_be_judged(run: shadow.ShadowRun, connection: Connection) -> None:
    write(connection, [mirrored(run, None, 0)], [])
    with pytest.raises(RefusedError, match="text of none of these queries is kept"):
        shadow.send_to_judging(connection, [shadow.report(connection).worst[0].id])


def test_the_database_allows_one_shadow_that_runs(run: shadow.ShadowRun, connection: Connection) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("INSERT INTO shadows (embedding_version_id, sample) VALUES (%s, 0.5)", [run.version_id])
