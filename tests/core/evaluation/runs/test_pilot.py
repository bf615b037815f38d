"""A pilot: what it draws, what it embeds, and that its ranks are those of a search over the sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from psycopg import sql

from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.job.status import status
from revector.core.chunks import document_uuid
from revector.core.database import Connection, Database
from revector.core.documents import Document
from revector.core.encoders import open_encoder
from revector.core.errors import RefusedError, UnreachableError, UsageError
from revector.core.evaluation.judged_sets.judgements import Judgement, ensure_judge, load_qrels, save_judgements
from revector.core.evaluation.judged_sets.query_sets import Query, QuerySet, get_query_set, save_queries
from revector.core.evaluation.runs.pilot import embed_pilot, plan_pilot, run_pilot
from revector.core.evaluation.runs.store import load_results
from revector.core.index import candidates_query
from revector.core.ingest import ingest
from revector.core.registry import Metric, embedded_count, get_version, version_statuses
from revector.core.retrieval import EncoderCache
from tests.versions import NUMBERS, SPEC, add, backfill, worker_on

TEXTS = [f"{a} {b}" for a in NUMBERS[:12] for b in NUMBERS[:12]]
CANDIDATE = "static:wordllama-128"


@pytest.fixture
def numbers(connection: Connection) -> QuerySet:
    """144 documents; ten are judged for five queries, and one judgement is of a document that is not there."""
    ingest(connection, [Document(f"doc-{n}", text) for n, text in enumerate(TEXTS)], chunk_characters=500)
    save_queries(connection, "numbers", [Query(f"q{n}", TEXTS[n], "all") for n in range(5)])
    query_set = get_query_set(connection, "numbers")
    given = [Judgement(f"q{n}", "document", f"doc-{d}", int(d == n)) for n in range(5) for d in (n, n + 20)]
    given.append(Judgement("q0", "document", "doc-nowhere", 1))
    save_judgements(connection, query_set, ensure_judge(connection, "ann", "person"), given)
    return query_set


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
def test_the_ranks_are_those_of_an_exact_search_of_the_sample(
    database: Database, connection: Connection, numbers: QuerySet, metric: Metric
) -> None:
    primary, candidate = add(connection, "v1", metric=metric), add(connection, "v2", CANDIDATE, metric=metric)
    backfill(database, primary)
    qrels = load_qrels(connection, numbers)
    encoder = open_encoder(CANDIDATE)
    plan = plan_pilot(connection, qrels, primary, candidate, encoder, distractors=30)
    assert (plan.judged, plan.drawn, plan.left_out, plan.collection, plan.to_embed) == (10, 30, 0, 144, 40)
    assert plan.cost_usd == 0
    assert embed_pilot(connection, candidate, encoder, plan) == 40
    runs = run_pilot(database, numbers, (primary, candidate), plan, k=15)
    for version, run in zip((primary, candidate), runs, strict=True):
        assert (run.exact, run.chunks, run.k) == (True, 40, 15)
        assert run.sample is not None
        assert run.sample["says"] == plan.says
        found = load_results(connection, run)
        own = EncoderCache().encoder(version)
        # The server's own distances over the same chunks.
        connection.execute("SET enable_indexscan = off")
        for query in numbers.queries:
            asked = own.encode_query(query.text)
            rows = connection.execute(
                sql.SQL("SELECT * FROM ({}) AS nearest WHERE chunk_id = ANY(%(ids)s) LIMIT 15").format(
                    candidates_query(version, 144)
                ),
                {"vector": str(asked.tolist()), "ids": plan.chunk_ids.tolist()},
            ).fetchall()
            hits = found.hits[query.id]
            assert hits.distances.tolist() == pytest.approx([row[1] for row in rows], abs=1e-5)
            by_document = connection.execute(
                "SELECT document_id FROM document_chunks WHERE id = %s", [int(hits.chunk_ids[0])]
            ).fetchone()
            assert by_document == (hits.document_ids[0],)
            if version is primary:
                assert hits.document_ids[0] == document_uuid(f"doc-{query.id[1:]}")


def test_a_backfill_does_not_pay_for_the_pilot_again(
    database: Database, connection: Connection, numbers: QuerySet
) -> None:
    primary, candidate = add(connection, "v1"), add(connection, "v2", CANDIDATE)
    backfill(database, primary)
    encoder = open_encoder(CANDIDATE)
    plan = plan_pilot(connection, load_qrels(connection, numbers), primary, candidate, encoder, distractors=20)
    embed_pilot(connection, candidate, encoder, plan)
    assert embedded_count(connection, candidate) == 30
    assert get_version(connection, "v2").state == "registered"
    assert plan_pilot(connection, load_qrels(connection, numbers), primary, candidate, encoder, distractors=20
                      ).to_embed == 0  # fmt: skip

    class Counting:
        def __init__(self) -> None:
            self.texts = 0

        def __getattr__(self, name: str) -> object:
            return getattr(encoder, name)

        def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            self.texts += len(texts)
            return encoder.encode_documents(texts)

    counting = Counting()
    worker_on(database, candidate, counting, JobSettings(64)).join()
    found = status(connection, candidate)
    assert found is not None
    assert found.state == "done"
    assert counting.texts <= 144 - 30 + 1  # and the probe
    assert {s.version.version_key: s.missing for s in version_statuses(connection)} == {"v1": 0, "v2": 0}


def test_an_encoder_that_fails_half_way_is_gone_on_with(
    database: Database, connection: Connection, numbers: QuerySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("revector.core.evaluation.runs.pilot._BATCH", 16)
    primary, candidate = add(connection, "v1"), add(connection, "v2", CANDIDATE)
    backfill(database, primary)
    real = open_encoder(CANDIDATE)

    class Tired:
        asked = 0

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

        def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
            self.asked += 1
            if self.asked == 4:
                raise UnreachableError("gone", temporary=True)
            return real.encode_documents(texts)

    plan = plan_pilot(connection, load_qrels(connection, numbers), primary, candidate, real, distractors=60)
    with pytest.raises(UnreachableError):
        embed_pilot(connection, candidate, Tired(), plan)  # type: ignore[arg-type]
    assert embedded_count(connection, candidate) == 32
    assert embed_pilot(connection, candidate, real, plan) == 38


def test_the_same_seed_draws_the_same_chunks(
    database: Database, connection: Connection, numbers: QuerySet
) -> None:
    version, qrels = add(connection, "v1"), load_qrels(connection, numbers)
    backfill(database, version)
    encoder = open_encoder(SPEC)

    def drawn(seed: int, number: int = 30) -> list[int]:
        return plan_pilot(
            connection, qrels, version, version, encoder, distractors=number, seed=seed
        ).chunk_ids.tolist()

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert len(drawn(1, 10_000)) == 144


def test_a_large_collection_is_drawn_from_evenly(
    database: Database, connection: Connection, numbers: QuerySet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("revector.core.evaluation.runs.pilot._LISTED", 10)
    version, qrels = add(connection, "v1"), load_qrels(connection, numbers)
    backfill(database, version)
    counts = dict.fromkeys(range(1, 145), 0)
    for seed in range(60):
        plan = plan_pilot(connection, qrels, version, version, open_encoder(SPEC), distractors=20, seed=seed)
        assert plan.drawn == 20
        for chunk in plan.chunk_ids.tolist():
            counts[chunk] += 1
    others = [count for count in counts.values() if count < 60]
    assert len(others) == 134
    assert max(others) < 25  # each is expected 9 times


def test_what_a_pilot_cannot_do_is_said(database: Database, connection: Connection, numbers: QuerySet) -> None:
    version, qrels = add(connection, "v1"), load_qrels(connection, numbers)
    encoder = open_encoder(SPEC)
    with pytest.raises(UsageError, match="-1 is not a number of distractors"):
        plan_pilot(connection, qrels, version, version, encoder, distractors=-1)
    connection.execute("DELETE FROM document_chunks")
    with pytest.raises(RefusedError, match="None of the judged"):
        plan_pilot(connection, qrels, version, version, encoder)
