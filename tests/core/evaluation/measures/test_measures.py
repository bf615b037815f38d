"""Measures equal those of pytrec_eval called directly on the same ranks."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from revector.core.chunks import document_uuid
from revector.core.database import Connection, Database
from revector.core.documents import read_documents
from revector.core.errors import UsageError
from revector.core.evaluation.files.qrels import read_qrels
from revector.core.evaluation.files.topics import read_queries
from revector.core.evaluation.judged_sets.judgements import (
    Judgement,
    Qrels,
    ensure_judge,
    load_qrels,
    save_judgements,
)
from revector.core.evaluation.judged_sets.query_sets import Query, get_query_set, save_queries
from revector.core.evaluation.measures.measures import (
    DEFAULT_MEASURES,
    check_depth,
    check_measures,
    chunk_ids_of,
    rankings,
    score,
    short_rankings,
)
from revector.core.evaluation.runs.make_run import make_run
from revector.core.evaluation.runs.store import load_results
from revector.core.ingest import ingest
from tests.core.evaluation.made_runs import document, made_results
from tests.versions import NUMBERS, add, add_chunks, backfill

DATA = Path(__file__).parents[5] / "shared" / "data"

# Ours, and trec_eval's own. RR@10 has none: there it is that of the first ten results.
NAMES = {
    "nDCG@10": "ndcg_cut_10",
    "P@10": "P_10",
    "R@100": "recall_100",
    "AP": "map",
    "AP@30": "map_cut_30",
    "Success@5": "success_5",
    "Rprec": "Rprec",
    "Bpref": "bpref",
    "RR": "recip_rank",
}


def by_trec_eval(qrels: dict[str, dict[str, int]], ranked: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    """Measure → query → value, 0 for a judged query without results."""

    def values(names: set[str], depth: int) -> dict[str, dict[str, float]]:
        run = {
            query: {target: float(1000 - rank) for rank, target in enumerate(targets[:depth])}
            for query, targets in ranked.items()
            if targets
        }
        found: dict[str, dict[str, float]] = pytrec_eval.RelevanceEvaluator(qrels, names).evaluate(run)
        return found

    found = values(set(NAMES.values()), 1000)
    first_ten = values({"recip_rank"}, 10)
    result = {
        ours: {query: found.get(query, {}).get(theirs, 0.0) for query in qrels} for ours, theirs in NAMES.items()
    }
    result["RR@10"] = {query: first_ten.get(query, {}).get("recip_rank", 0.0) for query in qrels}
    return result


def assert_equal(found: dict[str, dict[str, float]], expected: dict[str, dict[str, float]]) -> None:
    assert found.keys() == expected.keys()
    for measure, values in expected.items():
        assert found[measure] == pytest.approx(values, abs=1e-6), measure


ids = st.lists(st.integers(0, 60), unique=True, max_size=40)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(
    ranked=st.dictionaries(st.sampled_from("abcde"), ids, max_size=5),
    grades=st.dictionaries(
        st.sampled_from("abcdefg"), st.dictionaries(st.integers(0, 70), st.integers(0, 3), max_size=20), max_size=7
    ),
    chunks_each=st.integers(1, 4),
)
def test_random_runs_with_ties_repeated_documents_and_missing_queries(
    ranked: dict[str, list[int]], grades: dict[str, dict[int, int]], chunks_each: int
) -> None:
    # All distances of a query are equal: the ranks are all there is. Several chunks are of one document.
    results = made_results(ranked, {chunk: chunk // chunks_each for chunk in range(61)})
    qrels = Qrels(
        "document",
        ("me",),
        {query: {str(document(number)): grade for number, grade in of.items()} for query, of in grades.items()},
        {},
    )
    expected_ranks: dict[str, list[str]] = {}
    for query, chunks in ranked.items():
        seen: list[str] = []
        for chunk in chunks:
            if str(document(chunk // chunks_each)) not in seen:
                seen.append(str(document(chunk // chunks_each)))
        expected_ranks[query] = seen
    judged = {query: dict(of) for query, of in qrels.grades.items() if of}
    found = score(results, qrels, [*NAMES, "RR@10"])
    assert_equal(found, by_trec_eval(judged, expected_ranks) if judged else {name: {} for name in found})


@settings(deadline=None, max_examples=50)
@given(ranked=st.dictionaries(st.sampled_from("ab c"), ids, max_size=4))
def test_chunks_are_judged_by_their_semantic_keys(ranked: dict[str, list[int]]) -> None:
    grades = {query: {f"key-{chunk}": chunk % 3 for chunk in range(0, 80, 7)} for query in "ab "}
    known = {f"key-{chunk}": chunk for chunk in range(61)}
    found = score(made_results(ranked), Qrels("chunk", ("me",), grades, {}), [*NAMES, "RR@10"], chunk_ids=known)
    expected = by_trec_eval(
        grades, {query: [f"key-{chunk}" for chunk in chunks] for query, chunks in ranked.items()}
    )
    assert_equal(found, expected)


def test_a_target_that_is_named_twice_counts_once_and_one_that_is_gone_counts() -> None:
    source = document_uuid("doc-1")
    results = made_results({"q": [source.int % 2**62]}, {source.int % 2**62: source.int})
    grades = {"q": {"doc-1": 1, str(source): 2, "doc-gone": 2}}
    found = score(results, Qrels("document", ("me",), grades, {"q": ("doc-gone",)}), ["P@10", "nDCG@10", "R@100"])
    assert found["P@10"] == {"q": pytest.approx(0.1)}
    assert found["R@100"] == {"q": 0.5}
    assert found["nDCG@10"] == {"q": pytest.approx(2 / (2 + 2 / math.log2(3)))}


def test_what_nobody_judged_can_be_passed_over() -> None:
    grades = {"q": {str(document(number)): 1 for number in (20, 21, 30)}}
    qrels = Qrels("document", ("me",), grades, {})
    found = score(made_results({"q": list(range(25))}), qrels, ["P(judged_only=True)@2", "P@2"])
    assert found == {"P(judged_only=True)@2": {"q": 1.0}, "P@2": {"q": 0.0}}


def test_an_unjudged_query_is_left_out_and_one_without_results_scores_nothing() -> None:
    results = made_results({"judged": [1, 2], "unjudged": [1], "nothing": []})
    grades = {"judged": {str(document(2)): 1}, "nothing": {str(document(1)): 1}, "gone": {str(document(1)): 1}}
    found = score(results, Qrels("document", ("me",), grades, {}), ["RR@10"])
    assert found == {"RR@10": {"judged": 0.5, "nothing": 0.0, "gone": 0.0}}
    assert score(results, Qrels("document", ("me",), grades, {}), ["MRR@10", "RR@10"]) == found
    assert score(results, Qrels("document", ("me",), {}, {}), ["RR@10"]) == {"RR@10": {}}
    with pytest.raises(ValueError, match="chunks' ids"):
        score(results, Qrels("chunk", ("me",), {}, {}), ["RR@10"])


def test_names_are_canonical() -> None:
    assert check_measures(DEFAULT_MEASURES) == DEFAULT_MEASURES
    assert check_measures(["NDCG@10", " nDCG@10", "MRR@5", "P(rel=2)@5"]) == ("nDCG@10", "RR@5", "P(rel=2)@5")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ndcg@20", r"no measure 'ndcg@20'.\nDid you mean nDCG@20"),
        ("nDGC@10", "Did you mean nDCG@10"),
        ("Precision10", "Did you mean"),
        ("xyzzy", "Known: nDCG@10"),
        ("P@", "cannot be read"),
        ("P@0", "depth is 0; expected 1 to 1,000"),
        ("P@10000", "depth is 10000"),
        ("P@5.5", "cannot be read"),
        ("P@10; AP", "cannot be read"),
        ("", "cannot be read"),
        ("(" * 5000, r"cannot be read"),
        ("P(foo=1)@3", "cannot be read"),
        ("a\0b", "cannot be read"),
        ("NumRet", "cannot be computed here"),
        ("alpha_nDCG@10", "cannot be computed here"),
        ("Accuracy@10", "cannot be computed here"),
    ],
)
def test_a_measure_that_is_none_is_refused_with_the_near_ones(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        check_measures([name])
    assert len(str(error.value)) < 400


@given(
    st.text(max_size=20)
    | st.from_regex(r"\A[A-Za-z]{1,5}(\([a-z]+=[0-9a-z'\"{}\[\]:,.-]{0,8}\))?(@[0-9.-]{1,4})?\Z")
)
def test_any_name_is_a_measure_or_a_usage_error(name: str) -> None:
    try:
        (canonical,) = check_measures([name])
    except UsageError:
        return
    assert check_measures([canonical]) == (canonical,)


def test_a_measure_deeper_than_the_run_is_refused() -> None:
    check_depth(["R@100", "AP"], 100)
    with pytest.raises(UsageError, match=r"(?s)R@100 needs the first 100 results; the run has 10.*100 or more"):
        score(made_results({}, k=10), Qrels("document", ("me",), {}, {}), ["nDCG@10", "R@100"])


def test_runs_that_hold_too_few_documents_are_counted() -> None:
    results = made_results(
        {"a": [0, 1, 2, 3], "b": [0, 4, 8, 12], "c": [0, 1]}, {n: n // 4 for n in range(16)}, k=4
    )
    assert rankings(results, "document") == {
        "a": [document(0)],
        "b": [document(0), document(1), document(2), document(3)],
        "c": [document(0)],
    }
    assert rankings(results, "chunk")["b"] == [0, 4, 8, 12]
    # "c" had no more chunks to give.
    assert short_rankings(results, "document", 3) == 1
    assert short_rankings(results, "chunk", 3) == 0


def test_judgements_on_chunks_meet_the_chunks_of_a_run(database: Database, connection: Connection) -> None:
    add_chunks(connection, NUMBERS)
    version = add(connection, "v1")
    backfill(database, version)
    save_queries(connection, "set", [Query("q", "seven"), Query("r", "two")])
    query_set = get_query_set(connection, "set")
    keys = dict(connection.execute("SELECT content, semantic_key FROM document_chunks").fetchall())
    given_grades = [Judgement("q", "chunk", keys["seven"], 2), Judgement("r", "chunk", "0" * 64, 1)]
    save_judgements(connection, query_set, ensure_judge(connection, "me", "person"), given_grades)
    qrels = load_qrels(connection, query_set)
    assert qrels.level == "chunk"
    results = load_results(connection, make_run(database, query_set, version, k=10))
    known = chunk_ids_of(connection, qrels)
    assert list(known) == [keys["seven"]]
    assert score(results, qrels, ["RR@10"], chunk_ids=known) == {"RR@10": {"q": 1.0, "r": 0.0}}


@pytest.mark.skipif(not DATA.is_dir(), reason="the judged collections ../shared/data are not here")
def test_a_judged_collection_from_end_to_end(database: Database, connection: Connection) -> None:
    """Cranfield with its documents cut to pieces: several chunks are of one document."""
    folder = DATA / "cranfield"
    # Some of its documents are empty.
    documents_of_it = read_documents([folder / "corpus.jsonl"], max_bytes=10**6, on_reject=lambda _rejection: None)
    ingest(connection, documents_of_it, chunk_characters=600)
    (chunks, documents) = connection.execute(
        "SELECT count(*), count(DISTINCT source_id) FROM document_chunks"
    ).fetchone()  # type: ignore[misc]
    assert chunks > documents > 900
    version = add(connection, "v1")
    backfill(database, version, batch_size=2048)
    read = read_qrels(folder / "qrels" / "test.tsv").grades
    save_queries(connection, "cranfield", read_queries(folder / "queries.jsonl"))
    query_set = get_query_set(connection, "cranfield")
    save_judgements(
        connection,
        query_set,
        ensure_judge(connection, "cranfield", "person"),
        [Judgement(q, "document", target, grade) for q, of in read.items() for target, grade in of.items()],
    )
    results = load_results(connection, make_run(database, query_set, version, k=100, exact=True))
    found = score(results, load_qrels(connection, query_set), [*NAMES, "RR@10"])
    # By the files themselves: source ids, and the ranks in the table.
    source = dict(connection.execute("SELECT id, source_id FROM document_chunks").fetchall())
    ranked = {
        query: list(dict.fromkeys(source[chunk] for chunk in hits.chunk_ids.tolist()))
        for query, hits in results.hits.items()
    }
    assert any(len(targets) < 100 for targets in ranked.values())
    qrels: dict[str, dict[str, int]] = {}
    with (folder / "qrels" / "test.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            qrels.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    assert_equal(found, by_trec_eval(qrels, ranked))
    assert sum(found["nDCG@10"].values()) / len(found["nDCG@10"]) > 0.2
