"""How much planted damage the guards `complete`, `encoder` and `index valid` see: in how many of 200 runs they fail.

Of the encoder's: vectors stored under each other's ids, of another model, and of another length. It is the encoder that
is damaged, and not the table, which makes the same difference between the two. Of `complete`: vectors deleted behind
the counts. Both for 1, 5 and 10 % of the rows, chosen again for each run. Of the index's: another definition under the
right name, on a table so small that the planner scans it. Of what has no damage no run may fail.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from revector.core import index
from revector.core.cutover.guard import Subject
from revector.core.cutover.guards import GUARDS
from revector.core.cutover.policy import Policy
from revector.core.database import Connection, Database
from revector.core.registry import Version, get_version
from revector.core.retrieval import EncoderCache
from tests.benchmarks import corpus
from tests.benchmarks.measure import own_database, show_table

RUNS = 200
CHUNKS = 16_000
SMALL = 400
DIMENSIONS = 64
SHARES = (0.0, 0.01, 0.05, 0.10)

Rows = NDArray[np.intp]
Matrix = NDArray[np.float32]


def _shuffled(vectors: Matrix, rows: Rows) -> None:
    vectors[rows] = vectors[np.roll(rows, 1)]


def _another_model(vectors: Matrix, rows: Rows) -> None:
    vectors[rows] = vectors[rows][:, ::-1]


def _longer(vectors: Matrix, rows: Rows) -> None:
    vectors[rows] *= 1.5


ENCODERS: dict[str, Callable[[Matrix, Rows], None]] = {
    "shuffled ids": _shuffled,
    "another model": _another_model,
    "lengths": _longer,
}
INDEXES = {
    "as it should be": "hnsw (embedding vector_ip_ops)",
    "wrong operator class": "hnsw (embedding vector_l2_ops)",
    "partial, 1% left out": "hnsw (embedding vector_ip_ops) WHERE chunk_id > 4",
    "partial, 5% left out": "hnsw (embedding vector_ip_ops) WHERE chunk_id > 20",
    "partial, 10% left out": "hnsw (embedding vector_ip_ops) WHERE chunk_id > 40",
    "B-tree of the name": "btree (chunk_id)",
    "over an expression": f"hnsw ((embedding::halfvec({DIMENSIONS})) halfvec_ip_ops)",
    "invalid": "hnsw (embedding vector_ip_ops)",
}


def run(rounds: int) -> None:
    """Measure, and print the share seen and the median time of a run; `rounds` is not used."""
    with own_database("bench") as database, database.session("bench") as connection:
        version, vectors = _filled(database, connection, CHUNKS)
        rows = [_complete(connection, version, share) for share in SHARES]
        for name in ENCODERS:
            rows += [_encoder(connection, version, vectors, name, share) for share in SHARES]
        _show(f"{CHUNKS:,} chunks, {RUNS} runs each", rows)
        connection.execute("DELETE FROM document_chunks WHERE id > %s", [SMALL])
        _show(
            f"indexes over {SMALL} chunks, {RUNS} runs each",
            [_index(connection, version, name) for name in INDEXES],
        )


def _filled(database: Database, connection: Connection, chunks: int) -> tuple[Version, Matrix]:
    corpus.fill(connection, chunks, words=5)
    vectors = corpus.random_vectors(chunks, DIMENSIONS)
    key = corpus.fresh_version(connection, DIMENSIONS).version_key
    connection.execute("UPDATE embedding_versions SET distance_metric = 'ip', encoder_spec = 'free:matrix'")
    corpus.backfill(database, get_version(connection, key), corpus.FreeEncoder(vectors))
    unguarded = sql.SQL("ALTER TABLE {} DISABLE TRIGGER embeddings_deleted")  # which refuses what is measured here
    connection.execute(unguarded.format(get_version(connection, key).table))
    return get_version(connection, key), vectors


def _seen(
    connection: Connection, version: Version, guard: str, name: str, damaged: Callable[[int], EncoderCache]
) -> list[str]:
    """A row of the table: in how many runs the guard fails when `damaged` has been called with the run's number."""
    (rule,) = (rule for rule in GUARDS if rule.name == guard)
    failed, seconds = 0, []
    for number in range(RUNS):
        with connection.transaction(force_rollback=True):
            encoders = damaged(number)
            began = time.perf_counter()
            found = rule.run(Subject(connection, version, Policy(), encoders))
            seconds.append(time.perf_counter() - began)
        failed += found.verdict == "fail"
    return [f"{guard}: {name}", f"{failed / RUNS:.1%}", f"{1000 * statistics.median(seconds):.0f}"]


def _complete(connection: Connection, version: Version, share: float) -> list[str]:
    def damaged(number: int) -> EncoderCache:
        rows = _rows(number, share) + 1
        connection.execute(
            sql.SQL("DELETE FROM {} WHERE chunk_id = ANY(%s)").format(version.table), [rows.tolist()]
        )
        return EncoderCache()

    return _seen(connection, version, "complete", f"{share:.0%} deleted", damaged)


def _encoder(connection: Connection, version: Version, vectors: Matrix, name: str, share: float) -> list[str]:
    def damaged(number: int) -> EncoderCache:
        now = vectors.copy()
        ENCODERS[name](now, _rows(number, share))
        encoder = corpus.FreeEncoder(now)
        return EncoderCache(lambda _spec: encoder)

    return _seen(connection, version, "encoder", f"{share:.0%} {name}", damaged)


def _index(connection: Connection, version: Version, name: str) -> list[str]:
    made = sql.SQL("CREATE INDEX {} ON {} USING {}").format(
        sql.Identifier(index.index_name(version)),
        version.table,
        sql.SQL(INDEXES[name]),  # type: ignore[arg-type]
    )

    def damaged(_number: int) -> EncoderCache:
        connection.execute(made)
        if name == "invalid":
            connection.execute(
                "UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass(%s)",
                [index.index_name(version)],
            )
        return EncoderCache()

    return _seen(connection, version, "index valid", name, damaged)


def _rows(number: int, share: float) -> Rows:
    return np.random.default_rng(number).permutation(CHUNKS)[: round(share * CHUNKS)]


def _show(title: str, rows: list[list[str]]) -> None:
    show_table(title, ("seen", "ms"), rows)
