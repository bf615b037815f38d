"""The Retriever: what it answers, what it follows, what it counts, and what it refuses."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from revector.core.errors import PinnedVersionError, RefusedError, UnreachableError, UsageError
from revector.core.registry import add_version, create_table, drop_version, get_version, retire_version
from revector.core.retrieval import (
    ROLLBACK_VARIABLE,
    AsyncRetriever,
    EncoderCache,
    Retriever,
    SearchResult,
    VersionSearcher,
    options,
)
from revector.core.retrieval.encoding import QueryCache
from revector.core.serving import Process, served_name, serving
from tests.core.retrieval.collections import FIRST, SECOND, flip, two_versions
from tests.faults.watch import wait_until
from tests.versions import NUMBERS, add_chunks, backfill

TEXTS = [f"{a} and {b}" for a in NUMBERS for b in NUMBERS]


@pytest.fixture(autouse=True)
def _unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROLLBACK_VARIABLE, raising=False)


def test_it_finds_what_a_search_of_the_version_finds(database: Database, connection: Connection) -> None:
    two_versions(database, connection, TEXTS)
    mirrored: list[tuple[SearchResult, str]] = []
    searcher = VersionSearcher(connection)
    with Retriever(database, mirror=lambda result, segment: mirrored.append((result, segment))) as retriever:
        for wanted in ({}, {"hybrid": True}, {"where": {"a": 1}}, {"ef_search": 20}):
            result = retriever.search(" seven and three\n", 5, segment="numbers", **wanted)  # type: ignore[arg-type]
            assert result.hits == searcher.search("seven and three", 5, **wanted).hits  # type: ignore[arg-type]
            assert (result.query, result.version_key, result.k) == ("seven and three", "v1", 5)
            assert result.active
            assert mirrored[-1] == (result, "numbers")
        vector = open_encoder(SECOND).encode_query("seven and three")
        by_hand = retriever.search_vector(vector, "v2", 5)
        assert by_hand.hits == searcher.search("seven and three", 5, version=get_version(connection, "v2")).hits
        assert (by_hand.active, by_hand.query) == (False, "")
        assert len(mirrored) == 4  # nothing to mirror without a text


async def test_the_asynchronous_one_finds_the_same(database: Database, connection: Connection) -> None:
    two_versions(database, connection, TEXTS)
    searcher = VersionSearcher(connection)
    async with AsyncRetriever(database) as retriever:
        for wanted in ({}, {"hybrid": True}, {"where": {"a": 1}}):
            result = await retriever.search("seven and three", 5, **wanted)  # type: ignore[arg-type]
            assert result.hits == searcher.search("seven and three", 5, **wanted).hits  # type: ignore[arg-type]
        vector = open_encoder(SECOND).encode_query("seven and three")
        assert not (await retriever.search_vector(vector, "v2", 5)).active
        with pytest.raises(UsageError, match="empty"):
            await retriever.search(" ")


def test_hybrid_is_reciprocal_rank_fusion(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the formula, worked out here from the two lists."""
    two_versions(database, connection, TEXTS)
    k, depth = 12, 100
    with Retriever(database) as retriever:
        by_vector = [hit.chunk_id for hit in retriever.search("the seven of them", depth).hits]
        by_words = [
            row[0]
            for row in connection.execute(
                """
                SELECT id FROM document_chunks WHERE content_tsv @@ to_tsquery('english', 'seven')
                ORDER BY length(content_tsv), id  -- "seven and seven" first, the others are equal
                """
            )
        ]
        assert len(by_words) == 31
        scores: dict[int, float] = {}
        for ranked in (by_vector, by_words):
            for rank, chunk in enumerate(ranked, 1):
                scores[chunk] = scores.get(chunk, 0) + 1 / (60 + rank)
        expected = sorted(scores, key=lambda chunk: (-scores[chunk], chunk))[:k]
        hits = retriever.search("the seven of them", k, hybrid=True).hits
        assert [hit.chunk_id for hit in hits] == expected
        assert [hit.rank for hit in hits] == list(range(1, k + 1))
        # Words alone decide nothing: a query of none still finds by its vector.
        assert retriever.search("&|! <-> :*'\\", 3, hybrid=True).hits


def test_a_flip_is_followed_by_notice_alone(database: Database, connection: Connection) -> None:
    two_versions(database, connection, NUMBERS)
    with Retriever(database, poll_s=600) as retriever:
        wait_until("v1 is served", lambda: served(retriever) == "v1")
        flip(connection, "v2")
        wait_until("v2 is served", lambda: served(retriever) == "v2")


