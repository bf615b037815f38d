"""A pilot: evaluate a candidate on a sample of the collection before paying for all of it.

It embeds all judged chunks, and random chunks as distractors. Both versions are searched on exactly these, without
an index. With fewer distractors both score higher than on the whole collection, so only the difference counts, and
it means less the smaller the sample; the run and every report say so.

The candidate's vectors are stored in its table: a backfill does not pay for them again.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from psycopg import sql

from revector.core import audit
from revector.core.backfill.worker.encoding import BatchEncoder, check_encoder
from revector.core.database import Connection, Database, Progress, fetch_column, fetch_one
from revector.core.errors import EncoderError, RefusedError, UsageError
from revector.core.evaluation.judged_sets.judgements import Qrels, document_id_of
from revector.core.evaluation.runs.store import QueryHits, finish_run, start_run, store_hits, stored_queries
from revector.core.loader import insert_missing
from revector.core.registry import chunk_count, create_table
from revector.core.retrieval import EncoderCache

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from revector.core.encoders import Encoder
    from revector.core.evaluation.document import Run
    from revector.core.evaluation.judged_sets.query_sets import Query, QuerySet
    from revector.core.registry import Metric, Version

DISTRACTORS = 5_000
"""The default number of random chunks."""

_BATCH = 256
_LISTED = 500_000
"""Up to this many ids the sample is drawn from a list; above, by random ids."""
_DRAWS = 64
_QUERIES_AT_ONCE = 64


@dataclass(frozen=True)
class Pilot:
    """What a pilot would embed: `chunk_ids` (n,) ascending, of which `judged` are judged and the others random.

    `left_out` chunks of the pool have no vector in the primary. `to_embed` chunks with `tokens` tokens are not in
    the candidate yet; `cost_usd` is None when the price is unknown.
    """

    chunk_ids: NDArray[np.int64]
    judged: int
    left_out: int
    collection: int
    seed: int
    to_embed: int
    tokens: int
    cost_usd: float | None

    @property
    def drawn(self) -> int:
        """How many are random."""
        return len(self.chunk_ids) - self.judged

    @property
    def says(self) -> str:
        """The sampling in a sentence, for every page that shows a result of it."""
        return (
            f"A pilot on {len(self.chunk_ids):,} of {self.collection:,} chunks: {self.judged:,} judged, {self.drawn:,} "
            f"random (seed {self.seed}). Both versions were searched on these only, without an index: "
            "their scores are higher than on the whole collection."
        )


def plan_pilot(
    connection: Connection,
    qrels: Qrels,
    primary: Version,
    candidate: Version,
    encoder: Encoder,
    *,
    distractors: int = DISTRACTORS,
    seed: int = 2026,
) -> Pilot:
    """Draw the sample, and compute its cost. Nothing is embedded.

    Raises UsageError for a negative number of distractors, RefusedError when the collection has no judged chunk.
    """
    if distractors < 0:
        raise UsageError(f"{distractors} is not a number of distractors.", "Use 0 or more.")
    pool = _judged_chunks(connection, qrels)
    if not len(pool):
        raise RefusedError(
            "None of the judged documents or chunks is in the collection, so a pilot has nothing to find.",
            "Ingest the judged documents, or judge others.",
        )
    drawn = _draw(connection, distractors, seed, pool)
    wanted = np.union1d(pool, drawn)
    here = _with_vector(connection, primary, wanted)
    missing = np.setdiff1d(here, _with_vector(connection, candidate, here), assume_unique=True)
    tokens = 0
    for start in range(0, len(missing), _BATCH):
        tokens += encoder.count_tokens(_texts(connection, missing[start : start + _BATCH])[1])
    return Pilot(
        chunk_ids=here,
        judged=int(np.isin(here, pool).sum()),
        left_out=len(wanted) - len(here),
        collection=chunk_count(connection),
        seed=seed,
        to_embed=len(missing),
        tokens=tokens,
        cost_usd=None if encoder.price is None else tokens * encoder.price / 1e6,
    )


def embed_pilot(
    connection: Connection,
    candidate: Version,
    encoder: Encoder,
    pilot: Pilot,
    *,
    on_progress: Progress | None = None,
) -> int:
    """Embed the sample's chunks that the candidate lacks, batch by batch; returns how many.

    Every batch is stored at once, so that a second call continues after an interruption. Raises EncoderError for a
    text that the encoder refuses, UnreachableError as the encoder does.
    """
    check_encoder(encoder, candidate)
    create_table(connection, candidate)
    missing = np.setdiff1d(
        pilot.chunk_ids, _with_vector(connection, candidate, pilot.chunk_ids), assume_unique=True
    )
    stored = 0
    for start in range(0, len(missing), _BATCH):
        ids, texts = _texts(connection, missing[start : start + _BATCH])
        batch = BatchEncoder(encoder, candidate)
        batch.encode(texts)
        if batch.failures:
            row, error = batch.failures[0]
            raise EncoderError(
                f"The encoder rejects chunk {ids[row]}: {error}",
                "Leave its document out, or choose another encoder.",
            )
        order = np.argsort(ids)
        with connection.transaction():
            done = len(insert_missing(connection, candidate, ids[order], batch.vectors[order]))
            connection.execute("INSERT INTO row_counts (scope, delta) VALUES (%s, %s)", [candidate.id, done])
        stored += done
        if on_progress:
            on_progress(f"embedding the pilot of {candidate.version_key}", start + len(ids), len(missing))
    audit.record(
        connection, "evaluate pilot", candidate.version_key, detail={"embedded": stored, "says": pilot.says}
    )
    return stored


def run_pilot(
    database: Database,
    query_set: QuerySet,
    versions: tuple[Version, Version],
    pilot: Pilot,
    *,
    k: int = 100,
    encoders: EncoderCache | None = None,
    on_progress: Progress | None = None,
) -> tuple[Run, Run]:
    """Search both versions on the sample, exactly; returns their runs, which are marked as a pilot's."""
    cache = encoders or EncoderCache()
    with database.session("pilot", own_session=True) as connection:
        found = [
            _search(connection, query_set, version, pilot, min(k, len(pilot.chunk_ids)), cache, on_progress)
            for version in versions
        ]
    return found[0], found[1]


