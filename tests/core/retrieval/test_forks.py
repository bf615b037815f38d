"""Retrievers and mirrors in a forked child: it opens its own connections, and the parent keeps its own."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading
from multiprocessing import Pipe

import numpy as np
import pytest

from revector.core import forks
from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from revector.core.encoders.base import Encoder
from revector.core.registry import get_version
from revector.core.retrieval import ROLLBACK_VARIABLE, AsyncRetriever, EncoderCache, Retriever
from revector.core.shadow import Mirror, start
from tests.core.encoders.test_sentence_transformers import MINILM
from tests.core.retrieval.collections import FIRST, flip, two_versions
from tests.encoders import Stub
from tests.faults.watch import wait_until
from tests.forks import forked
from tests.versions import NUMBERS, add_chunks, ready_version

TEXTS = [f"{a} and {b}" for a, b in itertools.combinations(NUMBERS, 2)]
"""A static encoder knows no order of words, so no two have the same."""


@pytest.fixture(autouse=True)
def _unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROLLBACK_VARIABLE, raising=False)


@pytest.fixture
def searched(database: Database, connection: Connection) -> Database:
    two_versions(database, connection, TEXTS)
    return database


def wrong_answers(retriever: Retriever, texts: list[str]) -> list[str]:
    """What searches for texts of the collection found instead of each."""
    found = [(text, retriever.search(text, 3).hits[0].content) for text in texts]
    return [f"{text}: {first}" for text, first in found if first != text]


def sessions(connection: Connection) -> int:
    return connection.execute(  # type: ignore[index, no-any-return]
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    ).fetchone()[0]


def test_parent_and_child_search_at_once(searched: Database) -> None:
    with Retriever(searched) as retriever:
        assert not wrong_answers(retriever, TEXTS[:3])
        with forked(lambda: wrong_answers(retriever, TEXTS * 4)) as child:
            assert not wrong_answers(retriever, TEXTS[::-1] * 4)
            assert not child()
        assert not wrong_answers(retriever, TEXTS[:3])


def test_a_child_forks_too(searched: Database) -> None:
    with Retriever(searched) as retriever:
        retriever.search("one")

        def and_its_child() -> list[str]:
            before = wrong_answers(retriever, TEXTS[:3])
            with forked(lambda: wrong_answers(retriever, TEXTS)) as child:
                return before + wrong_answers(retriever, TEXTS[::-1]) + child()

        with forked(and_its_child) as child:
            assert not child()


UNTOLD = """
import os
os.register_at_fork, register = lambda **hooks: None, os.register_at_fork
from revector.core import forks
os.register_at_fork = register
from revector import Database, Retriever

with Retriever(Database(DSN, SCHEMA)) as retriever:
    texts = TEXTS
    retriever.search("one")
    child = os.fork()
    wrong = [text for text in texts if retriever.search(text, 3).hits[0].content != text]
    print(len(wrong), flush=True)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_a_fork_that_nobody_was_told_of_is_noticed_by_the_next_search(searched: Database) -> None:
    """Some servers fork in C, and tell Python nothing."""
    script = UNTOLD
    for name, value in (("DSN", searched.dsn), ("SCHEMA", searched.schema), ("= TEXTS", TEXTS)):
        script = script.replace(name, f"= {value!r}" if name == "= TEXTS" else repr(value))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["0", "0"]


async def test_the_asynchronous_one(searched: Database) -> None:
    async def wrong(retriever: AsyncRetriever, texts: list[str]) -> list[str]:
        found = await asyncio.gather(*(retriever.search(text, 3) for text in texts))
        return [text for text, result in zip(texts, found, strict=True) if result.hits[0].content != text]

    async with AsyncRetriever(searched, timeout_s=60) as retriever:
        assert not await wrong(retriever, TEXTS[:3])
        with forked(lambda: asyncio.run(wrong(retriever, TEXTS))) as child:
            assert not await wrong(retriever, TEXTS[::-1])
            assert not await asyncio.to_thread(child)
        assert not await wrong(retriever, TEXTS[:3])


def test_a_child_that_closes_leaves_the_parent_its_connections(searched: Database, connection: Connection) -> None:
    with Mirror(searched) as mirror, Retriever(searched, mirror=mirror) as retriever:
        retriever.search("one")
        wait_until("the mirror is connected", lambda: sessions(connection) >= 3)
        before = sessions(connection)

        def close() -> int:
            retriever.close()
            mirror.close()
            return os.getpid()

        with forked(close) as child:
            assert child() != os.getpid()
        assert sessions(connection) == before
        assert not wrong_answers(retriever, TEXTS[:3])