def test_a_notice_that_was_swallowed_is_made_up_for_by_the_poll(
    database: Database, connection: Connection
) -> None:
    two_versions(database, connection, NUMBERS)
    with Retriever(database, poll_s=0.1) as retriever:
        wait_until("v1 is served", lambda: served(retriever) == "v1")
        connection.execute("ALTER TABLE embedding_versions DISABLE TRIGGER active_changed")
        flip(connection, "v2")
        wait_until("v2 is served", lambda: served(retriever) == "v2")


def served(retriever: Retriever) -> str | None:
    return retriever.version.version_key if retriever.version else None


def processes(connection: Connection) -> list[Process]:
    return [one for one in serving(connection) if one.pid == os.getpid()]


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_a_pin_holds_whatever_the_registry_says(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    two_versions(database, connection, NUMBERS)
    if by == "environment":
        monkeypatch.setenv(ROLLBACK_VARIABLE, "v1")
    with Retriever(database, pinned="v1" if by == "argument" else "v2") as retriever:
        for key in ("v1", "v2", "v1"):
            flip(connection, key)
            result = retriever.search("seven")
            assert (result.version_key, result.active) == ("v1", key == "v1")
            assert result.hits[0].distance == pytest.approx(0, abs=1e-5)
        wait_until(
            "it says so", lambda: [(p.version_key, p.pinned) for p in processes(connection)] == [("v1", True)]
        )
        assert processes(connection)[0].behind_s is None
    monkeypatch.setenv(ROLLBACK_VARIABLE, "v11")
    with Retriever(database) as retriever, pytest.raises(PinnedVersionError, match="version v11"):
        retriever.search("seven")


@pytest.mark.parametrize("table", [True, False])
def test_a_version_without_vectors_is_named(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch, table: bool
) -> None:
    """An answer without hits would look like a collection in which nothing matches."""
    two_versions(database, connection, NUMBERS)
    empty = add_version(connection, "v3", open_encoder(FIRST), FIRST)
    if table:
        create_table(connection, empty)
    refused = r"(?s)Version v3 has no vectors yet.*revector backfill run v3"
    vector = np.ones(empty.dimensions, np.float32)
    with pytest.raises(RefusedError, match=refused):
        VersionSearcher(connection).search("seven", version=empty)
    with Retriever(database) as retriever:
        with pytest.raises(RefusedError, match=refused):
            retriever.search_vector(vector, "v3")
        assert not retriever.search("seven", where={"no": "such"}).hits
        connection.execute("DELETE FROM document_chunks")
        assert not retriever.search("seven").hits, "a collection without chunks has no hits either"
        add_chunks(connection, ["one"])
    monkeypatch.setenv(ROLLBACK_VARIABLE, "v3")
    with (
        Retriever(database) as pinned,
        pytest.raises(RefusedError, match=r"(?s)pinned to version v3 \(RETRIEVAL_ROLLBACK.*backfill run v3"),
    ):
        pinned.search("seven")


def test_a_process_pinned_to_what_is_gone_is_named(database: Database, connection: Connection) -> None:
    two_versions(database, connection, NUMBERS)
    with Retriever(database, pinned="v2", poll_s=0.1) as retriever:
        assert retriever.search("seven").version_key == "v2"
        wait_until("it says so", lambda: [one.pinned_to for one in processes(connection)] == ["v2"])
        for remove in (retire_version, drop_version):
            with pytest.raises(RefusedError, match=rf"pinned to: retriever \S+:{os.getpid()}"):
                remove(connection, "v2")
            remove(connection, "v2", reason="a test", force=True)
        wait_until("it is seen", lambda: [one.pinned_to for one in processes(connection) if one.gone] == ["v2"])
        (found,) = processes(connection)
        assert (found.pinned_to, found.version_key, found.pid) == ("v2", None, os.getpid())
        with pytest.raises(PinnedVersionError, match=r"pinned to version v2 \(RETRIEVAL_ROLLBACK_VERSION"):
            retriever.search("seven")


def test_who_serves_what(database: Database, connection: Connection) -> None:
    two_versions(database, connection, NUMBERS)
    with Retriever(database, program="shop frontü") as one, Retriever(database, program="x" * 80):
        wait_until("both say so", lambda: [p.version_key for p in processes(connection)] == ["v1", "v1"])
        flip(connection, "v2")
        wait_until("both follow", lambda: [p.version_key for p in processes(connection)] == ["v2", "v2"])
        found = processes(connection)
        assert [p.program for p in found] == ["shop-front--", "x" * 16] or found[0].program.startswith(
            "shop-front"
        )
        assert all(p.behind_s is None and not p.pinned and p.since and not p.late for p in found)
        assert one.search("seven").version_key == "v2"
    wait_until("they are gone", lambda: not processes(connection))


def test_a_process_that_does_not_follow_is_late(database: Database, connection: Connection) -> None:
    two_versions(database, connection, NUMBERS)
    oid = connection.execute("SELECT oid::bigint FROM pg_namespace WHERE nspname = current_schema()").fetchone()[0]  # type: ignore[index]
    first, second = (get_version(connection, key) for key in ("v1", "v2"))
    with database.connect("test") as stuck:
        for version, schema, pinned, expected in (
            (first.id, oid, False, [("v1", False)]),
            (second.id, oid, False, [("v2", True)]),
            (second.id, oid, True, [("v2", False)]),
            (9_999, oid, False, [(None, True)]),
            (second.id, oid + 1, False, []),
        ):
            name = served_name("retriever", version, schema, pinned=pinned)
            stuck.execute("SELECT set_config('application_name', %s, false)", [name])
            connection.execute(
                "UPDATE embedding_versions SET activated_at = now() - interval '1 minute' WHERE active"
            )
            wait_until(
                "it is seen",
                lambda expected=expected: [(p.version_key, p.late) for p in processes(connection)] == expected,  # type: ignore[misc]
            )


def test_a_name_fits_whatever_the_numbers() -> None:
    for program in ("retriever", "a-very-long-name-of-a-program"):
        name = served_name(program, 2**40, 2**32 - 1, pinned=True)
        assert len(name.encode()) <= 63
        assert name.endswith(" pinned")
        for key in ("v1", "embed-v2026-03", "k" * 63):
            missing = served_name(program, 0, 2**32 - 1, pinned=True, missing=key)
            assert len(missing.encode()) <= 63
            shown = missing.rpartition("=")[2]
            assert shown == key or (key.startswith(shown[:-1]) and shown[-1] == "~")


class Counting(EncoderCache):
    """Encoders that note what they are asked for; `hold` is waited for before each answer."""

    def __init__(self) -> None:
        super().__init__(self._counted)
        self.asked: list[str] = []
        self.hold = threading.Event()
        self.hold.set()

    def _counted(self, spec: str):  # type: ignore[no-untyped-def]
        encoder = open_encoder(spec)
        encode: Callable[[str], np.ndarray] = encoder.encode_query

        def encode_query(text: str) -> np.ndarray:
            self.asked.append(text)
            self.hold.wait()
            return encode(text)

        encoder.encode_query = encode_query  # type: ignore[method-assign]
        encoder.runs_here = False  # type: ignore[attr-defined]
        return encoder


def test_a_query_is_encoded_once_for_each_version(database: Database, connection: Connection) -> None:
    two_versions(database, connection, NUMBERS)
    encoders = Counting()
    with Retriever(database, encoders=encoders, cache_size=2) as retriever:
        for text in ("one", "two", "one", "two", " one "):
            assert retriever.search(text).hits[0].content == text.strip()
        assert encoders.asked == ["one", "two"]
        flip(connection, "v2")
        assert retriever.search("one").hits[0].content == "one"
        assert encoders.asked == ["one", "two", "one"]
        retriever.search("three")
        retriever.search("one")  # still kept
        retriever.search("two")  # dropped long ago
        assert encoders.asked == ["one", "two", "one", "three", "two"]


def test_the_cache_is_bounded() -> None:
    cache = QueryCache(3)
    for number in range(10):
        cache.put(1, str(number), np.zeros(2, np.float32))
        cache.get(1, "0")
    assert len(cache) == 3
    assert cache.get(1, "0") is not None
    assert cache.get(2, "0") is None


def test_an_encoder_that_hangs_is_not_waited_for(database: Database, connection: Connection) -> None:
    two_versions(database, connection, NUMBERS)
    encoders = Counting()
    encoders.hold.clear()
    try:
        with Retriever(database, encoders=encoders) as retriever:
            with pytest.raises(
                UnreachableError, match=r"The encoder of v1 did not answer within 0\.2 s"
            ) as caught:
                retriever.search("seven", timeout_s=0.2)
            assert caught.value.temporary
            encoders.hold.set()
            assert retriever.search("seven").hits[0].content == "seven"
    finally:
        encoders.hold.set()


async def test_an_encoder_that_hangs_does_not_stop_the_loop(database: Database, connection: Connection) -> None:
    two_versions(database, connection, NUMBERS)
    encoders = Counting()
    encoders.hold.clear()
    try:
        async with AsyncRetriever(database, encoders=encoders) as retriever:
            with pytest.raises(UnreachableError, match="did not answer within"):
                await retriever.search("seven", timeout_s=0.2)
            encoders.hold.set()
            assert (await retriever.search("seven")).hits[0].content == "seven"
    finally:
        encoders.hold.set()


def test_a_statement_that_takes_too_long_is_given_up(database: Database, connection: Connection) -> None:
    two_versions(database, connection, NUMBERS)
    with Retriever(database) as retriever:
        retriever.search("seven")
        with database.connect("test") as other, other.transaction():
            other.execute("LOCK TABLE document_chunks")
            with pytest.raises(UnreachableError):
                retriever.search("seven", timeout_s=0.3)
        assert retriever.search("seven", timeout_s=60).hits


def test_more_searches_than_connections_take_turns(database: Database, connection: Connection) -> None:
    two_versions(database, connection, NUMBERS)
    with Retriever(database, pool_size=2) as retriever, ThreadPoolExecutor(12) as clients:
        found = list(clients.map(lambda number: retriever.search(NUMBERS[number % 16]), range(120)))
        assert [result.hits[0].content for result in found] == [NUMBERS[number % 16] for number in range(120)]
        sessions = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'revector retriever'"
        ).fetchone()
        assert sessions is not None
        assert 1 <= sessions[0] <= 2
        with database.connect("test") as other, other.transaction():
            other.execute("LOCK TABLE document_chunks")
            held = [clients.submit(retriever.search, "one", timeout_s=120) for _ in range(2)]
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'document_chunks'::regclass"
            wait_until("both are held", lambda: connection.execute(waiting).fetchone() == (2,))
            with pytest.raises(UnreachableError, match=r"No connection was free within 0\.2 s: 2 searches"):
                retriever.search("two", timeout_s=0.2)
        assert [one.result().hits[0].content for one in held] == ["one", "one"]


