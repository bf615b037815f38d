"""What an application builds on: the environment, getting ready, batches, errors that can be told apart."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import revector
from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from revector.core.encoders.base import Encoder
from revector.core.errors import (
    BusyError,
    ClosedError,
    DatabaseUnreachableError,
    EncoderError,
    EncoderUnreachableError,
    NotFoundError,
    NotReadyError,
    PinnedVersionError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from revector.core.registry import get_version
from revector.core.retrieval import ROLLBACK_VARIABLE, AsyncRetriever, EncoderCache, Retriever
from revector.core.retrieval.counts import read_counts
from revector.core.shadow import AsyncMirror, start
from tests.core.retrieval.collections import flip, two_versions
from tests.encoders import Stub
from tests.faults.watch import wait_until
from tests.versions import NUMBERS

TEXTS = NUMBERS[:12]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (ROLLBACK_VARIABLE, "REVECTOR_DSN", "DATABASE_URL", "REVECTOR_SCHEMA", "PGHOST", "PGDATABASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def searched(database: Database, connection: Connection) -> Database:
    two_versions(database, connection, NUMBERS)
    return database


def test_the_environment_names_the_database(searched: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="names no database"):
        Database.from_env()
    monkeypatch.setenv("REVECTOR_DSN", searched.dsn)
    assert Database.from_env() == Database(searched.dsn)
    assert Database.from_env().schema == "revector"
    monkeypatch.setenv("REVECTOR_SCHEMA", "other")
    assert Database.from_env().schema == "other"
    with Retriever(Database.from_env(searched.schema)) as retriever:
        assert retriever.search("seven").hits[0].content == "seven"


class Slow(EncoderCache):
    """Opens an encoder when it may."""

    def __init__(self) -> None:
        super().__init__(self._open_late)
        self.may = threading.Event()

    def _open_late(self, spec: str) -> Encoder:
        self.may.wait()
        return open_encoder(spec)


def test_a_search_does_not_wait_longer_because_a_model_is_being_opened(
    searched: Database, connection: Connection
) -> None:
    encoders = Slow()
    try:
        with Retriever(searched, encoders=encoders) as retriever:
            wait_until("the version is known", lambda: retriever.version)
            for wait in (lambda: retriever.search("seven", timeout_s=0.1), lambda: retriever.ready(5)):
                with pytest.raises(
                    NotReadyError, match=r"The encoder of v1 .*not ready within [\d.]+ s"
                ) as caught:
                    wait()
                assert isinstance(caught.value, BusyError)
            encoders.may.set()
            assert retriever.ready(60).version_key == "v1"
            assert retriever.search("seven", timeout_s=60).hits[0].content == "seven"
        since = get_version(connection, "v1").created_at
        # That a process has only begun says nothing of its version: a watch would roll back.
        assert read_counts(connection, get_version(connection, "v1").id, since).error_rate == 0
    finally:
        encoders.may.set()


async def test_the_asynchronous_one_does_neither(searched: Database) -> None:
    encoders = Slow()
    try:
        async with AsyncRetriever(searched, encoders=encoders) as retriever:
            with pytest.raises(NotReadyError):
                await retriever.ready(5)
            encoders.may.set()
            assert (await retriever.ready(60)).version_key == "v1"
            assert (await retriever.search("seven", timeout_s=60)).hits[0].content == "seven"
    finally:
        encoders.may.set()


def test_many_queries_are_answered_in_their_order(searched: Database) -> None:
    with Retriever(searched, pool_size=3) as retriever:
        found = retriever.search_many(TEXTS * 5, 2, where={})
        assert [result.hits[0].content for result in found] == TEXTS * 5
        assert {len(result.hits) for result in found} == {2}
        assert retriever.search_many([]) == []
        with pytest.raises(UsageError, match="empty"):
            retriever.search_many(["one", " ", "two"])
        for wrong in ("one", b"one", None, 7):
            with pytest.raises(
                UsageError, match=f"The queries are {type(wrong).__name__}; expected a list of texts"
            ):
                retriever.search_many(wrong)
        assert [result.query for result in retriever.search_many(iter(["one", "two"]))] == ["one", "two"]
        assert retriever.search("one").hits[0].content == "one"


async def test_many_queries_at_once_on_a_loop(searched: Database) -> None:
    async with AsyncRetriever(searched, pool_size=3) as retriever:
        found = await retriever.search_many(TEXTS * 5, 2)
        assert [result.hits[0].content for result in found] == TEXTS * 5
        with pytest.raises(UsageError, match="empty"):
            await retriever.search_many(["one", " ", "two"])
        with pytest.raises(UsageError, match="expected a list of texts"):
            await retriever.search_many("one")
        assert [result.query for result in await retriever.search_many(iter(["one", "two"]))] == ["one", "two"]


def test_a_hit_says_where_it_comes_from(searched: Database, connection: Connection) -> None:
    connection.execute("""UPDATE document_chunks SET metadata = '{"kind": "number"}' WHERE content = 'seven'""")
    with Retriever(searched) as retriever:
        plain = retriever.search("seven", 3).hits[0]
        assert plain.metadata == {"kind": "number"}
        assert (plain.score, plain.vector_rank, plain.text_rank) == (None, None, None)
        hits = retriever.search("seven", 16, hybrid=True).hits
    assert (hits[0].content, hits[0].vector_rank, hits[0].text_rank) == ("seven", 1, 1)
    assert hits[0].metadata == {"kind": "number"}
    for hit in hits:
        ranks = [rank for rank in (hit.vector_rank, hit.text_rank) if rank is not None]
        assert hit.score == pytest.approx(sum(1 / (60 + rank) for rank in ranks))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)  # type: ignore[type-var]


def test_errors_are_told_apart(
    searched: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector = open_encoder("static:wordllama-64").encode_query("seven")
    away = Database("postgresql://nobody@127.0.0.1:1/nothing", "revector")
    with Retriever(away) as retriever, pytest.raises(DatabaseUnreachableError):
        retriever.search("seven")
    with Retriever(searched, pool_size=1) as retriever:
        with pytest.raises(NotFoundError, match="'v9'"):
            retriever.search_vector(vector, "v9")
        with retriever._places, pytest.raises(BusyError, match="No connection was free"):
            retriever.search("seven", timeout_s=0.1)
    broken = Stub(error=None)
    monkeypatch.setattr(broken, "encode_query", _refuse)
    with Retriever(searched, encoders=EncoderCache(lambda _spec: broken)) as retriever:
        with pytest.raises(EncoderUnreachableError, match="answered 500") as caught:
            retriever.search("seven")
        assert isinstance(caught.value, EncoderError)
        assert isinstance(caught.value, UnreachableError)
        assert (caught.value.kind, caught.value.exit_status) == ("unreachable", 4)
    with Retriever(searched, pinned="gone") as retriever, pytest.raises(PinnedVersionError) as gone:
        retriever.search("seven")
    assert ROLLBACK_VARIABLE in gone.value.problem
    assert "version gone" in gone.value.problem
    flip(connection, "v2")
    for name in ("BusyError", "EncoderUnreachableError", "NotFoundError", "PinnedVersionError", "ClosedError"):
        assert issubclass(getattr(revector, name), revector.RevectorError)


def _refuse(_text: str) -> None:
    raise UnreachableError("The provider answered 500.", temporary=True)


async def test_a_closed_one_says_so(searched: Database) -> None:
    retriever = Retriever(searched)
    assert retriever.search("seven").hits
    retriever.close()
    async with AsyncRetriever(searched) as other:
        assert (await other.search("seven")).hits
    for problem in (lambda: retriever.search("seven"), retriever.ready, lambda: retriever.search_many(["a"])):
        with pytest.raises(ClosedError, match=r"^This retriever is closed\.$"):
            problem()
    with pytest.raises(ClosedError, match=r"^This retriever is closed\.$"):
        await other.search("seven")
    assert issubclass(ClosedError, RefusedError)


def test_closing_ends_a_search_that_waits(searched: Database) -> None:
    retriever = Retriever(searched, pool_size=1)
    retriever.search("seven")
    raised: list[BaseException] = []

    def search() -> None:
        try:
            retriever.search("seven", timeout_s=60)
        except ClosedError as error:
            raised.append(error)

    taken = retriever._pool.getconn()
    waiting = threading.Thread(target=search)
    waiting.start()
    while not retriever._pool.get_stats().get("requests_waiting"):
        threading.Event().wait(0.001)
    retriever.close()
    waiting.join(60)
    taken.close()
    assert len(raised) == 1


async def test_a_mirror_for_asyncio(searched: Database, connection: Connection) -> None:
    start(connection, "v2", sample=1, query_text="stored")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async with AsyncMirror(searched) as mirror, AsyncRetriever(searched, mirror=mirror) as retriever:
        assert await mirror.wait(60)
        assert mirror.run is not None
        assert mirror.run.candidate == "v2"
        await retriever.search("seven")
        before = ticks
        ticking = asyncio.ensure_future(tick())
        assert await mirror.flush(60)
        ticking.cancel()
        assert ticks > before + 10, "the loop went on"
        assert mirror.trouble == ""
    assert connection.execute("SELECT query FROM shadow_queries").fetchall() == [("seven",)]


AWAY = """
import contextlib
from revector import Database, Retriever, UnreachableError

with Retriever(Database("postgresql://nobody@127.0.0.1:1/nothing")) as retriever:
    for _ in range(3):
        with contextlib.suppress(UnreachableError):
            retriever.search("seven")
"""


def test_nothing_is_printed_unasked() -> None:
    done = subprocess.run([sys.executable, "-c", AWAY], capture_output=True, text=True, timeout=120, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_the_pools_of_others_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    import revector.core.retrieval.pools  # noqa: F401

    pool = logging.getLogger("psycopg.pool")
    with caplog.at_level(logging.DEBUG):
        pool.warning("error connecting in %r: %s", "pool-1", "refused")
        pool.warning("error connecting in %r: %s", "revector retriever", "refused")
    assert [(one.name, one.levelname) for one in caplog.records] == [
        ("psycopg.pool", "WARNING"),
        ("revector.core.retrieval.pools", "DEBUG"),
    ]
