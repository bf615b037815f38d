"""Query sets and judgements: replaced sets, several judges, documents beside chunks, and what is refused."""

from __future__ import annotations

import threading
import uuid

import pytest

from revector.core import audit
from revector.core.database import Connection, Database
from revector.core.errors import UsageError
from revector.core.evaluation.judged_sets.judgements import (
    Judgement,
    ensure_judge,
    get_judge,
    given_judgements,
    judgement_count,
    judges,
    load_qrels,
    save_judgements,
)
from revector.core.evaluation.judged_sets.query_sets import (
    Query,
    QueryChanges,
    drop_query_set,
    get_query_set,
    query_sets,
    revision_of,
    save_queries,
)
from tests.core.evaluation.support import add_document, judge, new_set
from tests.versions import add_chunks


def test_a_set_is_stored_and_replaced(connection: Connection) -> None:
    first = [Query("a", "one", "s"), Query("b", "two", "s"), Query("c", "three"), Query("d", "four")]
    assert save_queries(connection, "set", first) == QueryChanges(4, 0, 0, 0)
    stored = get_query_set(connection, "set")
    assert stored.queries == tuple(first)
    assert stored.segments == ("all", "s")
    assert stored.revision == revision_of(first) == revision_of(reversed(first))
    assert save_queries(connection, "set", reversed(first)) == QueryChanges(0, 0, 0, 4)
    assert get_query_set(connection, "set") == stored

    judge(connection, stored, "anna", *[(name, "d", 1) for name in "abcd"])
    second = [Query("a", "another", "s"), Query("b", "two", "t"), Query("c", "three"), Query("e", "five")]
    assert save_queries(connection, "set", second) == QueryChanges(1, 2, 1, 1)
    replaced = get_query_set(connection, "set")
    assert (replaced.id, replaced.queries) == (stored.id, tuple(second))
    assert replaced.revision not in (stored.revision, "")
    # Another text is another query, another segment is not.
    assert [row.query for row in given_judgements(connection, replaced)] == ["b", "c"]
    assert audit.entries(connection, limit=1)[0].detail == {
        "set": "set", "queries": 4, "added": 1, "changed": 2, "removed": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("queries", "problem"),
    [
        ([], "would have no queries"),
        ([Query("a", "x"), Query("a", "y")], "Query id 'a' comes twice"),
        ([Query("", "x")], "its id has 0 characters"),
        ([Query("a", " \n")], "its text has 2 characters"),
        ([Query("a", "x" * 10_001)], "its text has 10,001 characters"),
        ([Query("a", "x", "")], "its segment has 0"),
        ([Query("a", "x\0")], "NUL byte or a lone surrogate"),
        ([Query("a\ud800", "x")], "NUL byte or a lone surrogate"),
    ],
)
def test_a_set_that_is_refused_changes_nothing(connection: Connection, queries: list[Query], problem: str) -> None:
    before = new_set(connection)
    with pytest.raises(UsageError, match=problem):
        save_queries(connection, "set", queries)
    assert get_query_set(connection, "set") == before


def test_sets_by_name(connection: Connection) -> None:
    with pytest.raises(UsageError, match="no other yet"):
        get_query_set(connection, "set")
    query_set = new_set(connection)
    new_set(connection, Query("x", "y"), name="other")
    judge(connection, query_set, "bert", ("q1", "d", 1), ("q2", "d", 0))
    judge(connection, query_set, "anna", ("q1", "d", 1))
    found = query_sets(connection)
    assert [(s.name, s.queries, s.segments, s.judgements, s.judges) for s in found] == [
        ("other", 1, ("all",), 0, ()),
        ("set", 4, ("even", "odd"), 3, ("anna", "bert")),
    ]
    with pytest.raises(UsageError) as caught:
        get_query_set(connection, "sett")
    assert "Did you mean set" in caught.value.remedy
    for name in ("", "a\nb", "x" * 501):
        with pytest.raises(UsageError, match="is not a valid name for a query set"):
            save_queries(connection, name, [Query("a", "b")])
    drop_query_set(connection, "set")
    assert [s.name for s in query_sets(connection)] == ["other"]
    assert connection.execute("SELECT count(*) FROM judgements").fetchone() == (0,)


