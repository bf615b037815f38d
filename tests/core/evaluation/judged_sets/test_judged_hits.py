"""What judges say of a comparison's hits."""

from __future__ import annotations

from uuid import uuid4

import pytest
import pytrec_eval

from revector.core.chunks import document_uuid
from revector.core.database import Connection, Database
from revector.core.evaluation.judged_sets.judged_hits import QrelsCache, find_query, judge_comparison
from revector.core.evaluation.judged_sets.judgements import Judgement, ensure_judge, save_judgements
from revector.core.evaluation.judged_sets.query_sets import Query, get_query_set, save_queries
from revector.core.registry import Version
from revector.core.retrieval import Comparison, EncoderCache, VersionSearcher
from tests.evaluations import judged_set
from tests.versions import ready_version

PARAGRAPHS = {
    "keys.md": "# Keys\n\nHow to rotate an API key: create a new key and revoke the old key.",
    "invoices.md": "# Invoices\n\nInvoices are sent on the first day of a month to the billing contact.",
    "backup.md": "# Backups\n\nThe database is backed up each night and restored for a test.",
    "password.md": "# Passwords\n\nA user resets a forgotten password by a link that is sent by mail.",
}
"""By source id."""
QUERY = Query("q1", "rotate an api key", "how-to")


@pytest.fixture
def pair(database: Database, connection: Connection) -> tuple[Version, Version]:
    """Documents as they are ingested, under two versions."""
    for source_id, text in PARAGRAPHS.items():
        for number, part in enumerate(text.split("\n\n")):
            connection.execute(
                """
                INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256, source_id)
                VALUES (%s, %s, %s, %s, sha256(convert_to(%s, 'UTF8')), %s)
                """,
                [uuid4().hex, document_uuid(source_id), number, part, part, source_id],
            )
    return (
        ready_version(database, connection, "small", "static:wordllama-64"),
        ready_version(database, connection, "large", "static:wordllama-256"),
    )


def compare(
    connection: Connection, pair: tuple[Version, Version], k: int = 3
) -> tuple[VersionSearcher, Comparison]:
    searcher = VersionSearcher(connection, EncoderCache())
    return searcher, searcher.compare(QUERY.text, *pair, k)


def test_a_documents_judgement_meets_every_chunk_of_it(
    connection: Connection, pair: tuple[Version, Version]
) -> None:
    judged_set(connection, "set", [QUERY], {"q1": {"keys.md": 2, "backup.md": 0, "not-there.md": 1}})
    searcher, found = compare(connection, pair, 8)
    judged = judge_comparison(connection, searcher, found, *pair)
    assert judged is not None
    expected = {
        hit.chunk_id: {"keys.md": 2, "backup.md": 0}[hit.source_id]
        for side in (found.primary, found.candidate)
        for hit in side.hits
        if hit.source_id in ("keys.md", "backup.md")
    }
    assert judged.grades == expected
    assert len([grade for grade in judged.grades.values() if grade == 2]) == 2, "heading and text"
    assert (judged.query_set, judged.query, judged.level, judged.judges) == ("set", QUERY, "document", ("ada",))
    assert judged.relevant == 2, "the one that is not there counts"


def test_ndcg_is_that_of_documents_by_their_best_chunk(
    connection: Connection, pair: tuple[Version, Version]
) -> None:
    qrels = {"keys.md": 1, "password.md": 2, "invoices.md": 0}
    judged_set(connection, "set", [QUERY], {"q1": qrels})
    searcher, found = compare(connection, pair, 3)
    judged = judge_comparison(connection, searcher, found, *pair)
    assert judged is not None
    for version, value in zip(pair, (judged.primary_ndcg, judged.candidate_ndcg), strict=True):
        hits = searcher.search(QUERY.text, 100, version=version).hits
        documents = list(dict.fromkeys(hit.source_id for hit in hits))
        run = {"q1": {document: 100.0 - rank for rank, document in enumerate(documents)}}
        evaluator = pytrec_eval.RelevanceEvaluator({"q1": qrels}, {"ndcg_cut.3"})
        assert value == pytest.approx(evaluator.evaluate(run)["q1"]["ndcg_cut_3"])


def test_chunks_are_judged_by_their_semantic_key(connection: Connection, pair: tuple[Version, Version]) -> None:
    searcher, found = compare(connection, pair)
    first, second = found.primary.hits[:2]
    judged_set(connection, "set", [QUERY], {"q1": {first.semantic_key: 3, second.semantic_key: 0}}, kind="chunk")
    judged = judge_comparison(connection, searcher, found, *pair)
    assert judged is not None
    assert judged.level == "chunk"
    assert judged.grades == {first.chunk_id: 3, second.chunk_id: 0}
    assert judged.primary_ndcg == 1.0


def test_nothing_is_said_of_a_query_of_no_set_or_without_judgements(
    connection: Connection, pair: tuple[Version, Version]
) -> None:
    searcher, found = compare(connection, pair)
    assert judge_comparison(connection, searcher, found, *pair) is None
    save_queries(connection, "set", [Query("q1", QUERY.text.upper()), Query("q2", QUERY.text + " ")])
    assert judge_comparison(connection, searcher, found, *pair) is None, "the exact text"
    save_queries(connection, "set", [QUERY])
    judged = judge_comparison(connection, searcher, found, *pair)
    assert judged is not None
    assert (judged.grades, judged.primary_ndcg, judged.candidate_ndcg) == ({}, None, None)


def test_only_irrelevant_ones_give_no_ndcg(connection: Connection, pair: tuple[Version, Version]) -> None:
    judged_set(connection, "set", [QUERY], {"q1": {"keys.md": 0}})
    searcher, found = compare(connection, pair)
    judged = judge_comparison(connection, searcher, found, *pair)
    assert judged is not None
    assert set(judged.grades.values()) == {0}
    assert judged.primary_ndcg is None


def test_of_several_sets_the_preferred_one_and_then_a_judged_one(connection: Connection) -> None:
    save_queries(connection, "a", [QUERY])
    judged_set(connection, "b", [QUERY], {"q1": {"keys.md": 1}})
    assert find_query(connection, QUERY.text) == ("b", QUERY)
    assert find_query(connection, QUERY.text, "a") == ("a", QUERY)
    assert find_query(connection, QUERY.text, "none") == ("b", QUERY)


def test_a_later_judgement_is_seen_and_nothing_is_read_twice(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    from revector.core.evaluation.judged_sets import judged_hits as module

    query_set = judged_set(connection, "set", [QUERY], {"q1": {"keys.md": 1}})
    loads = []
    real = module.load_qrels
    monkeypatch.setattr(module, "load_qrels", lambda *given: loads.append(1) or real(*given))
    cache = QrelsCache()
    for _ in range(3):
        qrels = cache.qrels(connection, "set")
        assert qrels is not None
        assert qrels.grades["q1"] == {"keys.md": 1}
    assert len(loads) == 1
    save_judgements(
        connection,
        query_set,
        ensure_judge(connection, "ada", "person"),
        [Judgement("q1", "document", "keys.md", 2)],
    )
    qrels = cache.qrels(connection, "set")
    assert qrels is not None
    assert qrels.grades["q1"] == {"keys.md": 2}
    assert get_query_set(connection, "set").queries == (QUERY,)
