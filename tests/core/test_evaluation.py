"""Judged queries: the figures equal an independent computation, and what cannot be read is named."""

from __future__ import annotations

from math import log2
from pathlib import Path

import pytest

from core.database import Connection, Database
from core.errors import UsageError
from core.evaluation.compare import WHOLE_SET, compare_versions
from core.evaluation.formats import JudgedQueries, read_beir
from core.evaluation.queries import Query
from core.overlap import overlap_at
from core.retrieval import Retriever
from tests.versions import NUMBERS, add_chunks, ready_version

TEXTS = [f"{a} and {b}" for a in NUMBERS for b in NUMBERS]


def ndcg(ranking: list[str], grades: dict[str, int], k: int) -> float:
    """nDCG@k as trec_eval defines it: the grade is the gain."""
    gain = sum(grades.get(document, 0) / log2(rank + 1) for rank, document in enumerate(ranking[:k], 1))
    ideal = sorted(grades.values(), reverse=True)[:k]
    return gain / sum(grade / log2(rank + 1) for rank, grade in enumerate(ideal, 1))


def test_measures_equal_an_independent_computation(database: Database, connection: Connection) -> None:
    add_chunks(connection, TEXTS)
    versions = [
        ready_version(database, connection, "v1"),
        ready_version(database, connection, "v2", "static:wordllama-256"),
    ]
    queries = (
        Query("q1", "seven and three", "odd"),
        Query("q2", "two and four", "even"),
        Query("q3", "nothing is judged of this", "odd"),
        Query("q4", "six and eight", "even"),
    )
    qrels = {
        "q1": {"doc-seven and three": 2, "doc-three and seven": 1, "doc-gone": 2},
        "q2": {"doc-two and four": 1, "doc-four and two": 1},
        "q4": {"doc-eight and nine": 1},
    }
    results = compare_versions(connection, JudgedQueries(queries, qrels), *versions)
    retriever = Retriever(connection)
    rankings = [
        {q.id: [hit.source_id for hit in retriever.search_version(q.text, version, 10).hits] for q in queries}
        for version in versions
    ]
    assert [(r.segment, r.queries) for r in results] == [(WHOLE_SET, 3), ("even", 2), ("odd", 1)]
    for result, ids in zip(results, (["q1", "q2", "q4"], ["q2", "q4"], ["q1"]), strict=True):
        assert result.measure == "nDCG@10"
        for found, ranking in ((result.primary, rankings[0]), (result.candidate, rankings[1])):
            assert found == pytest.approx(sum(ndcg(ranking[q], qrels[q], 10) for q in ids) / len(ids))
        assert result.difference == result.candidate - result.primary
        overlaps = [overlap_at(rankings[0][q], rankings[1][q], 10) for q in ids]
        assert result.overlap == pytest.approx(sum(overlaps) / len(ids))


def test_a_document_counts_by_its_best_chunk(database: Database, connection: Connection) -> None:
    add_chunks(connection, NUMBERS)
    connection.execute(
        "UPDATE document_chunks SET source_id = 'one document' WHERE content IN ('one', 'two', 'three')"
    )
    version = ready_version(database, connection, "v1")
    query_set = JudgedQueries((Query("q", "two", "s"),), {"q": {"one document": 1}})
    assert compare_versions(connection, query_set, version, version)[0].primary == 1.0


def test_the_beir_layout_is_read(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text(
        '{"_id": 1, "text": "a", "metadata": {"segment": "s"}}\n\n{"_id": "2", "text": "b"}\n'
    )
    (tmp_path / "r.tsv").write_text('query-id\tcorpus-id\tscore\n1\td1\t2\n1\td"2\t0\n')
    found = read_beir(tmp_path / "q.jsonl", tmp_path / "r.tsv")
    assert found.queries == (Query("1", "a", "s"), Query("2", "b", "all"))
    assert found.qrels == {"1": {"d1": 2, 'd"2': 0}}


@pytest.mark.parametrize("line", ["{", "[]", '{"_id": 1}', '{"_id": 1, "text": "x", "metadata": "y"}'])
def test_a_broken_query_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "q.jsonl").write_text('{"_id": 1, "text": "a"}\n' + line)
    (tmp_path / "r.tsv").write_text("")
    with pytest.raises(UsageError, match=r"q\.jsonl:2"):
        read_beir(tmp_path / "q.jsonl", tmp_path / "r.tsv")


@pytest.mark.parametrize("line", ["1\td1", "1\td1\tyes", "1\td1\t1\t1"])
def test_a_broken_judgement_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "q.jsonl").write_text("")
    (tmp_path / "r.tsv").write_text("query-id\tcorpus-id\tscore\n" + line)
    with pytest.raises(UsageError, match=r"r\.tsv:2"):
        read_beir(tmp_path / "q.jsonl", tmp_path / "r.tsv")
    with pytest.raises(UsageError, match="cannot be read"):
        read_beir(tmp_path / "missing", tmp_path / "r.tsv")
