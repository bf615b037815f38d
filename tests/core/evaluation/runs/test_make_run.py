"""Runs: the hits are those of a search by hand, nothing is paid twice, and unfinished runs are not shown."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import numpy as np
import pytest
from psycopg import sql

from revector.core import audit, index
from revector.core.database import Connection, Database
from revector.core.encoders import Encoder, open_encoder
from revector.core.errors import EncoderError, RefusedError, UnreachableError, UsageError
from revector.core.evaluation.judged_sets.query_sets import (
    Query,
    QuerySet,
    drop_query_set,
    get_query_set,
    save_queries,
)
from revector.core.evaluation.runs import store
from revector.core.evaluation.runs.make_run import make_run
from revector.core.evaluation.runs.searches import plan_searches
from revector.core.registry import Version, drop_version, get_version, retire_version
from revector.core.retrieval import EncoderCache, VersionSearcher
from revector.core.settings import Settings
from tests.protocol_server import ProtocolServer
from tests.versions import NUMBERS, SPEC, add, add_chunks, backfill, ready_version

TEXTS = [f"{a} and {b}" for a in NUMBERS for b in NUMBERS]
QUERIES = [Query(f"q{number}", f"{text} or seven", "s") for number, text in enumerate(NUMBERS)]


class FlakyEncoder:
    """The real encoder; fails before its n-th query, once, and puts down what it was asked."""

    def __init__(self, spec: str, fails_at: int | None = None) -> None:
        self._encoder = open_encoder(spec)
        self.name, self.revision, self.dimensions = (
            self._encoder.name,
            self._encoder.revision,
            self._encoder.dimensions,
        )
        self.max_tokens, self.price = self._encoder.max_tokens, self._encoder.price
        self.asked: list[str] = []
        self._fails_at = fails_at

    def encode_query(self, text: str) -> np.ndarray:  # type: ignore[type-arg]
        if len(self.asked) == self._fails_at:
            self._fails_at = None
            raise OSError("the model went away")
        self.asked.append(text)
        return self._encoder.encode_query(text)

    def encode_documents(self, texts: list[str]) -> np.ndarray:  # type: ignore[type-arg]
        return self._encoder.encode_documents(texts)

    def count_tokens(self, texts: list[str]) -> int:
        return self._encoder.count_tokens(texts)

    def close(self) -> None:
        self._encoder.close()


def cache_of(encoder: Encoder) -> EncoderCache:
    return EncoderCache(lambda _spec: encoder)


@pytest.fixture
def query_set(connection: Connection) -> QuerySet:
    save_queries(connection, "numbers", QUERIES)
    return get_query_set(connection, "numbers")


@pytest.fixture
def version(database: Database, connection: Connection) -> Iterator[Version]:
    add_chunks(connection, TEXTS)
    return ready_version(database, connection, "v1")  # type: ignore[return-value]


def test_a_run_holds_what_users_would_find(
    database: Database, connection: Connection, query_set: QuerySet, version: Version
) -> None:
    steps: list[tuple[int, int]] = []
    run = make_run(
        database, query_set, version, k=20, on_progress=lambda _s, done, total: steps.append((done, total))
    )
    assert (run.state, run.k, run.exact, run.ef_search, run.sample) == ("done", 20, False, 100, None)
    assert (run.query_set, run.query_set_revision, run.version_key) == ("numbers", query_set.revision, "v1")
    assert (run.chunks, run.queries, run.encoder) == (len(TEXTS), len(QUERIES), SPEC)
    assert run.encoder_revision == open_encoder(SPEC).revision
    assert run.index_settings["m"] == 16
    assert run.index_settings["ef_construction"] == 64
    assert run.finished_at is not None
    assert run.seconds > 0
    assert steps[0] == (0, len(QUERIES))
    assert steps[-1] == (len(QUERIES), len(QUERIES))
    results = store.load_results(connection, run)
    assert list(results.hits) == sorted(query.id for query in QUERIES)
    documents = dict(connection.execute("SELECT id, document_id FROM document_chunks").fetchall())
    for query in QUERIES:
        hits = results.hits[query.id]
        by_hand = VersionSearcher(connection).search(query.text, 20, version=version).hits
        assert hits.chunk_ids.tolist() == [hit.chunk_id for hit in by_hand]
        assert hits.distances == pytest.approx([hit.distance for hit in by_hand], abs=1e-6)
        assert list(hits.document_ids) == [documents[chunk] for chunk in hits.chunk_ids.tolist()]
        assert all(isinstance(document, uuid.UUID) for document in hits.document_ids)
        assert hits.search_ms > 0
    assert [found.id for found in store.runs(connection)] == [run.id]
    entry = audit.entries(connection, limit=1)[0]
    assert (entry.action, entry.version_key, entry.detail["run"]) == ("evaluate run", "v1", run.id)
    assert entry.application == "revector evaluate"


@pytest.mark.parametrize(
    ("dimensions", "storage", "kind"),
    [(64, "vector", "vector"), (64, "halfvec", "halfvec"), (2100, "vector", "halfvec"), (4100, "vector", "bit")],
)
@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_exact_searches_use_no_index_and_find_the_nearest(
    database: Database,
    connection: Connection,
    query_set: QuerySet,
    dimensions: int,
    storage: str,
    kind: str,
    metric: str,
) -> None:
    add_chunks(connection, TEXTS)
    with ProtocolServer(models={"model": dimensions}) as provider:
        spec = f"openai:model?base_url={provider.base_url}"
        version = add(connection, "v1", spec, metric=metric, storage=storage)
        backfill(database, version)
        index.build(connection, version, Settings())
        assert index.kind_of(version) == kind
        encoder = open_encoder(spec)
        # Whatever the session prefers: by the index when it is asked for, by a scan when it is not.
        for exact in (False, True):
            searches = plan_searches(version, k=10, exact=exact, ef_search=None)
            connection.execute("SET enable_seqscan = off")
            searches.prepare(connection, 2)
            vector = "[" + ",".join(map(str, encoder.encode_query("seven").tolist())) + "]"
            plan = connection.execute(
                sql.SQL("EXPLAIN (FORMAT TEXT) ") + searches.query, {"vector": vector}
            ).fetchall()
            assert (index.index_name(version) in str(plan)) is not exact
        run = make_run(database, query_set, version, k=10, exact=True)
        assert (run.exact, run.ef_search, run.index_settings) == (True, None, {})
        rows = connection.execute(
            "SELECT chunk_id, embedding::text FROM chunk_embeddings WHERE embedding_version_id = %s ORDER BY 1",
            [version.id],
        ).fetchall()
        vectors = np.array([np.fromstring(text[1:-1], sep=",") for _, text in rows])
        for query in QUERIES[:4]:
            target = encoder.encode_query(query.text).astype(np.float16 if storage == "halfvec" else float)
            target = target.astype(float)
            distance = {
                "cosine": 1 - vectors @ target / np.linalg.norm(vectors, axis=1) / np.linalg.norm(target),
                "l2": np.linalg.norm(vectors - target, axis=1),
                "ip": -vectors @ target,
            }[metric]
            hits = store.load_results(connection, run).hits[query.id]
            assert hits.distances == pytest.approx(np.sort(distance)[:10], abs=2e-4)
            assert hits.chunk_ids.tolist() == sorted(
                hits.chunk_ids.tolist(), key=lambda chunk, at=hits: (at.distances[at.chunk_ids == chunk][0], chunk)
            )


def test_k_hits_come_even_when_the_version_searches_less_deeply(
    database: Database, connection: Connection, query_set: QuerySet
) -> None:
    add_chunks(connection, TEXTS)
    version = add(connection, "v1", index_settings={"ef_search": 10})
    backfill(database, version)
    index.build(connection, version, Settings())
    connection.execute(
        sql.SQL("ALTER DATABASE {} SET enable_seqscan = off").format(sql.Identifier(connection.info.dbname))
    )
    try:
        run = make_run(database, query_set, version, k=100)
        narrow = make_run(database, query_set, version, k=5)
        given = make_run(database, query_set, version, k=5, ef_search=70)
    finally:
        connection.execute(
            sql.SQL("ALTER DATABASE {} RESET enable_seqscan").format(sql.Identifier(connection.info.dbname))
        )
    assert (run.ef_search, narrow.ef_search, given.ef_search) == (100, 10, 70)
    assert run.index_settings == {"kind": "vector", "m": 16, "ef_construction": 64, "used": True}
    assert {len(hits.chunk_ids) for hits in store.load_results(connection, run).hits.values()} == {100}


def test_a_run_whose_encoder_failed_is_gone_on_with(
    database: Database, connection: Connection, query_set: QuerySet, version: Version
) -> None:
    encoder = FlakyEncoder(SPEC, fails_at=9)
    with pytest.raises(EncoderError, match=r"(?s)OSError: the model went away.*continue"):
        make_run(database, query_set, version, k=10, encoders=cache_of(encoder))
    assert len(encoder.asked) == 9
    assert store.runs(connection) == []
    row = connection.execute("SELECT id, state, seconds FROM evaluation_runs").fetchall()
    assert [(state, seconds > 0) for _, state, seconds in row] == [("running", True)]
    assert len(store.stored_queries(connection, store.get_run(connection, row[0][0]))) == 9
    run = make_run(database, query_set, version, k=10, encoders=cache_of(encoder))
    assert run.id == row[0][0]
    assert run.seconds > row[0][2]
    assert sorted(encoder.asked) == sorted(query.text for query in QUERIES)
    whole = make_run(database, query_set, version, k=10)
    assert whole.id != run.id
    first, second = (store.load_results(connection, each).hits for each in (run, whole))
    assert list(first) == list(second)
    assert all((first[q].chunk_ids == second[q].chunk_ids).all() for q in first)


@pytest.mark.parametrize("settings", [{"k": 11}, {"exact": True}, {"ef_search": 50}])
def test_other_settings_begin_another_run(
    database: Database,
    connection: Connection,
    query_set: QuerySet,
    version: Version,
    settings: dict[str, int],
) -> None:
    with pytest.raises(EncoderError):
        make_run(database, query_set, version, k=10, encoders=cache_of(FlakyEncoder(SPEC, fails_at=3)))
    encoder = FlakyEncoder(SPEC)
    make_run(database, query_set, version, **({"k": 10} | settings), encoders=cache_of(encoder))  # type: ignore[arg-type]
    assert len(encoder.asked) == len(QUERIES)


def test_a_caller_who_gives_up_ends_the_threads_and_the_searches_they_wait_for(
    database: Database, connection: Connection, version: Version
) -> None:
    class EnoughError(Exception):
        pass

    save_queries(connection, "many", [Query(f"{n:04}", f"{NUMBERS[n % 16]} {n}") for n in range(1200)])
    query_set = get_query_set(connection, "many")
    locked = threading.Event()

    class Locking(FlakyEncoder):
        def encode_query(self, text: str) -> np.ndarray:  # type: ignore[type-arg]
            if len(self.asked) == 650:
                connection.execute("BEGIN")
                connection.execute(sql.SQL("LOCK TABLE {}").format(version.table))
                locked.set()
            return super().encode_query(text)

    def on_progress(_step: str, done: int, _total: int) -> None:
        if done >= 500:  # a slow machine stores earlier: once a second
            assert locked.wait(60)
            raise EnoughError

    before = threading.active_count()
    encoder = Locking(SPEC)
    with pytest.raises(EnoughError):
        make_run(database, query_set, version, k=10, on_progress=on_progress, encoders=cache_of(encoder))
    connection.execute("ROLLBACK")
    assert threading.active_count() == before
    assert 650 < len(encoder.asked) < 700
    assert store.runs(connection) == []
    number = connection.execute("SELECT id FROM evaluation_runs").fetchone()[0]  # type: ignore[index]
    assert len(store.stored_queries(connection, store.get_run(connection, number))) >= 500
    assert make_run(database, query_set, version, k=10).id == number


def test_a_search_whose_connection_is_lost_ends_the_run(
    database: Database,
    connection: Connection,
    query_set: QuerySet,
    version: Version,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)

    class Severing(FlakyEncoder):
        def encode_query(self, text: str) -> np.ndarray:  # type: ignore[type-arg]
            if len(self.asked) == 8:
                # Four wait at most, so the others are being searched; the older session is the one that stores. Nobody
                # takes what is still encoded, which must not be waited for.
                connection.execute(
                    """
                    SELECT pg_terminate_backend(pid, 10000) FROM (
                        SELECT pid FROM pg_stat_activity WHERE application_name = 'revector evaluate'
                        ORDER BY backend_start OFFSET 1) AS searching
                    """
                )
            return super().encode_query(text)

    with pytest.raises(UnreachableError):
        make_run(database, query_set, version, k=10, encoders=cache_of(Severing(SPEC)))
    assert store.runs(connection) == []
    assert make_run(database, query_set, version, k=10).state == "done"


def test_two_at_once_make_two_whole_runs(
    database: Database, connection: Connection, query_set: QuerySet, version: Version
) -> None:
    other: list[int] = []

    def on_progress(_step: str, done: int, _total: int) -> None:
        if done == 0:  # the run has begun and is ours: another session starts the same
            other.append(make_run(database, query_set, version, k=10).id)

    run = make_run(database, query_set, version, k=10, on_progress=on_progress)
    assert sorted(found.id for found in store.runs(connection)) == sorted([run.id, *other])
    assert other
    assert other[0] != run.id
    for each in store.runs(connection):
        assert len(store.load_results(connection, each).hits) == len(QUERIES)


def test_a_run_that_was_left_is_deleted_a_day_later(
    database: Database, connection: Connection, query_set: QuerySet, version: Version
) -> None:
    with pytest.raises(EncoderError):
        make_run(database, query_set, version, k=10, encoders=cache_of(FlakyEncoder(SPEC, fails_at=3)))
    connection.execute("UPDATE evaluation_runs SET started_at = now() - interval '25 hours'")
    run = make_run(database, query_set, version, k=10)
    assert connection.execute("SELECT id FROM evaluation_runs").fetchall() == [(run.id,)]


def test_what_is_not_there_is_said(
    database: Database, connection: Connection, query_set: QuerySet, version: Version
) -> None:
    empty = add(connection, "empty")
    with pytest.raises(RefusedError, match=r"(?s)empty has no vectors yet.*backfill run empty"):
        make_run(database, query_set, empty)
    connection.execute(
        """
        INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, distance_metric)
        VALUES ('plain', 'x', '1', 3, 'cosine')
        """
    )
    with pytest.raises(RefusedError, match="has no encoder"):
        make_run(database, query_set, get_version(connection, "plain"))
    for settings, message in (
        ({"k": 0}, "expected 1 to 1,000"),
        ({"k": 1001}, "expected 1 to 1,000"),
        ({"ef_search": 1001}, "1 to 1,000"),
        ({"ef_search": 50, "exact": True}, "uses no index"),
    ):
        with pytest.raises(UsageError, match=message):
            make_run(database, query_set, version, **settings)  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match="returns 128 dimensions; version v1 has 64"):
        make_run(database, query_set, version, encoders=cache_of(open_encoder("static:wordllama-128")))
    assert connection.execute("SELECT count(*) FROM evaluation_runs").fetchone() == (0,)


@pytest.mark.parametrize("change", ["queries", "set", "version"])
def test_what_changes_meanwhile_ends_the_run(
    database: Database, connection: Connection, query_set: QuerySet, version: Version, change: str
) -> None:
    def on_progress(_step: str, done: int, _total: int) -> None:
        if done == 0 and change == "queries":
            save_queries(connection, "numbers", [*QUERIES, Query("new", "text")])
        if done == 0 and change == "set":
            drop_query_set(connection, "numbers")
        if done == 0 and change == "version":
            retire_version(connection, "v1")
            drop_version(connection, "v1")

    expected = {
        "queries": "'numbers' changed in the meantime",
        "set": "was dropped",
        "version": "v1 was dropped during the search",
    }[change]
    with pytest.raises(RefusedError, match=expected):
        make_run(database, query_set, version, k=10, on_progress=on_progress)
    assert store.runs(connection) == []
    with pytest.raises(UsageError if change == "version" else RefusedError):
        make_run(database, query_set, version, k=10)


def test_a_chunk_that_is_deleted_during_the_run_is_no_result(
    database: Database, connection: Connection, query_set: QuerySet, version: Version
) -> None:
    searches = plan_searches(version, k=10, exact=True, ef_search=None)
    with database.session("test") as session:
        search = searches.prepare(session, 1)
        ids, _ = search(open_encoder(SPEC).encode_query(QUERIES[7].text))

    def forget(_step: str, done: int, _total: int) -> None:
        if done == 0:
            # The vector stays where it was, as for a search that saw it just before.
            connection.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER ALL").format(version.table))
            connection.execute("ALTER TABLE document_chunks DISABLE TRIGGER ALL")
            connection.execute("DELETE FROM document_chunks WHERE id = %s", [int(ids[0])])
            connection.execute("ALTER TABLE document_chunks ENABLE TRIGGER ALL")

    run = make_run(database, query_set, version, k=10, exact=True, on_progress=forget)
    hits = store.load_results(connection, run).hits["q7"]
    assert hits.chunk_ids.tolist() == ids[1:].tolist()
    assert len(hits.document_ids) == len(hits.distances) == 9


def test_a_vector_that_cannot_be_searched_with_names_its_query(
    database: Database, connection: Connection, query_set: QuerySet, version: Version
) -> None:
    class Zero(FlakyEncoder):
        def encode_query(self, text: str) -> np.ndarray:  # type: ignore[type-arg]
            found = super().encode_query(text)
            return found * 0 if text.startswith("three") else found

    with pytest.raises(EncoderError, match=r"Query 'q3': .* is all zeros"):
        make_run(database, query_set, version, k=10, encoders=cache_of(Zero(SPEC)))


def test_queries_of_a_parallel_provider_are_encoded_at_once(
    database: Database, connection: Connection, query_set: QuerySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    add_chunks(connection, TEXTS)
    with ProtocolServer(models={"model": 64}) as provider:
        spec = f"openai:model?base_url={provider.base_url}&parallel=2"
        version = ready_version(database, connection, "v1", spec)
        encoder = open_encoder(spec)
        assert encoder.dimensions == 64  # this asks it once, alone
        provider.meet = threading.Barrier(2, timeout=60).wait  # answers only once two requests have arrived
        run = make_run(database, query_set, version, k=10, encoders=cache_of(encoder))
    assert run.queries == len(QUERIES)
    assert {len(hits.chunk_ids) for hits in store.load_results(connection, run).hits.values()} == {10}