def test_the_encoder_of_the_next_version_is_opened_before_the_flip(
    database: Database, connection: Connection
) -> None:
    two_versions(database, connection, NUMBERS)
    encoders = EncoderCache()
    with Retriever(database, encoders=encoders):
        for key in ("v1", "v2"):
            wait_until(f"{key} is open", lambda key=key: encoders.opened(get_version(connection, key)))  # type: ignore[misc]


def test_what_is_gone_is_named(database: Database, connection: Connection) -> None:
    two_versions(database, connection, NUMBERS)
    vector = open_encoder(FIRST).encode_query("seven")
    with Retriever(database) as retriever:
        retriever.search_vector(vector, "v2", 3)
        retire_version(connection, "v2")
        drop_version(connection, "v2")
        with pytest.raises(UsageError, match="no embedding version 'v2'"):
            retriever.search_vector(vector, "v2", 3)
        add_version(connection, "v2", open_encoder("static:wordllama-64"), "static:wordllama-64")
        backfill(database, get_version(connection, "v2"))
        assert retriever.search_vector(vector, "v2", 3).hits[0].content == "seven"
        with pytest.raises(RefusedError, match="64"):
            retriever.search_vector(vector[:63], "v2", 3)
        with pytest.raises(RefusedError, match="non-finite"):
            retriever.search_vector(vector * np.float32("nan"), "v2", 3)
        with pytest.raises(UsageError, match="no embedding version"):
            retriever.search_vector(vector, "'; DROP TABLE document_chunks; --", 3)


