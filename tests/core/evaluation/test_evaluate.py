"""Two versions compared: every figure equals one worked out here, and nothing is dropped in silence."""

from __future__ import annotations

from dataclasses import replace
from math import log2
from pathlib import Path
from statistics import fmean
from uuid import UUID

import pytest

from revector.core import overlap as ranks
from revector.core.audit import entries
from revector.core.database import Connection, Database, fetch_one
from revector.core.documents import Document
from revector.core.errors import RefusedError, UsageError
from revector.core.evaluation.document import evaluations, get_evaluation
from revector.core.evaluation.evaluate import Asked, evaluate, evaluate_runs
from revector.core.evaluation.gates.gate_file import read_gates
from revector.core.evaluation.judged_sets.judgements import Judgement, ensure_judge, save_judgements
from revector.core.evaluation.judged_sets.query_sets import Query, QuerySet, get_query_set, save_queries
from revector.core.evaluation.reports.wording import run_settings
from revector.core.evaluation.runs.make_run import stored_or_made_run
from revector.core.evaluation.runs.store import load_results
from revector.core.ingest import ingest
from revector.core.registry import get_version
from revector.core.retrieval import VersionSearcher
from tests.versions import NUMBERS, ready_version

TEXTS = [f"{a} and {b}" for a in NUMBERS for b in NUMBERS]
QUERIES = (
    Query("q1", "seven and three", "odd"),
    Query("q2", "two and four", "even"),
    Query("q3", "nothing is judged of this", "odd"),
    Query("q4", "six and eight", "even"),
)
QRELS = {
    "q1": {"seven and three": 2, "three and seven": 1, "gone": 2},
    "q2": {"two and four": 1, "four and two": 1},
    "q4": {"eight and nine": 1},
}


@pytest.fixture
def numbers(database: Database, connection: Connection) -> QuerySet:
    ingest(connection, [Document(text, text) for text in TEXTS], chunk_characters=500)
    for key, spec in (("v1", "static:wordllama-64"), ("v2", "static:wordllama-256")):
        ready_version(database, connection, key, spec)
    save_queries(connection, "numbers", QUERIES)
    query_set = get_query_set(connection, "numbers")
    given = [
        Judgement(q, "document", target, grade)
        for q, targets in QRELS.items()
        for target, grade in targets.items()
    ]
    save_judgements(connection, query_set, ensure_judge(connection, "ann", "person"), given)
    return query_set


def ndcg(ranking: list[str], grades: dict[str, int], k: int) -> float:
    """nDCG@k as trec_eval defines it: the grade is the gain."""
    gain = sum(grades.get(document, 0) / log2(rank + 1) for rank, document in enumerate(ranking[:k], 1))
    ideal = sorted(grades.values(), reverse=True)[:k]
    return gain / sum(grade / log2(rank + 1) for rank, grade in enumerate(ideal, 1))


def test_figures_equal_an_independent_computation(
    database: Database, connection: Connection, numbers: QuerySet
) -> None:
    versions = [get_version(connection, key) for key in ("v1", "v2")]
    found = evaluate(database, numbers, *versions, Asked(measures=("nDCG@10",)))
    searcher = VersionSearcher(connection)
    rankings = [
        {q.id: [hit.source_id for hit in searcher.search(q.text, 10, version=version).hits] for q in QUERIES}
        for version in versions
    ]
    assert [(row.measure, row.segment, row.queries) for row in found.measures] == [
        ("nDCG@10", "all", 3), ("nDCG@10", "even", 2), ("nDCG@10", "odd", 1),
    ]  # fmt: skip
    for row, ids in zip(found.measures, (["q1", "q2", "q4"], ["q2", "q4"], ["q1"]), strict=True):
        for value, ranking in ((row.primary, rankings[0]), (row.candidate, rankings[1])):
            assert value == pytest.approx(fmean(ndcg(ranking[q], QRELS[q], 10) for q in ids))
        assert row.difference == pytest.approx(row.candidate - row.primary)
    assert found.measures[2].p_value is None
    by_measure = {(row.measure, row.segment): row for row in found.overlaps}
    expected = {q.id: ranks.compare(rankings[0][q.id], rankings[1][q.id], 10) for q in QUERIES}
    assert by_measure["overlap", "all"].mean == pytest.approx(fmean(each.overlap for each in expected.values()))
    assert by_measure["rbo", "odd"].mean == pytest.approx((expected["q1"].rbo + expected["q3"].rbo) / 2)
    assert {each.id: each.rbo for each in found.queries} == pytest.approx({q: o.rbo for q, o in expected.items()})
    q1, q3 = (next(each for each in found.queries if each.id == name) for name in ("q1", "q3"))
    judged = sum(target in QRELS["q1"] for target in rankings[0]["q1"])
    assert (q1.judged, q1.primary_unjudged) == (3, 10 - judged)
    assert (q3.judged, q3.primary, q3.primary_unjudged) == (0, {}, 10)


