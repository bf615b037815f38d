"""Mistakes of callers and of encoders: told apart, and only those of encoders count against the version."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from revector.core.database import Connection, Database
from revector.core.encoders.base import Encoder
from revector.core.errors import (
    BusyError,
    DatabaseUnreachableError,
    EncoderError,
    EncoderUnreachableError,
    NotFoundError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from revector.core.registry import get_version
from revector.core.retrieval import ROLLBACK_VARIABLE, AsyncRetriever, EncoderCache, Retriever, VersionSearcher
from revector.core.retrieval.connections import late
from tests.core.retrieval.collections import drawn_version, flip, two_versions
from tests.encoders import Stub
from tests.versions import NUMBERS, add_chunks

WRONG_FILTER = {"kind": {"$about": 1}}
DEEP: dict[str, object] = functools.reduce(lambda inner, _: {"a": inner}, range(21), {"a": 1})
ONES = np.ones(64, np.float32)


@pytest.fixture(autouse=True)
def _unpinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROLLBACK_VARIABLE, raising=False)


@pytest.fixture
def searched(database: Database, connection: Connection) -> Database:
    two_versions(database, connection, NUMBERS[:4])
    return database


def counted(connection: Connection) -> tuple[int, int]:
    """All searches that were counted, and the errors among them."""
    rows = connection.execute("SELECT searches, errors FROM search_counts").fetchall()
    return sum(row[0] for row in rows), sum(row[1] for row in rows)


Call = tuple[str, tuple[Any, ...], dict[str, Any]]
MISTAKES: list[tuple[type[Exception], str, Call]] = [
    (UsageError, "no comparison", ("search", ("x",), {"where": WRONG_FILTER})),
    (UsageError, "20 deep", ("search", ("x",), {"where": DEEP})),
    (UsageError, "no comparison", ("search_vector", (ONES, "v1"), {"where": WRONG_FILTER})),
    (UsageError, "expected 0.01 to 86,400", ("search", ("x",), {"timeout_s": 1e9})),
    (UsageError, "expected 0.01 to 86,400", ("search", ("x",), {"timeout_s": 1e-9})),
    (UsageError, "expected 0.01 to 86,400", ("search", ("x",), {"timeout_s": float("inf")})),
    (UsageError, "expected 0.01 to 86,400", ("search", ("x",), {"timeout_s": float("nan")})),
    (UsageError, "expected 0.01 to 86,400", ("search_vector", (ONES, "v1"), {"timeout_s": "1"})),
    (UsageError, "k is True", ("search", ("x", True), {})),
    (UsageError, "k is '3'", ("search", ("x", "3"), {})),
    (UsageError, "k is 1.5", ("search_vector", (ONES, "v1", 1.5), {})),
    (UsageError, "ef_search is '1'", ("search", ("x",), {"ef_search": "1"})),
    (UsageError, "rerank is 3", ("search", ("x",), {"rerank": 3})),
    (UnreachableError, "no model '/nowhere'", ("search", ("x",), {"rerank": "cross-encoder:/nowhere"})),
    (UsageError, "query is NoneType", ("search", (None,), {})),
    (UsageError, "query is bytes", ("search", (b"x",), {})),
    (NotFoundError, r"'\\ud800'", ("search_vector", (ONES, "\ud800"), {})),
    (NotFoundError, "no embedding version ''", ("search_vector", (ONES, ""), {})),
    (NotFoundError, "no embedding version 3", ("search_vector", (ONES, 3), {})),
    (UsageError, "type object", ("search_vector", (ONES.astype(object), "v1"), {})),
    (UsageError, "type complex64", ("search_vector", (ONES.astype(np.complex64), "v1"), {})),
    (UsageError, "type <U1", ("search_vector", (["1"] * 64, "v1"), {})),
    (UsageError, "different lengths", ("search_vector", ([[1.0], [1.0, 2.0]], "v1"), {})),
    (UsageError, r"shape \(1, 64\)", ("search_vector", (ONES[None], "v1"), {})),
    (RefusedError, "5 dimensions, not the 64", ("search_vector", (ONES[:5], "v1"), {})),
    (RefusedError, "non-finite", ("search_vector", (np.full(64, 1e300), "v1"), {})),
    (RefusedError, "non-finite", ("search_vector", (ONES * np.float32("nan"), "v1"), {})),
    (RefusedError, "is zero", ("search_vector", (ONES * 0, "v1"), {})),
]


def test_the_mistakes_of_callers_are_named_and_not_counted(searched: Database, connection: Connection) -> None:
    with Retriever(searched) as retriever:
        retriever.search("one")
        for kind, words, (name, given, options) in MISTAKES:
            with pytest.raises(kind, match=words):
                getattr(retriever, name)(*given, **options)
        assert retriever.search_vector([1.0] * 64, "v1", np.int64(2), timeout_s=60).hits
    assert counted(connection) == (2, 0)


async def test_neither_does_the_asynchronous_one(searched: Database, connection: Connection) -> None:
    async with AsyncRetriever(searched) as retriever:
        await retriever.search("one")
        for kind, words, (name, given, options) in MISTAKES:
            with pytest.raises(kind, match=words):
                await getattr(retriever, name)(*given, **options)
    assert counted(connection) == (1, 0)


class Answering(Stub):
    """Answers queries with this."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def encode_query(self, _text: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