def test_two_imports_of_one_set_at_once_are_one_after_the_other(
    database: Database, connection: Connection
) -> None:
    """Each import holds the set's row to its end, so that the set is one of the two and never a mixture."""
    versions = [[Query(f"{name}{n}", f"{name} {n}") for n in range(200)] for name in ("a", "b", "c", "d")]
    barrier = threading.Barrier(len(versions))
    changes: list[QueryChanges] = []

    def load(queries: list[Query]) -> None:
        with database.session("test") as own:
            barrier.wait()
            changes.append(save_queries(own, "set", queries))

    threads = [threading.Thread(target=load, args=[queries]) for queries in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = get_query_set(connection, "set")
    assert len(changes) == 4
    assert sorted(stored.queries, key=lambda q: q.id) in [sorted(v, key=lambda q: q.id) for v in versions]
    assert stored.revision == revision_of(stored.queries)
    assert sorted(change.removed for change in changes) == [0, 200, 200, 200]


def test_a_judge_is_a_person_or_one_revision_of_a_model(connection: Connection) -> None:
    anna = ensure_judge(connection, "anna", "person")
    assert ensure_judge(connection, "anna", "person") == anna
    model = ensure_judge(connection, "m", "model", spec="cross-encoder:x", revision="1")
    assert judges(connection) == [anna, model]
    for name, spec in (
        ("anna", {"kind": "model", "spec": "cross-encoder:x", "revision": "1"}),
        ("m", {"kind": "person"}),
        ("m", {"kind": "model", "spec": "cross-encoder:x", "revision": "2"}),
        ("m", {"kind": "model", "spec": "cross-encoder:y", "revision": "1"}),
    ):
        with pytest.raises(UsageError, match=f"Judge '{name}' is") as caught:
            ensure_judge(connection, name, **spec)  # type: ignore[arg-type]
        assert "another name" in caught.value.remedy
    for name in ("", " ", "a\tb", "x" * 1001):
        with pytest.raises(UsageError, match="is not a valid name for a judge"):
            ensure_judge(connection, name, "person")
    with pytest.raises(UsageError, match="no judge 'ana'"):
        get_judge(connection, "ana")


def test_grades_are_stored_replaced_and_taken_back(connection: Connection) -> None:
    query_set = new_set(connection)
    anna = ensure_judge(connection, "anna", "person")
    one, two = Judgement("q1", "document", "d1", 1), Judgement("q1", "chunk", "d1", 2, 0.5)
    assert save_judgements(connection, query_set, anna, [one, two, Judgement("q1", "document", "d1", 3)]) == 2
    assert [(g.target_kind, g.grade, g.score, g.judge_kind) for g in given_judgements(connection, query_set)] == [
        ("chunk", 2, 0.5, "person"),
        ("document", 3, None, "person"),
    ]
    judge(connection, query_set, "bert", ("q1", "d1", 0))
    assert save_judgements(connection, query_set, anna, [Judgement("q2", "document", "d9", 1)], replace=True) == 1
    assert [(g.judge, g.query) for g in given_judgements(connection, query_set)] == [
        ("bert", "q1"),
        ("anna", "q2"),
    ]
    assert judgement_count(connection, query_set) == 2
    assert save_judgements(connection, query_set, anna, [], replace=True) == 0
    assert given_judgements(connection, query_set, judge="anna") == []
    assert [g.judge for g in given_judgements(connection, query_set)] == ["bert"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (Judgement("q9", "document", "d", 1), "'q9', which is not in query set 'set'"),
        (Judgement("q1", "document", "d", -1), "is -1; expected 0 to 100"),
        (Judgement("q1", "document", "d", 101), "is 101"),
        (Judgement("q1", "document", "", 1), "has 0 characters"),
        (Judgement("q1", "document", "x" * 1001, 1), "has 1001 characters"),
        (Judgement("q1", "document", "x\0", 1), "without NUL"),
        (Judgement("q1", "document", "x\ud800", 1), "lone surrogates"),
    ],
)
def test_a_judgement_that_is_refused_stores_nothing(connection: Connection, row: Judgement, problem: str) -> None:
    query_set = new_set(connection)
    judge(connection, query_set, "anna", ("q2", "d", 1))
    with pytest.raises(UsageError, match=problem):
        save_judgements(
            connection, query_set, get_judge(connection, "anna"), [Judgement("q1", "document", "d", 1), row],
            replace=True,
        )  # fmt: skip
    assert [g.query for g in given_judgements(connection, query_set)] == ["q2"]