def test_what_is_kept_is_what_was_shown(database: Database, connection: Connection, numbers: QuerySet) -> None:
    pair = get_version(connection, "v1"), get_version(connection, "v2")
    found = evaluate(database, numbers, *pair)
    assert get_evaluation(connection, found.id) == found
    assert (found.unjudged_queries, found.judged_queries, found.judgements) == (1, 3, 6)
    assert found.unknown_targets == (("q1", "gone"),)
    assert any("1 of 6 judgements" in warning for warning in found.warnings)
    assert [row.id for row in evaluations(connection)] == [found.id]
    assert evaluations(connection, candidate="v1") == []
    done = next(entry for entry in entries(connection) if entry.action == "evaluate")
    assert (done.version_key, done.detail["evaluation"], done.detail["verdict"]) == ("v2", found.id, None)
    for report in ("{}", '{"gates": []}', '{"gates": [3]}', '{"gates": [], "k": "x"}'):  # operators may insert one
        (number,) = fetch_one(
            connection,
            """
            INSERT INTO evaluations
                (query_set_id, primary_run_id, candidate_run_id, primary_version, candidate_version, report)
            SELECT query_set_id, primary_run_id, candidate_run_id, primary_version, candidate_version, %s
            FROM evaluations WHERE id = %s RETURNING id
            """,
            [report, found.id],
        )
        with pytest.raises(
            RefusedError, match=f"report of evaluation {number}, saved by postgres, is not revector's"
        ):
            get_evaluation(connection, number)


def test_the_same_runs_give_the_same_figures(
    database: Database, connection: Connection, numbers: QuerySet
) -> None:
    first = evaluate(database, numbers, get_version(connection, "v1"), get_version(connection, "v2"))
    again = evaluate_runs(connection, numbers, first.primary, first.candidate)
    assert replace(again, id=first.id, created_at=first.created_at) == first


def test_judgements_on_chunks_rank_chunks(database: Database, connection: Connection, numbers: QuerySet) -> None:
    keys = dict(connection.execute("SELECT content, semantic_key FROM document_chunks").fetchall())
    judge = ensure_judge(connection, "bob", "person")
    save_judgements(
        connection,
        numbers,
        judge,
        [Judgement("q2", "chunk", keys["two and four"], 1), Judgement("q2", "chunk", "0" * 64, 1)],
    )
    pair = get_version(connection, "v1"), get_version(connection, "v2")
    found = evaluate(database, numbers, *pair, Asked(judges=("bob",), measures=("RR@10", "R@100")))
    assert (found.level, found.judges, found.judged_queries) == ("chunk", ("bob",), 1)
    values = {row.measure: row.candidate for row in found.measures if row.segment == "all"}
    assert values["R@100"] == 0.5  # the other chunk is not there
    assert values["RR@10"] > 0
    assert found.unknown_targets == (("q2", "0" * 64),)


def test_runs_that_cannot_be_compared_are_refused(
    database: Database, connection: Connection, numbers: QuerySet
) -> None:
    v1, v2 = get_version(connection, "v1"), get_version(connection, "v2")
    with pytest.raises(RefusedError, match="itself"):
        evaluate(database, numbers, v1, v1)
    with pytest.raises(UsageError, match="R@200 needs the first 200"):
        evaluate(database, numbers, v1, v2, Asked(measures=("R@200",)))
    found = evaluate(database, numbers, v1, v2)
    save_queries(connection, "numbers", QUERIES[:2])
    with pytest.raises(UsageError, match="was made with query set 'numbers' at revision"):
        evaluate_runs(connection, get_query_set(connection, "numbers"), found.primary, found.candidate)


