"""What a Retriever counts: by version and time, whatever fails, and soon when a limit may be near."""

from __future__ import annotations

import datetime
import time

import numpy as np
import pytest

from revector.core.database import Connection, Database
from revector.core.errors import EncoderError, UnreachableError, UsageError
from revector.core.registry import get_version
from revector.core.retrieval import ROLLBACK_VARIABLE, EncoderCache, Retriever, counts
from revector.core.retrieval.counts import Counter, read_counts
from tests.core.retrieval.collections import flip, two_versions
from tests.faults.watch import wait_until
from tests.protocol_server import ProtocolServer
from tests.versions import NUMBERS, add_chunks, ready_version


@pytest.fixture(autouse=True)
def _unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROLLBACK_VARIABLE, raising=False)


def test_searches_are_counted_by_version_and_read_as_figures(database: Database, connection: Connection) -> None:
    two_versions(database, connection, NUMBERS)
    first, second = (get_version(connection, key) for key in ("v1", "v2"))
    begun = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=1)
    with Retriever(database) as retriever:
        for _ in range(20):
            retriever.search("seven")
        for _ in range(5):
            assert not retriever.search("seven", where={"no": "such"}).hits
        flip(connection, "v2")
        retriever.search("seven")
        with pytest.raises(UsageError):
            retriever.search(" ")  # the caller's mistake, which says nothing of the version
    found = read_counts(connection, first.id, begun)
    assert (found.searches, found.empty_rate, found.error_rate) == (25, 0.2, 0)
    assert found.median_ms is not None
    assert found.p95_ms is not None
    assert found.p99_ms is not None
    assert 0 < found.median_ms <= found.p95_ms <= found.p99_ms
    assert read_counts(connection, second.id, begun).searches == 1
    assert read_counts(connection, first.id, begun, begun).searches == 0
    assert read_counts(connection, first.id, begun, begun).median_ms is None


