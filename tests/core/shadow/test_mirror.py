"""The mirror: what it writes down, and that nothing a candidate does reaches a user."""

from __future__ import annotations

import hashlib
import hmac
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from revector.core import cutover, registry, shadow
from revector.core.database import Connection, Database
from revector.core.retrieval import SearchResult, VersionSearcher
from tests.core.shadow.support import TEXTS, answers, mirror_of, rows, two_versions
from tests.faults.watch import wait_until
from tests.protocol_server import Gate, ProtocolServer
from tests.versions import ready_version

QUERIES = ["seven and three", "nine", "eleven and zero"]


def test_a_mirrored_query_is_stored_with_both_rankings_and_how_alike_they_are(
    database: Database, connection: Connection
) -> None:
    primary, candidate = two_versions(database, connection)
    run = shadow.start(connection, "v2", sample=1, query_text="stored", reason="before the cutover")
    with mirror_of(database) as mirror:
        assert mirror.run == run
        for result in answers(connection, primary, QUERIES, 7):
            mirror(result, "numbers")
        assert mirror.flush()
    searcher = VersionSearcher(connection)
    stored = rows(
        connection,
        "query, query_sha256, segment, k, primary_version, primary_keys, candidate_keys, overlap, jaccard, rbo, "
        "kendall_tau, error",
    )
    assert len(stored) == len(QUERIES)
    for query, row in zip(QUERIES, stored, strict=True):
        wanted = searcher.compare(query, primary, candidate, 7)
        assert row[:5] == (query, keyed(connection, query), "numbers", 7, "v1")
        assert row[5] == [hit.semantic_key for hit in wanted.primary.hits]
        assert row[6] == [hit.semantic_key for hit in wanted.candidate.hits]
        overlap = wanted.overlap
        assert row[7:11] == pytest.approx((overlap.overlap, overlap.jaccard, overlap.rbo, overlap.kendall_tau))
        assert row[11] == ""
    assert all(ms > 0 for row in rows(connection, "primary_ms, candidate_ms") for ms in row)
    found = shadow.report(connection)
    assert (found.seen, found.drawn, found.done, found.dropped, found.failed) == (3, 3, 3, 0, 0)


@pytest.mark.parametrize(("setting", "kept"), [("hashed", (None, True)), ("omitted", (None, False))])
def test_a_query_is_kept_as_the_shadow_says(
    database: Database, connection: Connection, setting: str, kept: tuple[None, bool]
) -> None:
    primary, _ = two_versions(database, connection, texts=TEXTS[:20])
    shadow.start(connection, "v2", sample=1, query_text=setting)
    with mirror_of(database) as mirror:
        mirror(answers(connection, primary, ["five of mine"])[0])
        assert mirror.flush()
    assert rows(connection, "query, query_sha256 IS NOT NULL") == [kept]
    dump = str(rows(connection))
    assert "five of mine" not in dump


def keyed(connection: Connection, query: str) -> bytes:
    """As RFC 2104 has it, with the key of the collection."""
    ((pad,),) = connection.execute("SELECT inner_pad FROM query_key").fetchall()
    key = bytes(byte ^ 0x36 for byte in pad)
    return hmac.digest(key, hashlib.sha256(query.encode()).digest(), "sha256")


def test_a_hashed_query_is_not_found_by_trying_but_is_the_same_each_time(
    database: Database, connection: Connection
) -> None:
    primary, _ = two_versions(database, connection, texts=TEXTS[:20])
    shadow.start(connection, "v2", sample=1, query_text="hashed")
    with mirror_of(database) as mirror:
        for _ in range(2):
            for result in answers(connection, primary, QUERIES):
                mirror(result)
        assert mirror.flush()
    kept = [digest for (digest,) in rows(connection, "query_sha256")]
    assert len(kept) == 6
    assert len({*kept}) == 3
    assert not {*kept} & {hashlib.sha256(query.encode()).digest() for query in QUERIES}
    assert {*kept} == {keyed(connection, query) for query in QUERIES}
    connection.execute("SELECT new_query_key()")
    assert not {*kept} & {keyed(connection, query) for query in QUERIES}
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="expected the 32 of a SHA-256"):
        connection.execute("SELECT hash_query('seven and three')")