def test_a_child_does_not_keep_the_parents_sessions_open(searched: Database, connection: Connection) -> None:
    """A process that was killed would otherwise seem to be serving as long as a child of it lives."""
    ours, theirs = Pipe()
    parent = os.fork()
    if parent == 0:
        with Retriever(searched) as retriever:
            retriever.search("one")
            child = os.fork()
            if child == 0:
                threading.Event().wait(300)
            theirs.send(child)
            os.kill(os.getpid(), signal.SIGKILL)
    child = ours.recv()
    try:
        os.waitpid(parent, 0)
        wait_until("its sessions end", lambda: sessions(connection) == 0)
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_locks_that_the_parent_holds_do_not_stop_a_child(searched: Database) -> None:
    encoders = EncoderCache()
    with Retriever(searched, encoders=encoders) as retriever:
        retriever.search("one")
        with (
            encoders._lock,
            retriever._searches._cache._lock,
            retriever._beginning,
            forked(lambda: wrong_answers(retriever, TEXTS[:3])) as child,
        ):
            assert not child()


def test_a_fork_waits_for_a_model_that_is_being_opened(searched: Database, connection: Connection) -> None:
    """A child could never import what a thread was importing at the fork."""
    asked, may = threading.Event(), threading.Event()

    def open_late(spec: str) -> Encoder:
        asked.set()
        may.wait()
        return open_encoder(spec)

    encoders = EncoderCache(open_late)
    version = get_version(connection, "v1")
    opening = encoders.opening(version)
    assert asked.wait(60)
    later = threading.Timer(0.3, may.set)
    later.start()
    with forked(lambda: encoders.opened(version) is not None) as child:
        assert child()
    assert opening.result(60).dimensions == 64


def test_clients_are_opened_again_and_models_kept(searched: Database, connection: Connection) -> None:
    opened: list[str] = []

    class Client(Stub):
        runs_here = False

    def opener(spec: str) -> Encoder:
        opened.append(spec)
        return open_encoder(spec) if spec == FIRST else Client(value=1)

    encoders = EncoderCache(opener)
    with Retriever(searched, encoders=encoders) as retriever:
        wait_until("both are open", lambda: len(opened) == 2)

        def in_child() -> list[str]:
            opened.clear()
            assert retriever.search("one").version_key == "v1"
            assert FIRST not in opened
            with searched.connect("test") as own:
                flip(own, "v2")
            assert retriever.search("one").version_key == "v2"
            return opened

        with forked(in_child) as child:
            assert len(child()) == 1
    assert connection.execute("SELECT version_key FROM embedding_versions WHERE active").fetchone() == ("v2",)


def test_a_model_of_torch_answers_in_a_child(database: Database, connection: Connection) -> None:
    """Torch's threads stay in the parent: a child that computes with more than one would wait for ever."""
    add_chunks(connection, NUMBERS)
    ready_version(database, connection, "v1", MINILM)
    flip(connection, "v1")
    long = "how many numbers are there " * 50
    with Retriever(database, cache_size=0) as retriever:
        before = retriever.search(long, timeout_s=60).hits[0]
        with forked(lambda: (signal.alarm(60), retriever.search(long, timeout_s=60).hits[0])[1]) as child:
            after = child()
    assert after.chunk_id == before.chunk_id
    assert np.isclose(after.distance, before.distance, atol=1e-4)


def test_counts_of_parent_and_child_add_up(searched: Database, connection: Connection) -> None:
    with Retriever(searched) as retriever:
        for _ in range(3):
            retriever.search("one")

        def search_and_close() -> None:
            retriever.search("two")
            retriever.close()

        with forked(search_and_close) as child:
            child()
    counts = connection.execute(
        "SELECT sum(searches)::int FROM search_counts GROUP BY process ORDER BY 1"
    ).fetchall()
    assert counts == [(1,), (3,)]


def test_a_mirror_follows_in_the_child(searched: Database, connection: Connection) -> None:
    start(connection, "v2", sample=1, query_text="stored")
    with Mirror(searched) as mirror, Retriever(searched, mirror=mirror) as retriever:
        assert mirror.wait(60)
        retriever.search("one")

        def mirrored() -> bool:
            assert mirror.run is None
            assert mirror.wait(60)
            retriever.search("two")
            written = mirror.flush(60)
            mirror.close()
            return written

        with forked(mirrored) as child:
            assert child()
        retriever.search("three")
        assert mirror.flush(60)
    rows = connection.execute("SELECT query FROM shadow_queries ORDER BY 1").fetchall()
    assert rows == [("one",), ("three",), ("two",)]
    processes = connection.execute("SELECT count(DISTINCT process) FROM shadow_counts").fetchone()
    assert processes == (2,)


def test_what_is_closed_stays_closed_in_a_child(searched: Database) -> None:
    retriever = Retriever(searched)
    retriever.close()
    retriever.close()
    told: list[str] = []

    class Other:
        def forked(self) -> None:
            told.append("forked")

    other = Other()
    forks.tell(other)

    def in_child() -> tuple[str, list[str]]:
        with pytest.raises(Exception, match="closed") as caught:
            retriever.search("one")
        return str(caught.value), told

    with forked(in_child) as child:
        assert child() == ("This retriever is closed.", ["forked"])
    assert not told