def test_what_cannot_be_searched_is_refused(empty_database: Database, database: Database) -> None:
    with Retriever(database) as retriever:
        with pytest.raises(RefusedError, match="No embedding version is active"):
            retriever.search("seven")
        for wrong in (
            {"k": 0},
            {"k": options.MAX_K + 1},
            {"ef_search": 0},
            {"timeout_s": 0},
            {"rerank": "static:x"},
        ):
            with pytest.raises(UsageError):
                retriever.search("seven", **wrong)  # type: ignore[arg-type]
    with Retriever(empty_database) as retriever, pytest.raises(UnreachableError, match="not been set up"):
        retriever.search("seven")
    with pytest.raises(UsageError, match="string is malformed") as caught:
        Retriever(Database("host=x password='hunter2", "s"))
    assert "hunter2" not in str(caught.value)


def test_a_role_that_may_only_read_is_served(database: Database, connection: Connection) -> None:
    two_versions(database, connection, NUMBERS)
    read_only = Database(database.dsn, database.schema, read_only=True)
    with Retriever(read_only) as retriever:
        assert retriever.search("seven").hits
        flip(connection, "v2")
        assert retriever.search("seven").version_key == "v2"
    assert connection.execute("SELECT count(*) FROM search_counts").fetchone() == (0,)