def test_it_follows_the_row_and_a_sample_is_drawn(database: Database, connection: Connection) -> None:
    primary, candidate = two_versions(database, connection, texts=TEXTS[:20])
    result = answers(connection, primary, ["one"])[0]
    with mirror_of(database, follows=False, queue_size=2_000) as mirror:
        mirror(result)
        shadow.start(connection, "v2", sample=0.3)
        wait_until("the mirror follows", lambda: mirror.run)
        for _ in range(1_000):
            mirror(result)
        mirror(answers(connection, candidate, ["one"])[0])  # of the candidate itself: no comparison
        assert mirror.flush()
        found = shadow.report(connection)
        assert found.seen == 1_000
        assert 200 < found.drawn < 400
        assert found.done == found.drawn == len(rows(connection))
        shadow.stop(connection)
        wait_until("it knows the end", lambda: mirror.run is None)
        mirror(result)
        assert mirror.flush()
    assert shadow.report(connection).seen == 1_000


def test_a_candidate_that_hangs_is_left_alone_and_tried_again(database: Database, connection: Connection) -> None:
    with ProtocolServer() as server:
        primary, _ = two_versions(
            database, connection, f"openai:house-model?base_url={server.base_url}&max_retries=0", TEXTS[:20]
        )
        results = answers(connection, primary, TEXTS[:20])
        shadow.start(connection, "v2", sample=1, query_text="stored")
        gate = Gate(server, lambda _text: True)
        with mirror_of(database, queue_size=4, timeout_s=0.1, breaker_failures=1, breaker_pause_s=0.2) as mirror:
            for result in results:
                mirror(result)
            found = wait_until("the breaker is open", lambda: _open(connection))
            assert found.breaker[0].why == "no answer in 0.1 s"
            assert (found.seen, found.drawn, found.done, found.failed) == (20, 20, 0, 1)
            assert rows(connection, "overlap, candidate_ms, error, candidate_keys") == [
                (None, None, "no answer in 0.1 s", [])
            ]
            gate.open()

            def answered() -> bool:
                mirror(results[0])
                assert mirror.flush()
                return _open(connection) is None

            wait_until("a trial closed the breaker", answered)
            found = shadow.report(connection)
        assert found.done >= 1
        assert found.drawn == found.done + found.dropped + found.failed


def test_what_the_queue_has_no_room_for_is_dropped_and_no_user_waits(
    database: Database, connection: Connection
) -> None:
    with ProtocolServer() as server, ThreadPoolExecutor(1) as user:
        primary, _ = two_versions(
            database, connection, f"openai:house-model?base_url={server.base_url}&max_retries=0", TEXTS[:20]
        )
        results = answers(connection, primary, TEXTS[:20])
        shadow.start(connection, "v2", sample=1)
        with mirror_of(database, queue_size=4, timeout_s=60) as mirror:
            gate = Gate(server, lambda _text: True)
            try:
                mirror(results[0])
                assert gate.reached.wait(60)  # the one worker is busy
                assert len(user.submit(lambda: [mirror(result) for result in results[1:]]).result(30)) == 19
            finally:
                gate.open()
            assert mirror.flush()
            found = shadow.report(connection)
        assert (found.seen, found.done, found.dropped) == (20, 5, 15)


def test_a_candidate_that_hangs_holds_up_neither_its_breaker_nor_the_next_candidate(
    database: Database, connection: Connection
) -> None:
    with ProtocolServer() as server:
        primary, _ = two_versions(
            database, connection, f"openai:house-model?base_url={server.base_url}&max_retries=0", TEXTS[:20]
        )
        ready_version(database, connection, "v3")
        results = answers(connection, primary, TEXTS[:20])
        gate = Gate(server, lambda _text: True)
        with mirror_of(database, follows=False, timeout_s=0.3, breaker_failures=3, breaker_pause_s=60) as mirror:
            shadow.start(connection, "v2", sample=1)
            assert mirror.wait(60)
            for result in results:
                mirror(result)
            found = wait_until("three searches in a row got no answer", lambda: _open(connection))
            assert (found.done, found.failed) == (0, 3)
            shadow.stop(connection)
            wait_until("it knows the end", lambda: mirror.run is None)
            shadow.start(connection, "v3", sample=1)
            assert mirror.wait(60)
            wait_until("the next candidate answers", lambda: mirror(results[0]) or shadow.report(connection).done)
        gate.open()