def test_percentiles_of_counts_are_within_a_bucket(database: Database, connection: Connection) -> None:
    two_versions(database, connection, NUMBERS[:2])
    version = get_version(connection, "v1")
    seconds = np.random.default_rng(4).lognormal(-5, 1, 2_000)
    counters = [Counter(), Counter()]  # two processes
    for number, value in enumerate(seconds):
        counters[number % 2].count(version.id, float(value))
        if number % 500 == 0:
            counters[0].flush(connection)  # in several parts
    for counter in counters:
        for _ in range(250):
            counter.count(version.id, 0.0, error=True)
        counter.count(999_999, 1.0)  # a version that is gone
        counter.flush(connection)
    found = read_counts(connection, version.id, datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
    assert (found.searches, found.error_rate) == (2_500, 0.2)
    for value, share in ((found.median_ms, 0.5), (found.p95_ms, 0.95), (found.p99_ms, 0.99)):
        assert value == pytest.approx(float(np.quantile(seconds, share)) * 1000, rel=0.06)


def test_counts_that_cannot_be_written_are_kept(database: Database, connection: Connection) -> None:
    two_versions(database, connection, NUMBERS[:2])
    version = get_version(connection, "v1")
    counter = Counter()
    counter.count(version.id, 0.01)
    with database.connect("test") as lost:
        lost.close()
        with pytest.raises(Exception, match="closed"):
            counter.flush(lost)
    counter.count(version.id, 0.01)
    counter.flush(connection)
    since = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    assert read_counts(connection, version.id, since).searches == 2


def test_old_counts_are_let_go(database: Database, connection: Connection) -> None:
    two_versions(database, connection, NUMBERS[:2])
    version = get_version(connection, "v1")
    connection.execute(
        "INSERT INTO search_counts VALUES (%s, now() - interval '15 days', 'old', 1, 0, 0, array_fill(0, '{160}'))",
        [version.id],
    )
    counter = Counter()
    counter.count(version.id, 0.01)
    counter.flush(connection)
    assert connection.execute("SELECT process FROM search_counts").fetchall() == [(counter.process,)]


@pytest.mark.parametrize(("age_s", "step"), [(30, 1), (300, 10), (3_000, 60)])
def test_rows_cover_a_second_at_first_and_a_minute_later_on_the_servers_clock(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch, age_s: int, step: int
) -> None:
    two_versions(database, connection, NUMBERS[:2])
    version = get_version(connection, "v1")
    connection.execute(
        "UPDATE embedding_versions SET activated_at = now() - make_interval(secs => %s) WHERE active", [age_s]
    )
    clock = time.time
    monkeypatch.setattr(counts.time, "time", lambda: clock() - 500)
    counter = Counter()
    counter.count(version.id, 0.01)
    counter.count(version.id, 0.0, error=True)
    counter.flush(connection)
    found = connection.execute(
        """
        SELECT extract(epoch FROM at)::float8, extract(epoch FROM now() - at)::float8,
               extract(epoch FROM now() - first_error)::float8, first_error = last_error FROM search_counts
        """
    ).fetchall()
    (at, ago, error_ago, one_error) = found[-1]
    assert at % step == 0
    assert ago < step + 5
    assert error_ago < 5
    assert one_error


def test_whatever_fails_is_counted_and_written_soon(database: Database, connection: Connection) -> None:
    """Also what an encoder of somebody else's raises; the caller's own mistakes are not."""
    two_versions(database, connection, NUMBERS[:4])
    version = get_version(connection, "v1")
    connection.execute("UPDATE embedding_versions SET activated_at = now() - interval '1 day' WHERE active")
    encoders = EncoderCache()
    encode = encoders.encoder(version).encode_query
    with Retriever(database, encoders=encoders, poll_s=60) as retriever:
        assert retriever.search("one").hits
        for error in (RuntimeError("its own"), UsageError("a wrong setting"), TimeoutError(), KeyError("data")):

            def fails(text: str, error: Exception = error) -> np.ndarray:
                raise error

            encoders.encoder(version).encode_query = fails  # type: ignore[method-assign]
            with pytest.raises(EncoderError, match=r"its own|wrong setting|TimeoutError|'data'"):
                retriever.search(f"two {error}")
        encoders.encoder(version).encode_query = encode  # type: ignore[method-assign]
        with pytest.raises(UsageError):
            retriever.search("three", k=0)
        # Long before the pointer would have looked by itself: it still runs.
        wait_until("the errors are written", lambda: errors(connection, version.id) == 4)


def errors(connection: Connection, version_id: int) -> int:
    row = connection.execute(
        "SELECT coalesce(sum(errors), 0)::int FROM search_counts WHERE embedding_version_id = %s", [version_id]
    ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    ("status", "retry_after", "timeout_s"),
    [(500, None, 60.0), (500, None, 0.2), (429, 600, 60.0), (503, 600, 60.0)],
)
def test_an_encoder_that_answers_with_an_error_is_quoted(
    database: Database, connection: Connection, status: int, retry_after: float | None, timeout_s: float
) -> None:
    """Within a second, also where it asks for more time than anybody waits."""
    with ProtocolServer() as server:
        spec = f"openai:text-embedding-3-small?dimensions=64&base_url={server.base_url}"
        add_chunks(connection, NUMBERS[:4])
        ready_version(database, connection, "v1", spec)
        flip(connection, "v1")
        with Retriever(database) as retriever:
            assert retriever.search("one", 1).hits[0].content == "one"
            server.fail(status, 100, retry_after=retry_after, message="the GPU is gone")
            for query in ("two", "three"):
                with pytest.raises(UnreachableError, match=f"answered {status}: the GPU is gone") as caught:
                    retriever.search(query, timeout_s=timeout_s)
                assert "did not answer" not in str(caught.value)


def test_queries_whose_vector_was_cached_are_counted_apart(database: Database, connection: Connection) -> None:
    two_versions(database, connection, NUMBERS[:4])
    with Retriever(database) as retriever:
        for query in ("one", "two", "one", "one"):
            retriever.search(query)
    rows = connection.execute(
        "SELECT (SELECT sum(n) FROM unnest(latencies) n), (SELECT sum(n) FROM unnest(cached_latencies) n) "
        "FROM search_counts"
    ).fetchall()
    assert [sum(int(row[part]) for row in rows) for part in (0, 1)] == [2, 2]
