"""A retriever whose database goes away: searches fail fast and clearly, and recover by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from revector.core.database import Database
from revector.core.errors import UnreachableError
from revector.core.retrieval import AsyncRetriever, Retriever
from tests.core.retrieval.collections import flip, two_versions
from tests.faults.proxy import Proxy
from tests.faults.servers import FaultyServer
from tests.faults.watch import wait_until
from tests.versions import NUMBERS

PATIENCE_S = 30.0
"""Of searches that are to succeed: a guard, on a machine that is busy."""


@pytest.fixture
def collection(target: Database) -> Database:
    with target.session("test") as connection:
        two_versions(target, connection, NUMBERS)
    return target


@pytest.fixture
def retriever(collection: Database, through_proxy: Database) -> Iterator[Retriever]:
    with Retriever(through_proxy, poll_s=0.2, pool_size=4) as retriever:
        assert found(retriever) == "v1"
        yield retriever


def found(retriever: Retriever) -> str:
    result = retriever.search("seven", timeout_s=PATIENCE_S)
    assert result.hits[0].content == "seven"
    assert result.hits[0].distance == pytest.approx(0, abs=1e-5)
    return result.version_key


def answers(retriever: Retriever) -> str | None:
    try:
        return found(retriever)
    except UnreachableError:
        return None


def test_connections_that_were_cut_are_made_anew_within_the_search(retriever: Retriever, proxy: Proxy) -> None:
    for _ in range(3):
        proxy.cut_all()
        assert found(retriever) == "v1"


def test_a_database_that_is_away_is_an_error_at_once_and_back_when_it_is(
    retriever: Retriever, proxy: Proxy, collection: Database
) -> None:
    proxy.refuse()
    proxy.cut_all()
    for _ in range(5):
        with pytest.raises(UnreachableError, match="Cannot reach the database"):
            retriever.search("seven", timeout_s=600)  # not after ten minutes: a caller gets the reason at once
    assert retriever.version is not None
    with collection.session("test") as connection:
        flip(connection, "v2")
    proxy.accept()
    wait_until("it answers", lambda: answers(retriever))
    assert found(retriever) == "v2"
    wait_until("the pointer follows again", lambda: retriever.version and retriever.version.version_key == "v2")


def test_a_network_that_swallows_everything_is_given_up_on(retriever: Retriever, proxy: Proxy) -> None:
    proxy.freeze()
    with pytest.raises(UnreachableError, match="did not answer within 1 s"):
        retriever.search("seven", timeout_s=1)
    proxy.thaw()
    wait_until("it answers", lambda: answers(retriever))


def test_a_server_that_is_killed_and_started_again(collection: Database, faulty: FaultyServer) -> None:
    with Retriever(collection, poll_s=0.2) as retriever:
        assert found(retriever) == "v1"
        faulty.stop_immediately()
        with pytest.raises(UnreachableError):
            retriever.search("seven")
        faulty.restart()
        wait_until("it answers", lambda: answers(retriever))


def test_a_retriever_that_was_made_while_the_database_was_away(
    collection: Database, through_proxy: Database, proxy: Proxy
) -> None:
    proxy.refuse()
    with Retriever(through_proxy) as retriever:
        assert answers(retriever) is None
        proxy.accept()
        wait_until("it answers", lambda: answers(retriever))


async def test_the_asynchronous_one(collection: Database, through_proxy: Database, proxy: Proxy) -> None:
    async with AsyncRetriever(through_proxy, poll_s=0.2, pool_size=4) as retriever:

        async def answered() -> bool:
            try:
                return (await retriever.search("seven", timeout_s=PATIENCE_S)).hits[0].content == "seven"
            except UnreachableError:
                return False

        assert all(await asyncio.gather(*(answered() for _ in range(8))))
        proxy.cut_all()
        assert all(await asyncio.gather(*(answered() for _ in range(8))))
        proxy.refuse()
        proxy.cut_all()
        with pytest.raises(UnreachableError, match="Cannot reach the database"):
            await retriever.search("seven", timeout_s=600)
        proxy.accept()
        while not await answered():
            await asyncio.sleep(0.01)
        proxy.freeze()
        with pytest.raises(UnreachableError, match="did not answer within 1 s"):
            await retriever.search("seven", timeout_s=1)
        proxy.thaw()
        while not await answered():
            await asyncio.sleep(0.01)