def _search(
    connection: Connection,
    query_set: QuerySet,
    version: Version,
    pilot: Pilot,
    k: int,
    encoders: EncoderCache,
    on_progress: Progress | None,
) -> Run:
    sample = _Sample(*_vectors(connection, version, pilot.chunk_ids), version.distance_metric)
    encoder = encoders.encoder(version)
    run = start_run(
        connection,
        query_set,
        version,
        encoder_revision=encoder.revision,
        k=k,
        exact=True,
        ef_search=None,
        index_settings={},
        chunks=len(sample.ids),
        sample={
            "says": pilot.says,
            "judged": pilot.judged,
            "drawn": pilot.drawn,
            "of": pilot.collection,
            "seed": pilot.seed,
        },
    )
    began = time.perf_counter()
    done = stored_queries(connection, run)
    queries = [query for query in query_set.queries if query.id not in done]
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        part = queries[start : start + _QUERIES_AT_ONCE]
        store_hits(connection, run, [_hits(query, sample, encoder, k) for query in part])
        if on_progress:
            on_progress(f"searching {version.version_key}", len(done) + start + len(part), run.queries)
    return finish_run(connection, run, time.perf_counter() - began)


def _hits(query: Query, sample: _Sample, encoder: Encoder, k: int) -> QueryHits:
    began = time.perf_counter()
    asked = encoder.encode_query(query.text.strip())
    encoded = time.perf_counter()
    distances = sample.distances(asked)
    # By distance, then by id, so that the same sample always gives the same ranks.
    best = np.lexsort((sample.ids, distances))[:k]
    searched = time.perf_counter()
    return QueryHits(
        query.id,
        sample.ids[best],
        tuple(sample.documents[row] for row in best),
        distances[best].astype(np.float32),
        1000 * (encoded - began),
        1000 * (searched - encoded),
    )


@dataclass
class _Sample:
    """Chunks `ids` (n,) of `documents` (n), and the distances of their `vectors` (n, d) to a query."""

    ids: NDArray[np.int64]
    documents: tuple[uuid.UUID, ...]
    vectors: NDArray[np.float32]
    metric: Metric

    def __post_init__(self) -> None:
        self._rows = self.vectors.astype(np.float64)
        if self.metric == "cosine":
            self._rows /= np.linalg.norm(self._rows, axis=1, keepdims=True)

    def distances(self, query: NDArray[np.float32]) -> NDArray[np.float64]:
        """The distances (n,) to a query (d,), as pgvector's <=>, <-> and <#> define them."""
        asked = query.astype(np.float64)
        if self.metric == "l2":
            return np.asarray(np.linalg.norm(self._rows - asked, axis=1))
        products = self._rows @ asked
        return np.asarray(-products if self.metric == "ip" else 1 - products / np.linalg.norm(asked))


