"""Does a chunk cost the same in a large collection? Ours, the source pattern's way, and the status while it runs.

- Seconds a chunk of whole runs without the proof at 100,000 and 1,000,000 chunks, in turns. The texts are short and
  the vectors have 16 dimensions, so that a million of them fit: with longer ones the constant part of a chunk's cost
  would only be larger. A run counts from the first call of the encoder, so that its start does not help the ratio.
- One batch of the source pattern's loop (see peers.py) when so much of the collection is done. At 100,000 chunks the
  loop runs to its end; at 1,000,000 single batches are timed at 10, 50 and 90 %, and its whole time is worked out
  from them. The table is analysed before each of them: its best case.
- The status, read over a separate connection while a worker is running.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pgvector.psycopg import register_vector

from revector.core.backfill.job.job import request_cancel
from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.job.status import status
from revector.core.database import Connection, Database
from revector.core.migrations import upgrade
from revector.core.registry import Version
from tests.benchmarks import peers
from tests.benchmarks.corpus import BATCH, FreeEncoder, backfill, fill, fresh_version, random_vectors, rows_in
from tests.benchmarks.measure import Contender, in_turns, own_database, show_table, tell
from tests.versions import worker_on

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL, LARGE = 100_000, 1_000_000
DIMENSIONS = 16
WORDS = 6
SHARES = (0.1, 0.5, 0.9)
QUEUED = 500_000
STATUSES = 50


@dataclass(frozen=True)
class Collection:
    """One of the two."""

    database: Database
    connection: Connection
    encoder: FreeEncoder
    chunks: int


def run(rounds: int) -> None:
    """Measure, and print three tables."""
    with own_database("bench") as database:
        large_database = Database(database.dsn, "bench_large", embedded=True)
        upgrade(large_database)
        with database.session("bench") as first, large_database.session("bench") as second:
            small = _collection(database, first, SMALL)
            large = _collection(large_database, second, LARGE)
            _show_backfill(small, large, max(1, rounds // 4))
            _show_status(small, large)
            _show_pattern(small, large)


def _collection(database: Database, connection: Connection, chunks: int) -> Collection:
    register_vector(connection)
    fill(connection, chunks, words=WORDS)
    return Collection(database, connection, FreeEncoder(random_vectors(chunks, DIMENSIONS)), chunks)


# -- the backfill ---------------------------------------------------------------------------------------------


def _show_backfill(small: Collection, large: Collection, rounds: int) -> None:
    contenders = [
        Contender(f"{each.chunks:,} chunks", lambda each=each: _backfill(each), each.chunks)
        for each in (large, small)
    ]
    results = in_turns(contenders, rounds)
    per_chunk = [[1e6 * seconds / r.contender.amount for seconds in r.seconds] for r in results]
    ratio = statistics.median(a / b for a, b in zip(*per_chunk, strict=True))
    rows = [
        [r.contender.name, *(f"{figure:.1f}" for figure in (min(us), statistics.median(us), max(us)))]
        for r, us in zip(results, per_chunk, strict=True)
    ]
    show_table(f"revector backfill, {DIMENSIONS} dimensions", ("µs a chunk min", "median", "max"), rows)
    tell(f"a chunk takes × {ratio:.2f} at {large.chunks:,} of what it takes at {small.chunks:,} (aim: 1.15)\n")


def _backfill(collection: Collection) -> float:
    version = fresh_version(collection.connection, DIMENSIONS)
    done = backfill(collection.database, version, collection.encoder)
    if (found := rows_in(collection.connection, version)) != collection.chunks:
        raise RuntimeError(f"{found:,} of {collection.chunks:,} chunks have a vector")
    return done.stored - done.asked


# -- the status -----------------------------------------------------------------------------------------------


def _show_status(small: Collection, large: Collection) -> None:
    rows = []
    for queued in (0, QUEUED):
        for each in (small, large):
            times = _status_times(each, queued)
            rows.append(
                [
                    f"{each.chunks:,} chunks, {queued:,} queued",
                    *(f"{1000 * figure:.1f}" for figure in (min(times), statistics.median(times), max(times))),
                ]
            )
    show_table("backfill status, in the middle of the work", ("ms min", "median", "max"), rows)
    tell("(aim: at most 10 ms)\n")


def _status_times(collection: Collection, queued: int) -> list[float]:
    """Seconds that the status takes, again and again, when half of the chunks are done and the worker goes on."""
    version = fresh_version(collection.connection, DIMENSIONS)
    collection.connection.execute(
        "INSERT INTO chunk_outbox (embedding_version_id, chunk_id) SELECT %s, n FROM generate_series(1, %s) AS n",
        [version.id, queued],
    )
    collection.connection.execute("VACUUM ANALYZE chunk_outbox")
    encoder = _SlowFromHalf(collection.encoder.vectors)
    worker = worker_on(collection.database, version, encoder, JobSettings(BATCH))
    thread = threading.Thread(target=worker.join)
    thread.start()
    encoder.half.wait()
    times = []
    with collection.database.session("bench") as connection:
        for _ in range(STATUSES):
            start = time.perf_counter()
            found = status(connection, version)
            times.append(time.perf_counter() - start)
        if found is None or found.state != "running" or not found.workers:
            raise RuntimeError(f"the backfill was not under way: {found}")
        request_cancel(connection, version)
    thread.join()
    return times


class _SlowFromHalf(FreeEncoder):
    """Takes its time from the middle of the collection on, so that there is a middle to look at."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        super().__init__(vectors)
        self.half = threading.Event()
        self._asked = 0

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self._asked += len(texts)
        if self._asked > len(self.vectors) // 2:
            self.half.set()
            time.sleep(0.5)
        return super().encode_documents(texts)