@pytest.mark.parametrize(
    ("grades", "counts"), [([3], 3), ([1, 2], 1), ([3, 0, 2], 2), ([0, 1, 3, 3], 1), ([0, 0, 3, 3], 0)]
)
def test_several_judges_count_as_their_lower_median(
    connection: Connection, grades: list[int], counts: int
) -> None:
    query_set = new_set(connection)
    for number, grade in enumerate(grades):
        judge(connection, query_set, f"person {number}", ("q1", "d1", grade))
    found = load_qrels(connection, query_set)
    assert found.grades == {"q1": {"d1": counts}}
    assert len(found.judges) == len(grades)


def test_people_count_before_models_unless_a_model_is_named(connection: Connection) -> None:
    query_set = new_set(connection)
    judge(connection, query_set, "m", ("q1", "d1", 0), ("q2", "d1", 1), model=True)
    assert load_qrels(connection, query_set).judges == ("m",)
    judge(connection, query_set, "anna", ("q1", "d1", 2))
    assert load_qrels(connection, query_set).grades == {"q1": {"d1": 2}}
    assert load_qrels(connection, query_set, ["m"]).grades == {"q1": {"d1": 0}, "q2": {"d1": 1}}
    assert load_qrels(connection, query_set, ["m", "anna"]).grades == {"q1": {"d1": 0}, "q2": {"d1": 1}}
    with pytest.raises(UsageError, match="no judge 'ann'"):
        load_qrels(connection, query_set, ["ann"])


def test_a_set_that_nobody_judged(connection: Connection) -> None:
    query_set = new_set(connection)
    with pytest.raises(UsageError, match="Query set 'set' has no judgements yet"):
        load_qrels(connection, query_set)
    ensure_judge(connection, "anna", "person")
    with pytest.raises(UsageError, match="no judgements by anna yet"):
        load_qrels(connection, query_set, ["anna"])


def test_documents_and_chunks_meet_at_the_document(connection: Connection) -> None:
    query_set = new_set(connection)
    first = add_document(connection, "d1", "a", "b")
    second = add_document(connection, "d2", "c")
    judge(
        connection, query_set, "anna", ("q1", first[0], 1), ("q1", first[1], 2), ("q1", second[0], 0), kind="chunk"
    )
    chunks = load_qrels(connection, query_set)
    assert (chunks.level, chunks.grades) == ("chunk", {"q1": {first[0]: 1, first[1]: 2, second[0]: 0}})
    judge(connection, query_set, "anna", ("q1", "d2", 3), ("q2", "d1", 1))
    judge(connection, query_set, "bert", ("q1", first[0], 0), kind="chunk")
    found = load_qrels(connection, query_set)
    assert found.level == "document"
    # Anna's best chunk of d1 is 2, Bert's 0: their lower median is 0.
    assert found.grades == {"q1": {"d1": 0, "d2": 3}, "q2": {"d1": 1}}
    assert (found.judgements, found.unknown_count) == (3, 0)


def test_chunks_of_documents_with_ids_of_their_own(connection: Connection) -> None:
    """An application that inserts chunks by SQL: its documents are known by their ids, and stay apart."""
    query_set = new_set(connection)
    add_chunks(connection, ["one", "two"])
    connection.execute("UPDATE document_chunks SET source_id = '' WHERE content = 'one'")
    rows = connection.execute("SELECT semantic_key, document_id FROM document_chunks ORDER BY content").fetchall()
    judge(connection, query_set, "anna", *[("q1", row[0], n) for n, row in enumerate(rows, 1)], kind="chunk")
    judge(connection, query_set, "anna", ("q2", str(rows[0][1]), 1))
    found = load_qrels(connection, query_set)
    assert found.grades["q1"] == {str(rows[0][1]): 1, str(rows[1][1]): 2}
    assert found.unknown == {}


def test_targets_that_are_not_in_the_collection_are_kept_and_named(connection: Connection) -> None:
    query_set = new_set(connection)
    (key,) = add_document(connection, "here", "a")
    judge(connection, query_set, "anna", ("q1", key, 1), ("q1", "no such key", 2), kind="chunk")
    at_chunks = load_qrels(connection, query_set)
    assert (at_chunks.unknown, at_chunks.judgements) == ({"q1": ("no such key",)}, 2)
    judge(connection, query_set, "anna", ("q1", "gone", 1), ("q2", "here", 1), ("q2", str(uuid.uuid4()), 1))
    found = load_qrels(connection, query_set)
    assert found.grades["q1"] == {"here": 1, "gone": 1}
    assert found.unknown["q1"] == ("gone", "no such key")
    assert len(found.unknown["q2"]) == 1
    assert found.unknown_count == 3