# -- the sample --------------------------------------------------------------------------------------------


def _judged_chunks(connection: Connection, qrels: Qrels) -> NDArray[np.int64]:
    """The chunks (n,) that were judged, or whose documents were, ascending."""
    targets = sorted({target for grades in qrels.grades.values() for target in grades})
    if qrels.level == "chunk":
        found = fetch_column(connection, "SELECT id FROM document_chunks WHERE semantic_key = ANY(%s)", [targets])
    else:
        documents = [document_id_of(target) for target in targets]
        found = fetch_column(connection, "SELECT id FROM document_chunks WHERE document_id = ANY(%s)", [documents])
    return np.array(sorted(found), dtype=np.int64)


def _draw(connection: Connection, wanted: int, seed: int, pool: NDArray[np.int64]) -> NDArray[np.int64]:
    """Random chunks (n,) of the collection outside of the pool, all equally likely; fewer when there are fewer."""
    generator = np.random.default_rng(seed)
    first, last = fetch_one(connection, "SELECT coalesce(min(id), 0), coalesce(max(id), -1) FROM document_chunks")
    if last - first < _LISTED:
        every = fetch_column(connection, "SELECT id FROM document_chunks ORDER BY id")
        others = np.setdiff1d(np.array(every, dtype=np.int64), pool)
        return np.sort(generator.choice(others, min(wanted, len(others)), replace=False))
    found = np.empty(0, dtype=np.int64)
    for _ in range(_DRAWS):
        # Ids are dense except for deleted chunks: most draws hit.
        tried = np.unique(generator.integers(first, last, 2 * wanted, endpoint=True))
        query = "SELECT id FROM document_chunks WHERE id = ANY(%s)"
        there = fetch_column(connection, query, [np.setdiff1d(tried, pool).tolist()])
        found = np.union1d(found, np.array(there, dtype=np.int64))
        if len(found) >= wanted:
            break
    return np.sort(generator.choice(found, min(wanted, len(found)), replace=False))


def _with_vector(connection: Connection, version: Version, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the chunks (n,) that have a vector in the version, ascending."""
    if fetch_one(connection, "SELECT to_regclass(%s)", [version.table_name])[0] is None:
        return np.empty(0, dtype=np.int64)
    query = sql.SQL("SELECT chunk_id FROM {} WHERE chunk_id = ANY(%s) ORDER BY 1").format(version.table)
    return np.array(fetch_column(connection, query, [ids.tolist()]), dtype=np.int64)


def _texts(connection: Connection, ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
    """The chunks that still exist, with their texts."""
    rows = connection.execute(
        "SELECT id, content FROM document_chunks WHERE id = ANY(%s) ORDER BY id", [ids.tolist()]
    ).fetchall()
    return np.array([row[0] for row in rows], dtype=np.int64), [row[1] for row in rows]


def _vectors(
    connection: Connection, version: Version, ids: NDArray[np.int64]
) -> tuple[NDArray[np.int64], tuple[uuid.UUID, ...], NDArray[np.float32]]:
    """The chunks (n,) that still exist, their documents (n) and their vectors (n, d)."""
    rows = connection.execute(
        sql.SQL(
            """
            SELECT e.chunk_id, c.document_id, vector_send(e.embedding::vector)
            FROM {} e JOIN document_chunks c ON c.id = e.chunk_id
            WHERE e.chunk_id = ANY(%s) ORDER BY e.chunk_id
            """
        ).format(version.table),
        [ids.tolist()],
        binary=True,
    ).fetchall()
    found = np.array([row[0] for row in rows], dtype=np.int64)
    # Two int16 before the numbers: see vector_send in pgvector's src/vector.c.
    raw = np.frombuffer(b"".join(row[2][4:] for row in rows), dtype=">f4")
    vectors = raw.astype(np.float32).reshape(len(found), version.dimensions)
    return found, tuple(row[1] for row in rows), vectors
