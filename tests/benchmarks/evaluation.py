"""An evaluation: `python -m tests.benchmarks evaluation [small]`.

A run of each of two versions (100,000 chunks × 384, HNSW) against the bare searches: the same statement for the same
vectors over as many connections, with nothing looked up, nothing stored and no encoder. Then what is computed from the
two runs, part by part. The encoder answers from a matrix, so that it costs nothing. `small` has a fifth of the queries
and of the chunks.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from pgvector import Vector
from pgvector.psycopg import register_vector

from revector.core import index
from revector.core.database import Connection, Database
from revector.core.evaluation.document import Run
from revector.core.evaluation.judged_sets.judgements import Judgement, ensure_judge, load_qrels, save_judgements
from revector.core.evaluation.judged_sets.query_sets import Query, QuerySet, get_query_set, save_queries
from revector.core.evaluation.measures.measures import DEFAULT_MEASURES, score
from revector.core.evaluation.measures.rank_overlap import overlap_results, query_overlaps
from revector.core.evaluation.runs.make_run import make_run
from revector.core.evaluation.runs.store import load_results
from revector.core.index import candidates_query
from revector.core.registry import Version, create_table, get_version
from revector.core.retrieval import EncoderCache
from revector.core.settings import Settings
from tests.benchmarks.corpus import LONG_TEXT, FreeEncoder, backfill, fill
from tests.benchmarks.measure import Contender, in_turns, own_database, show_table, show_times, stopwatch, tell

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNKS, QUERIES, DIMENSIONS, K = 100_000, 10_000, 384, 100
SEGMENTS = 8
JUDGED = 20
PARTS = ("small",)
_T = TypeVar("_T")


def run(rounds: int, parts: Sequence[str] = ()) -> None:
    """Measure, and print the tables."""
    share = 5 if "small" in parts else 1
    chunks, queries = CHUNKS // share, QUERIES // share
    connections = os.cpu_count() or 1
    tell(f"{chunks:,} chunks × {DIMENSIONS}, {queries:,} queries, top {K}, {connections} connections")
    with own_database("bench") as database, database.session("bench") as connection:
        fill(connection, chunks, words=LONG_TEXT)
        encoders = {f"precomputed:{n}": FreeEncoder(_vectors(chunks + queries, n)) for n in (1, 2)}
        versions = [_version(database, connection, spec, encoder) for spec, encoder in encoders.items()]
        texts = [f"{chunks + number:09d}" for number in range(1, queries + 1)]
        save_queries(
            connection, "bench", [Query(text, text, f"segment {n % SEGMENTS}") for n, text in enumerate(texts)]
        )
        query_set = get_query_set(connection, "bench")
        cache = EncoderCache(lambda spec: encoders[spec])
        runs: list[Run] = []

        def evaluate() -> None:
            runs[:] = [make_run(database, query_set, version, k=K, encoders=cache) for version in versions]

        def bare() -> None:
            for version in versions:
                encoder = encoders[version.encoder_spec]
                _bare(database, version, [encoder.encode_query(text) for text in texts], connections)

        results = in_turns(
            [Contender("two runs", stopwatch(evaluate)), Contender("bare searches", stopwatch(bare))], rounds
        )
        show_times(f"{queries:,} queries × 2 versions", results)
        _computed(connection, query_set, runs, rounds)


def _computed(connection: Connection, query_set: QuerySet, runs: Sequence[Run], rounds: int) -> None:
    """What is made of two runs, part by part."""
    _judge(connection, query_set, runs[0])
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        results = _timed(seconds, "load both runs", lambda: [load_results(connection, each) for each in runs])
        qrels = _timed(seconds, "load the judgements", lambda: load_qrels(connection, query_set))
        _timed(
            seconds,
            "measures of both",
            lambda results=results, qrels=qrels: [score(each, qrels, DEFAULT_MEASURES) for each in results],
        )
        overlaps = _timed(
            seconds, "overlap of all queries", lambda results=results: query_overlaps(*results, "document", K)
        )
        segments = {name: [q.id for q in query_set.queries if q.segment == name] for name in query_set.segments}
        segments["all"] = [query.id for query in query_set.queries]
        _timed(
            seconds,
            "distributions",
            lambda overlaps=overlaps, segments=segments: overlap_results(overlaps, segments),
        )
    rows = [(part, f"{statistics.median(took):.2f}") for part, took in seconds.items()]
    rows.append(("all of it", f"{sum(statistics.median(took) for took in seconds.values()):.2f}"))
    show_table(
        f"From two runs of {len(query_set.queries):,} queries, {JUDGED} judgements each", ["s median"], rows
    )


def _timed(seconds: dict[str, list[float]], part: str, action: Callable[[], _T]) -> _T:
    began = time.perf_counter()
    result = action()
    seconds.setdefault(part, []).append(time.perf_counter() - began)
    return result


def _vectors(rows: int, seed: int) -> NDArray[np.float32]:
    """A matrix (rows, DIMENSIONS) in clusters of about a hundred, the same ones for every seed."""
    centres = np.random.default_rng(0).standard_normal((1_000, DIMENSIONS), dtype=np.float32)
    cluster = np.random.default_rng(1).integers(0, len(centres), rows)
    noise = np.random.default_rng(seed + 1).standard_normal((rows, DIMENSIONS), dtype=np.float32)
    return np.asarray(centres[cluster] + 0.7 * noise)


def _version(database: Database, connection: Connection, spec: str, encoder: FreeEncoder) -> Version:
    key = f"bench-{spec.rpartition(':')[2]}"
    connection.execute(
        """
        INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, distance_metric,
                                        encoder_spec)
        VALUES (%s, 'precomputed', '1', %s, 'cosine', %s)
        """,
        [key, DIMENSIONS, spec],
    )
    create_table(connection, get_version(connection, key))
    backfill(database, get_version(connection, key), encoder)
    index.build(connection, get_version(connection, key), Settings())
    if not index.use(connection, get_version(connection, key), K).used:
        raise RuntimeError(f"the planner does not use the index of {key}")
    return get_version(connection, key)


def _bare(database: Database, version: Version, vectors: Sequence[NDArray[np.float32]], connections: int) -> None:
    """Search every vector, and fetch and discard the rows."""
    waiting: Iterator[NDArray[np.float32]] = iter(vectors)
    lock = threading.Lock()
    failed: list[BaseException] = []

    def search() -> None:
        try:
            with database.session("bench") as connection:
                register_vector(connection)
                connection.execute("SELECT set_config('hnsw.ef_search', %s, false)", [str(K)])
                cursor = connection.cursor(binary=True)
                statement = candidates_query(version, K).as_bytes(connection)
                while True:
                    with lock:
                        vector = next(waiting, None)
                    if vector is None:
                        return
                    if len(cursor.execute(statement, {"vector": Vector(vector)}).fetchall()) != K:
                        raise RuntimeError("the index gave fewer rows than asked for")
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=search) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def _judge(connection: Connection, query_set: QuerySet, run: Run) -> None:
    """Grades for some of the documents that a run found, at random ranks."""
    random = np.random.default_rng(5)
    hits = load_results(connection, run).hits
    given = [
        Judgement(query, "document", str(found.document_ids[rank]), int(random.integers(0, 4)))
        for query, found in hits.items()
        for rank in random.choice(len(found.document_ids), JUDGED, replace=False).tolist()
    ]
    save_judgements(connection, query_set, ensure_judge(connection, "bench", "person"), given)
