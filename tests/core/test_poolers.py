"""Behind pgbouncer: what works there, what is left in the server's sessions, and what says that it needs one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from revector.core.cutover import check, rollback, run
from revector.core.database import Connection, Database
from revector.core.errors import UnreachableError
from revector.core.retrieval import AsyncRetriever, Retriever
from revector.core.shadow import Mirror, report, start
from tests.core.backfill.steps import eventually
from tests.pooler import left_behind, pgbouncer
from tests.versions import NUMBERS

TEXTS = [f"{a} and {b}" for a, b in itertools.combinations(NUMBERS, 2)]
WAYS = ({}, {"hybrid": True}, {"where": {"a": 1}}, {"ef_search": 20}, {"k": 3})


@pytest.fixture(params=["transaction", "session"])
def mode(request: pytest.FixtureRequest) -> str:
    """The pool mode."""
    return str(request.param)


@pytest.fixture
def pooled(database: Database, mode: str) -> Iterator[Database]:
    """The collection behind pgbouncer."""
    with pgbouncer(database, mode, sessions=12 if mode == "session" else 4) as found:
        yield found


@pytest.mark.usefixtures("two")
def test_searches_find_what_they_find_without_it_and_leave_nothing(database: Database, pooled: Database) -> None:
    with Retriever(database, timeout_s=60) as direct, Retriever(pooled, timeout_s=60) as retriever:
        for way in WAYS:
            wanted = direct.search("seven 100% -three", **way)  # type: ignore[arg-type]
            found = retriever.search("seven 100% -three", **way)  # type: ignore[arg-type]
            assert (found.hits, found.version_key) == (wanted.hits, "v1")
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda text: retriever.search(text, 3), TEXTS))
        assert [one.hits for one in answers] == [direct.search(text, 3).hits for text in TEXTS]
    assert left_behind(pooled) == []


@pytest.mark.slow
@pytest.mark.usefixtures("two")
def test_ten_thousand_searches_by_eight_threads(database: Database, pooled: Database) -> None:
    ways = itertools.cycle(WAYS)
    asked = [(text, way) for text, way in zip(itertools.islice(itertools.cycle(TEXTS), 10_000), ways)]  # noqa: B905
    with Retriever(pooled, timeout_s=60) as retriever, ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda one: len(retriever.search(one[0], **one[1]).hits), asked))
        assert len(found) == 10_000
        counted = "SELECT sum(searches), sum(errors) FROM search_counts"
    with database.session("test") as connection:
        assert connection.execute(counted).fetchone() == (10_000, 0)
    assert left_behind(pooled) == []


@pytest.mark.usefixtures("two")
async def test_the_asynchronous_retriever(database: Database, pooled: Database) -> None:
    with Retriever(database, timeout_s=60) as direct:
        wanted = [direct.search(text, 3).hits for text in TEXTS]
        async with AsyncRetriever(pooled, timeout_s=60) as retriever:
            assert [one.hits for one in await retriever.search_many(TEXTS, 3)] == wanted
            for way in WAYS:
                found = await retriever.search("seven 100% -three", **way)  # type: ignore[arg-type]
                assert found.hits == direct.search("seven 100% -three", **way).hits  # type: ignore[arg-type]
    assert left_behind(pooled) == []


@pytest.mark.parametrize("mode", ["transaction"])
@pytest.mark.usefixtures("two", "mode")
def test_a_flip_is_followed_and_mirrored_without_notifications(
    database: Database, pooled: Database, connection: Connection
) -> None:
    start(connection, "v2", sample=1.0)
    with Mirror(pooled, poll_s=0.1) as mirror, Retriever(pooled, timeout_s=60, mirror=mirror) as retriever:
        assert retriever.search("one", 3).version_key == "v1"
        assert mirror.wait()
        for text in TEXTS[:10]:
            retriever.search(text, 3)
        assert mirror.flush()
        assert report(connection).done >= 10
        with pooled.session("test") as through:
            assert check(through, "v2").ready
            run(through, "v2", confirm="v2")
        eventually(lambda: retriever.version is not None and retriever.version.version_key == "v2")
        with pooled.session("test") as through:
            rollback(through, confirm="v1")
        assert retriever.search("one", 3).version_key == "v1"
    assert left_behind(pooled) == []


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("mode", ["transaction"])
def test_a_startup_parameter_that_a_pooler_refuses_is_named(pooled: Database) -> None:
    strict = replace(pooled, dsn=f"{pooled.dsn} options='-c geqo=off'")
    with pytest.raises(UnreachableError, match=r"startup parameter.*options") as refusal:
        strict.connect("test")
    assert "ignore_startup_parameters" in refusal.value.remedy