# -- the source pattern's way ---------------------------------------------------------------------------------


def _show_pattern(small: Collection, large: Collection) -> None:
    rows, totals = [], []
    for collection, share_s, total, how in ((small, *_whole_loop(small)), (large, *_sampled_loop(large))):
        totals.append(total / collection.chunks)
        figures = [*(f"{1000 * share_s[share]:.1f}" for share in SHARES), f"{total:.1f}"]
        rows.append([f"{collection.chunks:,} chunks, {how}", *figures, f"{1e6 * total / collection.chunks:.0f}"])
    columns = *(f"ms a batch\nat {share:.0%}" for share in SHARES), "s in all", "µs a chunk"
    show_table("the source pattern's loop: an anti-join for every 1,000 chunks", columns, rows)
    tell(f"a chunk takes × {totals[1] / totals[0]:.1f} at {LARGE:,} of what it takes at {SMALL:,}")


def _whole_loop(collection: Collection) -> tuple[dict[float, float], float, str]:
    """Run it to the end; returns the time of a batch at each share, that of all together, and how it was found."""
    connection, version = collection.connection, _pattern_table(collection)
    times: list[float] = []
    steps = collection.chunks // peers.PATTERN_ROWS
    while len(times) < steps:
        if len(times) % (steps // 10) == 0:
            connection.execute("ANALYZE pattern_embeddings")
        times.append(_pattern_batch(collection, version))
    near = steps // 20
    middles = {share: round(share * steps) for share in SHARES}
    shares = {share: statistics.median(times[middle - near : middle + near]) for share, middle in middles.items()}
    return shares, sum(times), "the whole"


def _sampled_loop(collection: Collection) -> tuple[dict[float, float], float, str]:
    """Time some batches at each share; the whole is their mean for as many batches as it takes (a straight line)."""
    connection, version = collection.connection, _pattern_table(collection)
    steps = collection.chunks // peers.PATTERN_ROWS
    shares = {}
    for share in SHARES:
        with connection.transaction():
            # What is put there outside of the timing needs no check of its foreign keys.
            connection.execute("SET LOCAL session_replication_role = replica")
            connection.execute(
                """
                INSERT INTO pattern_embeddings
                SELECT c.id, %s, array_fill(1, ARRAY[%s])::vector FROM document_chunks c
                WHERE NOT EXISTS (SELECT FROM pattern_embeddings e WHERE e.chunk_id = c.id)
                ORDER BY c.id LIMIT %s - (SELECT count(*) FROM pattern_embeddings)
                """,
                [version.id, DIMENSIONS, round(share * collection.chunks)],
            )
        connection.execute("VACUUM ANALYZE pattern_embeddings")
        shares[share] = statistics.median(_pattern_batch(collection, version) for _ in range(5))
    return shares, statistics.fmean(shares.values()) * steps, "from these three"


def _pattern_table(collection: Collection) -> Version:
    version = fresh_version(collection.connection, DIMENSIONS)
    peers.create_pattern_table(collection.connection, DIMENSIONS)
    return version


def _pattern_batch(collection: Collection, version: Version) -> float:
    start = time.perf_counter()
    found = peers.pattern_batch(collection.connection, version, collection.encoder)
    seconds = time.perf_counter() - start
    if found != peers.PATTERN_ROWS:
        raise RuntimeError(f"a batch of the source pattern's loop found {found} chunks")
    return seconds