def _open(connection: Connection) -> shadow.ShadowReport | None:
    found = shadow.report(connection)
    return found if found.breaker else None


def test_a_search_that_hangs_in_the_database_ends_by_its_timeout(
    database: Database, connection: Connection
) -> None:
    primary, candidate = two_versions(database, connection, texts=TEXTS[:20])
    shadow.start(connection, "v2", sample=1)
    result = answers(connection, primary, ["one"])[0]
    with mirror_of(database, timeout_s=0.3) as mirror, database.session("test") as other:
        with other.transaction():
            other.execute(f"LOCK TABLE {candidate.table_name} IN ACCESS EXCLUSIVE MODE")  # type: ignore[arg-type]
            mirror(result)
            assert mirror.flush()
        assert shadow.report(connection).failed == 1
        mirror(result)
        assert mirror.flush()
    assert shadow.report(connection).done == 1


def test_errors_of_the_candidate_are_stored_without_an_overlap_and_without_the_query(
    database: Database, connection: Connection
) -> None:
    with ProtocolServer() as server:
        primary, _ = two_versions(
            database, connection, f"openai:house-model?base_url={server.base_url}&max_retries=0", TEXTS[:20]
        )
        shadow.start(connection, "v2", sample=1)
        # Each is asked twice, the second time for lists: that may be what it refuses.
        server.fail(400, 4, message="what is 'my secret question'?")
        with mirror_of(database, breaker_failures=2, breaker_pause_s=60) as mirror:
            for result in answers(connection, primary, ["my secret question"] * 4):
                mirror(result)
                mirror.flush()
    found = shadow.report(connection)
    assert (found.seen, found.drawn, found.done, found.dropped, found.failed) == (4, 4, 0, 2, 2)
    assert (found.overlap, found.queries, found.failures, found.worst) == (None, 0, 2, ())
    assert found.breaker[0].why == found.errors[0][0]
    stored = str(rows(connection))
    assert "what is" in stored
    assert "my secret question" not in stored


def test_a_candidate_that_is_dropped_ends_the_shadow(database: Database, connection: Connection) -> None:
    primary, _ = two_versions(database, connection, texts=TEXTS[:20])
    shadow.start(connection, "v2", sample=1)
    result = answers(connection, primary, ["one"])[0]
    with mirror_of(database, poll_s=0.1) as mirror:
        mirror(result)
        registry.retire_version(connection, "v2")
        registry.drop_version(connection, "v2")
        mirror(result)  # whether it knows yet or not
        wait_until("it knows the end", lambda: mirror.run is None)
        mirror(result)
        assert mirror.flush()
        wait_until("it is at peace", lambda: not mirror.trouble)
    assert rows(connection) == []
    assert shadow.latest(connection) is None


def test_a_candidate_that_becomes_active_is_not_compared_with_itself(
    database: Database, connection: Connection
) -> None:
    primary, candidate = two_versions(database, connection, texts=TEXTS[:20])
    run = shadow.start(connection, "v2", sample=1)
    with mirror_of(database) as mirror:
        mirror(answers(connection, primary, ["one"])[0])
        assert mirror.flush()
        cutover.run(connection, "v2", confirm="v2")
        # The flip turns a running shadow round: that is another one, of the version before.
        wait_until("it is turned round", lambda: mirror.run is not None and mirror.run.candidate == "v1")
        mirror(answers(connection, candidate, ["two"])[0])
        assert mirror.flush()
    assert rows(connection, "primary_version") == [("v1",), ("v2",)]
    turned = shadow.running(connection)
    assert turned is not None
    assert turned.id != run.id
    for one in (run, turned):
        found = shadow.report(connection, shadow_id=one.id)
        assert (found.queries, found.done) == (1, 1)  # only what is of this direction


def test_the_mirror_never_raises_and_ends_whatever_its_database_does(database: Database) -> None:
    from dataclasses import replace

    away = replace(database, dsn="postgresql://nobody@127.0.0.1:1/nothing", connect_timeout_s=1)
    with mirror_of(away, follows=False) as mirror:
        mirror(SearchResult("query", "v1", (), 0.0, 0.0))
        wait_until("it says what is wrong", lambda: mirror.trouble)
        assert mirror.run is None
