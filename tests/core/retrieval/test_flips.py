"""Encoder and table are of one version, always: searches by three ways in while versions flip under them."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable

import pytest
from pgvector import Vector

from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from revector.core.retrieval import AsyncRetriever, EncoderCache, Retriever, SearchResult
from tests.core.retrieval.collections import FIRST, SECOND, flip, two_versions
from tests.faults.numbers import LONG
from tests.versions import NUMBERS

FLIPS = 1_000 if LONG else 60
TEXTS = [f"{a} and {b}" for a in NUMBERS[:8] for b in NUMBERS[:8] if a < b]


class Client(threading.Thread):
    """Searches until the end, and keeps the first thing that is wrong."""

    def __init__(self, search: Callable[[str], tuple[str, str, float]], over: threading.Event) -> None:
        super().__init__(daemon=True)
        self._search, self._over = search, over
        self.answers: list[str] = []
        self.wrong: object = None
        self.start()

    def run(self) -> None:
        try:
            for text in itertools.cycle(TEXTS):
                if self._over.is_set():
                    return
                key, content, distance = self._search(text)
                self.answers.append(key)
                if content != text or abs(distance) > 1e-5:
                    self.wrong = (text, key, content, distance)
                    return
        except Exception as error:  # noqa: BLE001
            self.wrong = error


def first_of(result: SearchResult) -> tuple[str, str, float]:
    assert result.active  # when it was searched
    return result.version_key, result.hits[0].content, result.hits[0].distance


def test_no_answer_is_of_another_version_than_its_query_was_encoded_for(
    database: Database, connection: Connection
) -> None:
    two_versions(database, connection, TEXTS)
    over = threading.Event()
    encoders = {"v1": open_encoder(FIRST), "v2": open_encoder(SECOND)}
    moved: list[str] = []

    def by_sql(session: Connection) -> Callable[[str], tuple[str, str, float]]:
        def search(text: str) -> tuple[str, str, float]:
            while True:
                (key,) = session.execute("SELECT version_key FROM active_version()").fetchone()  # type: ignore[misc]
                vector = Vector(encoders[key].encode_query(text)).to_text()
                rows = session.execute(
                    "SELECT version_key, content, distance, active FROM search_chunks(%s::vector, 3, %s)",
                    [vector, key],
                ).fetchall()
                assert {row[0] for row in rows} == {key}
                if rows[0][3]:
                    return rows[0][:3]
                moved.append(key)

        return search

    def by_vector(retriever: Retriever) -> Callable[[str], tuple[str, str, float]]:
        def search(text: str) -> tuple[str, str, float]:
            for key in itertools.cycle(encoders):  # pragma: no branch
                result = retriever.search_vector(encoders[key].encode_query(text), key, 3)
                if result.active:
                    return first_of(result)
            raise AssertionError

        return search

    def one_active(session: Connection) -> Callable[[str], tuple[str, str, float]]:
        def look(text: str) -> tuple[str, str, float]:
            rows = session.execute("SELECT version_key FROM embedding_versions WHERE active").fetchall()
            assert len(rows) == 1
            return rows[0][0], text, 0.0

        return look

    with (
        Retriever(database, cache_size=0) as uncached,
        Retriever(database) as cached,
        database.session("test") as session,
        database.session("test") as other,
    ):
        clients = [
            *(Client(lambda text: first_of(uncached.search(text, 3)), over) for _ in range(3)),
            *(Client(lambda text: first_of(cached.search(text, 3)), over) for _ in range(2)),
            Client(by_vector(cached), over),
            Client(by_sql(session), over),
            Client(one_active(other), over),
        ]
        for number in range(FLIPS):
            flip(connection, "v1" if number % 2 else "v2")
            before = [len(client.answers) for client in clients]
            # Some more searches by each, so that every one of them meets every flip.
            while any(
                len(client.answers) < count + 2 and client.is_alive()
                for client, count in zip(clients, before, strict=True)
            ):
                over.wait(0.001)
        over.set()
        for client in clients:
            client.join()
        assert [client.wrong for client in clients] == [None] * len(clients)
        for client in clients:
            assert set(client.answers) == {"v1", "v2"}


async def test_tasks_move_with_the_flip(database: Database, connection: Connection) -> None:
    two_versions(database, connection, TEXTS)
    over = asyncio.Event()
    answers: list[list[str]] = [[] for _ in range(6)]

    async with AsyncRetriever(database, pool_size=4, cache_size=8) as retriever:

        async def client(number: int) -> None:
            for text in itertools.cycle(TEXTS[number:] + TEXTS[:number]):
                if over.is_set():
                    return
                key, content, distance = first_of(await retriever.search(text, 3))
                assert content == text
                assert abs(distance) < 1e-5
                answers[number].append(key)

        tasks = [asyncio.create_task(client(number)) for number in range(len(answers))]
        for number in range(FLIPS // 3):
            await asyncio.to_thread(flip, connection, "v1" if number % 2 else "v2")
            before = [len(given) for given in answers]
            while any(len(given) < count + 2 for given, count in zip(answers, before, strict=True)):
                await asyncio.sleep(0.001)
                assert not any(task.done() for task in tasks), [task.exception() for task in tasks if task.done()]
        over.set()
        await asyncio.gather(*tasks)
    assert all(set(given) == {"v1", "v2"} for given in answers)


def test_a_flip_between_encoding_and_searching_searches_again(database: Database, connection: Connection) -> None:
    """Whatever the process believes: here it believes in v1 until its search says otherwise."""
    two_versions(database, connection, TEXTS)
    asked: list[str] = []

    class Flipping(EncoderCache):
        def opened(self, version):  # type: ignore[no-untyped-def]
            asked.append(version.version_key)
            if len(asked) == 3:
                flip(connection, "v2")
            return super().opened(version)

    with Retriever(database, poll_s=600) as retriever:
        retriever._searches._encoders = Flipping()
        assert retriever.search(TEXTS[0]).version_key == "v1"
        assert retriever.search(TEXTS[1]).version_key == "v1"
        result = retriever.search(TEXTS[2], 3)
        assert asked == ["v1", "v1", "v1", "v2"]
        assert first_of(result)[:2] == ("v2", TEXTS[2])
        assert result.hits[0].distance == pytest.approx(0, abs=1e-5)