WRONG_ANSWERS: list[tuple[object, str]] = [
    (ONES * 0, "is zero"),
    (ONES * np.float32(1e-30), "too long or too short for cosine"),
    (ONES * np.float32(1e-21), "too long or too short for cosine"),
    (ONES * np.float32(1e30), "too long or too short for cosine"),
    (ONES * np.float32("nan"), "non-finite"),
    ([1e300] * 64, "non-finite"),
    (ONES[:5], "5 dimensions, not the 64"),
    (ONES[None], r"ndarray of shape \(1, 64\)"),
    (None, "NoneType"),
    (RecursionError("too deep"), "failed with RecursionError: too deep"),
    (UsageError("It has no server."), "It has no server"),
]


@pytest.mark.parametrize(("answer", "words"), WRONG_ANSWERS, ids=str)
async def test_what_an_encoder_answers_in_place_of_a_vector_counts(
    searched: Database, connection: Connection, answer: object, words: str
) -> None:
    wrong = Answering(answer)
    encoders = EncoderCache(lambda _spec: wrong)
    with Retriever(searched, encoders=encoders) as retriever:
        with pytest.raises(EncoderError, match=words):
            retriever.search("one")
        wrong.answer = ONES
        assert retriever.search("one").hits[0].distance is not None, "not cached"
    assert counted(connection) == (2, 1)
    wrong.answer = answer
    async with AsyncRetriever(searched, encoders=encoders) as other:
        with pytest.raises(EncoderError, match=words):
            await other.search("one")
    assert counted(connection) == (3, 2)


def test_commands_refuse_such_an_answer_too(searched: Database, connection: Connection) -> None:
    searcher = VersionSearcher(connection, EncoderCache(lambda _spec: Answering(ONES * 0)))
    with pytest.raises(EncoderError, match="The encoder of v1 answered with a vector that is zero"):
        searcher.search("one")


def test_an_encoder_that_cannot_be_opened_counts(searched: Database, connection: Connection) -> None:
    def missing(_spec: str) -> Encoder:
        raise NotFoundError("There is no model 'm' here.")

    with Retriever(searched, encoders=EncoderCache(missing)) as retriever:
        for _ in range(3):
            with pytest.raises(EncoderUnreachableError, match="no model 'm'"):
                retriever.search("one")
    assert counted(connection) == (3, 3)


@pytest.mark.parametrize(
    ("metric", "storage", "value", "words"),
    [
        ("cosine", "halfvec", 1e-9, "is zero in halfvec"),
        ("cosine", "halfvec", 1e5, "non-finite number in halfvec"),
        ("l2", "vector", 0.0, "is zero"),
        ("l2", "vector", 1e-30, ""),
        ("ip", "vector", 1e-30, ""),
    ],
)
def test_a_vector_is_judged_as_it_is_compared(
    database: Database, connection: Connection, metric: str, storage: str, value: float, words: str
) -> None:
    add_chunks(connection, NUMBERS[:3])
    vectors = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    version = drawn_version(connection, "drawn", vectors, metric=metric, storage=storage)
    flip(connection, version.version_key)
    asked = np.full(8, value, np.float32)

    def search(retriever: Retriever) -> Callable[[], object]:
        return lambda: retriever.search_vector(asked, "drawn")

    with Retriever(database) as retriever:
        if words:
            with pytest.raises(RefusedError, match=words):
                search(retriever)()
        else:
            hits = retriever.search_vector(asked, "drawn").hits
            assert len(hits) == 3
            assert all(np.isfinite(hit.distance) for hit in hits if hit.distance is not None)
    assert get_version(connection, "drawn").distance_metric == metric


def test_a_database_is_not_blamed_for_the_time_that_encoding_took() -> None:
    for left_s in (None, 5, 2.5):
        assert late("The database x", 5, left_s=left_s).problem == "The database x did not answer within 5 s."
    for left_s, passed in ((0.8, "4.2"), (-0.1, "5")):
        assert late("The database x", 5, left_s=left_s).problem == (
            f"The database x did not answer in time, but {passed} of 5 s had passed before it was asked: "
            "the query was encoded first."
        )


@pytest.mark.slow
def test_a_short_wait_for_a_connection_does_not_prove_that_the_database_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        database = Database(f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/nothing")
        with Retriever(database) as retriever:
            with pytest.raises(BusyError, match=r"did not answer within 0\.05 s"):
                retriever.search("one", timeout_s=0.05)
            with pytest.raises(DatabaseUnreachableError, match=r"did not answer within 1\.5 s"):
                retriever.search("one", timeout_s=1.5)