def test_a_gate_on_a_segment_nobody_has_is_refused_before_anything_is_searched(
    database: Database, connection: Connection, numbers: QuerySet, tmp_path: Path
) -> None:
    path = tmp_path / "gates.toml"
    path.write_text('[[gate]]\nmeasure = "P@10"\nsegment = "evn"\nat_least = 0.5\n')
    with pytest.raises(UsageError, match="evn"):
        evaluate(
            database,
            numbers,
            get_version(connection, "v1"),
            get_version(connection, "v2"),
            Asked(gates=read_gates(path)),
        )
    assert connection.execute("SELECT count(*) FROM evaluation_runs").fetchone() == (0,)


def test_an_encoder_at_another_revision_than_the_vectors_is_said(
    database: Database, connection: Connection, numbers: QuerySet
) -> None:
    connection.execute("ALTER TABLE embedding_versions DISABLE TRIGGER check_version")
    connection.execute("UPDATE embedding_versions SET encoder_revision = 'older' WHERE version_key = 'v2'")
    found = evaluate(database, numbers, get_version(connection, "v1"), get_version(connection, "v2"))
    assert [warning for warning in found.warnings if "may not be of one model" in warning] == [
        f"The queries of v2 were encoded at revision {found.candidate.encoder_revision} of its encoder; its vectors "
        "were registered at older: they may not be of one model."
    ]


def test_runs_that_hold_too_few_documents_for_a_measure_are_said(
    database: Database, connection: Connection, numbers: QuerySet
) -> None:
    connection.execute("UPDATE document_chunks SET document_id = %s WHERE id %% 2 = 0", [UUID(int=1)])
    pair = get_version(connection, "v1"), get_version(connection, "v2")
    found = evaluate(database, numbers, *pair, Asked(measures=("R@20",)), depth=20)
    assert (
        "Runs keep 20 chunks per query, fewer than 20 documents, for 4 of v1 and 4 of v2: deep measures read low."
    ) in found.warnings
    shallow = evaluate(database, numbers, *pair, Asked(measures=("P@1",)), depth=20)
    assert not any("read low" in warning for warning in shallow.warnings)


def test_hybrid_runs_are_what_users_get_and_are_kept_apart(
    database: Database, connection: Connection, numbers: QuerySet, tmp_path: Path
) -> None:
    pair = get_version(connection, "v1"), get_version(connection, "v2")
    save_queries(connection, "numbers", [*QUERIES, Query("q5", 'seven -"seven and seven" -one', "odd")])
    numbers = get_query_set(connection, "numbers")
    plain = evaluate(database, numbers, *pair)
    hybrid = evaluate(database, numbers, *pair, hybrid=True)
    assert (plain.primary.hybrid, plain.candidate.hybrid) == (False, False)
    assert (hybrid.primary.hybrid, hybrid.candidate.hybrid, hybrid.candidate.ef_search) == (True, True, 200)
    assert "top 100 of 256 chunks, hybrid, by the index" in run_settings(hybrid.candidate)
    assert get_evaluation(connection, hybrid.id) == hybrid
    searcher = VersionSearcher(connection)
    for run, version in zip((hybrid.primary, hybrid.candidate), pair, strict=True):
        found = load_results(connection, run).hits
        for query in numbers.queries:
            by_hand = searcher.search(query.text, 100, version=version, hybrid=True).hits
            assert found[query.id].chunk_ids.tolist() == [hit.chunk_id for hit in by_hand]
            assert found[query.id].distances == pytest.approx([hit.distance for hit in by_hand], abs=1e-6)
    # Thresholds and judges look at distances: never at those of a hybrid run.
    assert stored_or_made_run(database, numbers, pair[0], k=10).id == plain.primary.id

    mixed = evaluate_runs(connection, numbers, plain.primary, hybrid.candidate)
    assert any("differ in hybrid search: False of v1, True of v2" in warning for warning in mixed.warnings)
    (tmp_path / "gates.toml").write_text('[[gate]]\nmeasure = "P@10"\nat_least = 0.01\n')
    with pytest.raises(UsageError, match="Only one of the runs"):
        evaluate_runs(
            connection, numbers, plain.primary, hybrid.candidate, Asked(gates=read_gates(tmp_path / "gates.toml"))
        )
    with pytest.raises(UsageError, match="by vectors alone"):
        evaluate(database, numbers, *pair, exact=True, hybrid=True)
    with pytest.raises(UsageError, match="not a valid name"):
        save_queries(connection, "numbers (hybrid)", QUERIES)
