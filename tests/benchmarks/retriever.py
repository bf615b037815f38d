"""The overhead of the Retriever: its median against the same search with plain psycopg.

Bare is what an application would write by hand: one connection that stays open, the vector in binary, one prepared
statement for the version that it was told of, the texts of the hits, no question whether that version is still active.
Both search the same vectors, one after the other; the Retriever finds its queries' vectors in its cache, so that the
encoder is in neither. The aim is at most LIMIT_MS more at the median.

Then eight threads that share one Retriever, against eight with a bare connection each: at least THREADS_LIMIT of their
rate.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg import sql

from revector.core import cutover
from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from revector.core.index import candidates_query
from revector.core.registry import Version
from revector.core.retrieval import Retriever
from tests.benchmarks.corpus import LONG_TEXT, fill
from tests.benchmarks.measure import (
    Contender,
    Result,
    in_turns,
    own_database,
    show_rates,
    show_table,
    stopwatch,
    tell,
)
from tests.versions import ready_version

CHUNKS = 50_000
SPEC = "static:wordllama-256"
K = 10
LIMIT_MS = 0.3
THREADS = 8
THREADS_LIMIT = 0.9
QUERIES_A_ROUND = 200
_TOPICS = "rotate key token server client index vector search version table query model retry limit backup cache"


def run(rounds: int) -> None:
    """Measure, and print median and p99 of each way and what the Retriever adds."""
    topics = _TOPICS.split()
    queries = [f"{a} {b}" for a in topics for b in topics if a != b][:QUERIES_A_ROUND]
    with own_database("bench") as database, database.session("bench") as connection:
        fill(connection, CHUNKS, words=LONG_TEXT)
        version = ready_version(database, connection, "v1", SPEC)
        cutover.run(connection, "v1", confirm="v1")
        encoder = open_encoder(SPEC)
        vectors = {query: encoder.encode_query(query) for query in queries}
        with Retriever(database, pool_size=THREADS) as retriever:
            bare = _bare(connection, version)
            ways: dict[str, Callable[[str], int]] = {
                "bare psycopg": lambda query: bare(vectors[query]),
                "Retriever.search": lambda query: len(retriever.search(query, K).hits),
                "Retriever.search_vector": lambda query: len(
                    retriever.search_vector(vectors[query], "v1", K).hits
                ),
            }
            seconds = _alternate(ways, queries, rounds)
            rates = _beside_each_other(database, version, retriever, vectors, rounds)
        first = seconds["bare psycopg"]
        show_table(
            f"one search of {CHUNKS:,} chunks, {SPEC}, k {K}, queries encoded already",
            ("searches", "median ms", "p99 ms", "more at the median"),
            [_row(name, taken, first) for name, taken in seconds.items()],
        )
        more = _more_ms(seconds["Retriever.search"], first)
        tell(f"{'within' if more <= LIMIT_MS else 'ABOVE'} the limit of {LIMIT_MS} ms: {more:.3f} ms more")
    show_rates(f"{THREADS} threads", "searches/s", rates)
    share = statistics.median(ours / bare for ours, bare in zip(rates[0].rates(), rates[1].rates(), strict=True))
    tell(f"{'within' if share >= THREADS_LIMIT else 'BELOW'} the limit of {THREADS_LIMIT}: {share:.2f}")


def _alternate(ways: dict[str, Callable[[str], int]], queries: list[str], rounds: int) -> dict[str, list[float]]:
    """The seconds of each search, by way: each query by all of them in turn. The first round is warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for place, query in enumerate(queries):
            names = list(ways)
            for name in names if (place + number) % 2 else reversed(names):
                start = time.perf_counter()
                hits = ways[name](query)
                took = time.perf_counter() - start
                if hits != K:
                    raise RuntimeError(f"{name} found {hits} chunks, not {K}")
                if number:
                    seconds[name].append(took)
    return seconds


def _beside_each_other(
    database: Database,
    version: Version,
    retriever: Retriever,
    vectors: dict[str, np.ndarray],
    rounds: int,
) -> list[Result]:
    """The rates of THREADS threads: with one Retriever, and with a bare connection each."""
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(THREADS) as threads:
        connections = [stack.enter_context(database.session("bench")) for _ in range(THREADS)]
        bare = [_bare(connection, version) for connection in connections]
        queries = list(vectors)[::2]

        def with_bare(number: int) -> None:
            for query in queries:
                bare[number](vectors[query])

        def with_retriever(number: int) -> None:
            for query in queries:
                retriever.search(query, K)

        contenders = [
            Contender(
                name, stopwatch(lambda work=work: list(threads.map(work, range(THREADS)))),
                THREADS * len(queries),
            )
            for name, work in (("one Retriever", with_retriever), ("bare psycopg", with_bare))
        ]  # fmt: skip
        return in_turns(contenders, rounds)


def _bare(connection: Connection, version: Version) -> Callable[[np.ndarray], int]:
    register_vector(connection)
    connection.execute("SELECT set_config('hnsw.ef_search', '100', false)")
    statement = (
        sql.SQL(
            "WITH nearest AS MATERIALIZED ({}) SELECT n.chunk_id, c.semantic_key, c.source_id, c.chunk_no, n.distance, "
            "c.content FROM nearest n JOIN document_chunks c ON c.id = n.chunk_id ORDER BY n.distance, n.chunk_id"
        )
        .format(candidates_query(version, K))
        .as_bytes(connection)
    )
    cursor = connection.cursor(binary=True)

    def search(vector: np.ndarray) -> int:
        return len(cursor.execute(statement, {"vector": Vector(vector)}).fetchall())

    return search


def _more_ms(seconds: list[float], first: list[float]) -> float:
    """The median of what each search took longer than the bare one of the same query, made right beside it."""
    return statistics.median(ours - bare for ours, bare in zip(seconds, first, strict=True)) * 1000


def _row(name: str, seconds: list[float], first: list[float]) -> list[str]:
    median = statistics.median(seconds)
    return [
        name, f"{len(seconds):,}", f"{median * 1000:.3f}", f"{float(np.quantile(seconds, 0.99)) * 1000:.3f}",
        f"{_more_ms(seconds, first):+.3f} ms, × {median / statistics.median(first):.2f}",
    ]  # fmt: skip
