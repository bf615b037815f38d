"""The judging queue: what is in it and why, that it is blind, and that every grade can be taken back."""

from __future__ import annotations

import dataclasses
import random

import pytest

from revector.core.database import Connection
from revector.core.errors import RefusedError, UsageError
from revector.core.evaluation.judged_sets.judgements import (
    GivenJudgement,
    Judge,
    Judgement,
    ensure_judge,
    given_judgements,
    load_qrels,
    save_judgements,
)
from revector.core.evaluation.judged_sets.query_sets import Query, QuerySet, save_queries
from revector.core.evaluation.judging import queue as q
from revector.core.evaluation.judging.grading import Graded, grade, undo
from revector.core.evaluation.judging.queue import JudgingItem, RunPair
from tests.core.evaluation import stored
from tests.core.evaluation.stored import key_of

QUERIES = (Query("q1", "rotate an api key", "keys"), Query("q2", "send an invoice", "billing"))


class Desk:
    """Ten documents of two chunks, two runs, and ada."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.set: QuerySet = stored.query_set(connection, QUERIES)
        self.chunks = [
            chunk
            for number in range(10)
            for chunk in stored.document(
                connection, f"doc-{number}", [f"first of {number}", f"second of {number}"]
            )
        ]
        self.keys = [key_of(connection, chunk) for chunk in self.chunks]
        self.ada = q.person(connection, "ada")
        self.bob = q.person(connection, "bob")

    def pair(self, first: dict[str, list[int]], second: dict[str, list[int]]) -> RunPair:
        """Runs by places in `chunks`."""
        one, two = (
            {query: [self.chunks[place] for place in places] for query, places in hits.items()}
            for hits in (first, second)
        )
        return stored.run(self.connection, self.set, "v1", one), stored.run(self.connection, self.set, "v2", two)

    def queue(self, pair: RunPair, judge: Judge | None = None, **options: object) -> list[JudgingItem]:
        return q.queue(self.connection, self.set, judge or self.ada, pair, **options)  # type: ignore[arg-type]

    def say(self, judge: Judge, query: str, target: str, given: int, kind: str = "chunk") -> None:
        save_judgements(self.connection, self.set, judge, [Judgement(query, kind, target, given)])  # type: ignore[arg-type]

    def grade(self, item: JudgingItem, given: int, judge: Judge | None = None) -> Graded:
        return grade(self.connection, self.set, judge or self.ada, item, given)

    def undo(self, graded: Graded, judge: Judge | None = None) -> None:
        undo(self.connection, judge or self.ada, graded, self.set)

    def said(self) -> list[GivenJudgement]:
        return given_judgements(self.connection, self.set)

    def counts(self, pair: RunPair, judge: Judge | None = None) -> dict[tuple[str, str], tuple[int, int]]:
        found = q.progress(self.connection, self.set, judge or self.ada, pair, k=3)
        return {(one.kind, one.segment): (one.done, one.remaining) for one in found}


@pytest.fixture
def desk(connection: Connection) -> Desk:
    return Desk(connection)


# -- what is in it -----------------------------------------------------------------------------------------


def test_the_top_k_of_either_run_is_there_once(desk: Desk) -> None:
    pair = desk.pair({"q1": [0, 2, 4, 6], "q2": [8]}, {"q1": [2, 0, 6, 4], "q2": [8]})
    items = desk.queue(pair, k=3)
    assert {item.pair for item in items} == {
        *(("q1", desk.keys[place]) for place in (0, 2, 4, 6)),
        ("q2", desk.keys[8]),
    }
    assert len(items) == 5
    item = next(item for item in items if item.target == desk.keys[8])
    assert (item.query, item.segment, item.source_id) == ("send an invoice", "billing", "doc-4")
    assert (item.title, item.before, item.kind) == ("Title of doc-4", None, "unjudged")
    assert [passage.content for passage in item.passages] == ["first of 4"]


def test_moved_is_far_in_rank_or_in_one_run_only(desk: Desk) -> None:
    first = list(range(18))
    second = [
        0,
        1,
        *range(3, 13),
        2,
        *range(13, 17),
        18,
    ]  # 2 falls by ten, 17 goes, 18 comes, the others shift by one
    pair = desk.pair({"q1": first}, {"q1": second})
    moved = {item.target for item in desk.queue(pair, kinds=["moved"])}
    assert moved == {desk.keys[2]}, "17 and 18 are not among the first ten"
    assert {item.kind for item in desk.queue(pair)} == {"moved", "unjudged"}
    moved = {item.target for item in desk.queue(pair, k=18, kinds=["moved"])}
    assert moved == {desk.keys[17], desk.keys[18]}, "ten is not far among eighteen"
    moved = {item.target for item in desk.queue(pair, k=9, kinds=["moved"])}
    assert moved == {desk.keys[2]}


@pytest.mark.parametrize(
    ("grades", "disputed"), [((0, 1), True), ((1, 2), False), ((1, 3), True), ((2, 2), False), ((0, 0), False)]
)
def test_disputed_is_more_than_a_step_or_both_sides_of_relevant(
    desk: Desk, grades: tuple[int, int], disputed: bool
) -> None:
    pair = desk.pair({"q1": [0]}, {"q1": [0]})
    model = ensure_judge(desk.connection, "reranker", "model", spec="m", revision="1")
    desk.say(model, "q1", desk.keys[0], grades[0])
    desk.say(desk.bob, "q1", desk.keys[0], grades[1])
    (item,) = desk.queue(pair)
    assert item.kind == ("disputed" if disputed else "unjudged")
    assert item.before is None, "what others said is not shown"


def test_a_dispute_comes_again_when_the_other_graded_later(desk: Desk) -> None:
    pair = desk.pair({"q1": [0]}, {"q1": [0]})
    desk.grade(desk.queue(pair)[0], 3)
    assert not desk.queue(pair)
    desk.grade(desk.queue(pair, desk.bob)[0], 0, desk.bob)
    assert not desk.queue(pair, desk.bob)
    (item,) = desk.queue(pair)
    assert (item.kind, item.before) == ("disputed", 3)
    desk.grade(item, 3)
    assert not desk.queue(pair), "ada has thought again and stays with it"
    (item,) = desk.queue(pair, desk.bob)
    assert (item.kind, item.before) == ("disputed", 0)
    desk.grade(item, 2, desk.bob)
    assert not desk.queue(pair)
    assert not desk.queue(pair, desk.bob)


def test_two_people_have_a_queue_each(desk: Desk) -> None:
    pair = desk.pair({"q1": [0, 1, 2]}, {"q1": [0, 1, 2]})
    for item in desk.queue(pair):
        desk.grade(item, 2)
    assert not desk.queue(pair)
    assert len(desk.queue(pair, desk.bob)) == 3
    assert {row.judge for row in desk.said()} == {"ada"}


def test_kinds_segment_limit_and_what_is_left_out(desk: Desk) -> None:
    pair = desk.pair({"q1": [0, 1, 2], "q2": [3, 4]}, {"q1": [0, 1, 5], "q2": [3, 4]})
    assert {item.query_id for item in desk.queue(pair, segment="billing")} == {"q2"}
    assert {item.kind for item in desk.queue(pair, kinds=["moved"])} == {"moved"}
    everything = desk.queue(pair)
    assert desk.queue(pair, limit=2) == everything[:2]
    assert desk.queue(pair, limit=2, without={item.pair for item in everything[:3]}) == everything[3:5]
    with pytest.raises(UsageError, match=r"no segment 'bilking'.*\n.*billing"):
        desk.queue(pair, segment="bilking")
    with pytest.raises(UsageError, match="k is 0"):
        desk.queue(pair, k=0)


def test_a_chunk_that_is_gone_is_not_asked_for(desk: Desk) -> None:
    pair = desk.pair({"q1": [0, 1]}, {"q1": [0, 1]})
    desk.connection.execute("DELETE FROM document_chunks WHERE id = %s", [desk.chunks[0]])
    assert [item.target for item in desk.queue(pair)] == [desk.keys[1]]
    assert desk.counts(pair) == {("unjudged", "keys"): (0, 1)}


# -- blind -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["chunk", "document"])
def test_nothing_says_which_version_found_it(desk: Desk, level: str) -> None:
    """The whole answer is the same when the two versions change roles, and when their ranks are others."""
    if level == "document":
        desk.say(desk.bob, "q1", "doc-0", 2, "document")
    chance = random.Random(7)  # noqa: S311
    for _ in range(25):
        hits = [{query.id: chance.sample(range(20), 12) for query in QUERIES} for _ in range(2)]
        there = desk.queue(desk.pair(hits[0], hits[1]), k=6)
        back = desk.queue(desk.pair(hits[1], hits[0]), k=6)
        assert there == back
        assert {item.target_kind for item in there} == {level}
        # Its place among the others follows from the pair alone: what is pooled twice keeps its order.
        other = desk.queue(
            desk.pair(*({k: chance.sample(range(20), 12) for k in ("q1", "q2")} for _ in "ab")), k=6
        )
        common = {item.pair for item in there} & {item.pair for item in other}
        assert [i.pair for i in there if i.pair in common] == [i.pair for i in other if i.pair in common]


def test_an_item_has_no_field_for_a_version_rank_or_distance() -> None:
    assert {field.name for field in dataclasses.fields(JudgingItem)} == {
        "query_id", "query", "segment", "target_kind", "target", "source_id", "title", "passages", "kind", "before",
    }  # fmt: skip


def test_a_query_is_read_once_and_each_person_has_an_order_of_their_own(connection: Connection) -> None:
    desk = Desk(connection)
    queries = [Query(f"q{number}", f"query {number}") for number in range(40)]
    desk.set = stored.query_set(connection, queries, "many")
    hits = {query.id: [0, 1, 2, 3] for query in queries}
    pair = desk.pair(hits, hits)
    orders = []
    for judge in (desk.ada, desk.bob):
        items = desk.queue(pair, judge, limit=1_000)
        assert len(items) == 160
        in_a_row = [item.query_id for item in items]
        assert in_a_row == [query for query in dict.fromkeys(in_a_row) for _ in range(4)]
        orders.append([item.pair for item in items])
        assert items == desk.queue(pair, judge, limit=1_000), "the same again"
    assert orders[0] != orders[1]
    assert list(dict.fromkeys(query for query, _ in orders[0])) != sorted(hits)


# -- grading and undo --------------------------------------------------------------------------------------


def test_undo_restores_what_was_there_before(desk: Desk) -> None:
    pair = desk.pair({"q1": [0, 1]}, {"q1": [0, 1]})
    desk.say(desk.bob, "q1", desk.keys[0], 0)
    desk.say(desk.ada, "q1", desk.keys[0], 2)
    desk.say(desk.bob, "q1", desk.keys[0], 0)
    before = desk.said()
    disputed, plain = sorted(desk.queue(pair), key=lambda item: item.kind)
    first = desk.grade(disputed, 1)
    second = desk.grade(plain, 3)
    third = desk.grade(plain, 0)
    assert {(row.target, row.grade) for row in desk.said() if row.judge == "ada"} == {
        (desk.keys[0], 1),
        (desk.keys[1], 0),
    }
    desk.undo(third)
    assert {row.grade for row in desk.said() if row.target == plain.target} == {3}
    desk.undo(second)
    assert not [row for row in desk.said() if row.target == plain.target]
    desk.undo(first)
    assert desk.said() == before, "grade and time as they were"
    assert len(desk.queue(pair)) == 2


def test_what_somebody_changed_since_is_not_taken_back(desk: Desk) -> None:
    pair = desk.pair({"q1": [0]}, {"q1": [0]})
    (item,) = desk.queue(pair)
    graded = desk.grade(item, 3)
    desk.say(desk.ada, "q1", item.target, 1)  # at another terminal
    before = desk.said()
    with pytest.raises(RefusedError, match="has been changed since"):
        desk.undo(graded)
    assert desk.said() == before


def test_a_query_with_another_text_is_another_query(desk: Desk) -> None:
    pair = desk.pair({"q1": [0]}, {"q1": [0]})
    (item,) = desk.queue(pair)
    save_queries(desk.connection, "support", [Query("q1", "something else", "keys")])
    with pytest.raises(RefusedError, match="text has changed"):
        desk.grade(item, 2)
    assert not desk.said()


@pytest.mark.parametrize("given", [-1, 4, 100])
def test_a_grade_is_one_of_four(desk: Desk, given: int) -> None:
    (item,) = desk.queue(desk.pair({"q1": [0]}, {"q1": [0]}))
    with pytest.raises(UsageError, match="expected 0 to 3"):
        desk.grade(item, given)
    assert not desk.said()


def test_a_person_is_the_role_or_a_name_but_never_a_model(desk: Desk) -> None:
    role = desk.connection.execute("SELECT session_user::text").fetchone()
    assert role is not None
    assert q.person(desk.connection).name == role[0]
    assert q.person(desk.connection, "ada") == desk.ada
    ensure_judge(desk.connection, "reranker", "model", spec="m", revision="1")
    with pytest.raises(UsageError, match="'reranker' is m at revision 1"):
        q.person(desk.connection, "reranker")


# -- progress ----------------------------------------------------------------------------------------------


def test_progress_by_kind_and_segment(desk: Desk) -> None:
    pair = desk.pair({"q1": [0, 1, 2], "q2": [3, 4]}, {"q1": [0, 1, 5], "q2": [3, 4]})
    assert desk.counts(pair) == {
        ("moved", "keys"): (0, 2), ("unjudged", "keys"): (0, 2), ("unjudged", "billing"): (0, 2),
    }  # fmt: skip
    for item in desk.queue(pair, segment="billing"):
        desk.grade(item, 1)
    desk.grade(desk.queue(pair, kinds=["moved"])[0], 0)
    assert desk.counts(pair) == {
        ("moved", "keys"): (1, 1), ("unjudged", "keys"): (0, 2), ("unjudged", "billing"): (2, 0),
    }  # fmt: skip
    assert sum(remaining for _, remaining in desk.counts(pair).values()) == len(desk.queue(pair, k=3))
    for item in desk.queue(pair, desk.bob, segment="billing"):
        desk.grade(item, 3, desk.bob)
    assert desk.counts(pair)["disputed", "billing"] == (0, 2)
    assert desk.counts(pair, desk.bob)["disputed", "billing"] == (2, 0)


# -- documents ---------------------------------------------------------------------------------------------


def test_a_set_judged_by_document_asks_for_documents(desk: Desk) -> None:
    # doc-0 has chunks 0 and 1, doc-1 has 2 and 3, doc-2 has 4 and 5, doc-3 has 6
    pair = desk.pair({"q1": [1, 0, 2, 4]}, {"q1": [3, 1, 6]})
    desk.say(desk.bob, "q1", "doc-9", 2, "document")
    items = {item.target: item for item in desk.queue(pair, k=2)}
    assert set(items) == {"doc-0", "doc-1"}, "two documents of each run, by their best chunks"
    assert [passage.content for passage in items["doc-0"].passages] == ["first of 0", "second of 0"]
    assert [passage.content for passage in items["doc-1"].passages] == ["first of 1", "second of 1"]
    desk.grade(items["doc-0"], 3)
    assert [(row.target_kind, row.target) for row in desk.said() if row.judge == "ada"] == [("document", "doc-0")]
    qrels = load_qrels(desk.connection, desk.set)
    assert qrels.level == "document"
    assert qrels.grades["q1"] == {"doc-0": 3, "doc-9": 2}
    assert [item.target for item in desk.queue(pair, k=2)] == ["doc-1"]


def test_one_bad_chunk_does_not_take_a_document_from_the_others(desk: Desk) -> None:
    """The trap: a chunk's 0, lifted to its document, halves what another person said of the whole document."""
    pair = desk.pair({"q1": [0]}, {"q1": [1]})
    desk.say(desk.bob, "q1", "doc-0", 3, "document")
    (item,) = desk.queue(pair)
    assert len(item.passages) == 2, "what either version found of it is read before it is graded"


def test_of_a_long_document_the_chunks_that_either_version_ranks_best_are_read(desk: Desk) -> None:
    long = stored.document(desk.connection, "long", [f"part {number}" for number in range(6)])
    desk.say(desk.bob, "q1", "doc-9", 2, "document")
    orders = [[5, 4, 0, 1, 2, 3], [0, 3, 4, 1, 2, 5]]
    runs = [
        stored.run(desk.connection, desk.set, f"v{number}", {"q1": [long[place] for place in order]})
        for number, order in enumerate(orders * 2)
    ]
    for pair in ((runs[0], runs[1]), (runs[3], runs[2])):  # the same hits, and which run is the older one changes
        (item,) = desk.queue(pair)
        # 0 and 5 are each a version's best; 3 and 4 are each a version's second, and of these the first chunk is taken
        assert [passage.content for passage in item.passages] == ["part 0", "part 3", "part 5"]
        assert item == desk.queue((pair[1], pair[0]))[0]
    assert desk.queue((runs[0], runs[1])) == desk.queue((runs[1], runs[2])) == desk.queue((runs[2], runs[3]))


def test_grades_of_chunks_count_for_their_document_and_give_way_to_its_own(desk: Desk) -> None:
    pair = desk.pair({"q1": [0, 2]}, {"q1": [0, 2]})
    desk.say(desk.ada, "q1", desk.keys[0], 3)
    desk.say(desk.ada, "q1", desk.keys[1], 1)
    desk.say(desk.bob, "q1", "doc-0", 0, "document")  # now everything is judged by document
    before = desk.said()
    item = next(item for item in desk.queue(pair, kinds=["disputed"]))
    assert (item.target, item.before) == ("doc-0", 3)
    graded = desk.grade(item, 0)
    assert load_qrels(desk.connection, desk.set, ["ada"]).grades == {"q1": {"doc-0": 0}}, "and not still 3"
    desk.undo(graded)
    assert desk.said() == before


def test_a_chunk_in_hand_is_refused_once_the_set_is_judged_by_document(desk: Desk) -> None:
    pair = desk.pair({"q1": [0]}, {"q1": [0]})
    (item,) = desk.queue(pair)
    desk.say(desk.bob, "q1", "doc-9", 2, "document")
    with pytest.raises(RefusedError, match="is no longer judged by chunk"):
        desk.grade(item, 2)
    assert [row.judge for row in desk.said()] == ["bob"]


def test_documents_of_an_application_are_judged_by_their_own_id(desk: Desk) -> None:
    desk.connection.execute(
        "UPDATE document_chunks SET document_id = '11111111-2222-4333-8444-555555555555' WHERE source_id = 'doc-0'"
    )
    desk.say(desk.bob, "q1", "doc-9", 2, "document")
    pair = desk.pair({"q1": [0]}, {"q1": [1]})
    (item,) = desk.queue(pair)
    assert (item.source_id, item.target) == ("doc-0", "11111111-2222-4333-8444-555555555555")
    desk.grade(item, 2)
    assert not desk.queue(pair)
    assert load_qrels(desk.connection, desk.set, ["ada"]).unknown_count == 0


# -- runs --------------------------------------------------------------------------------------------------


def test_the_newest_runs_of_this_revision_are_pooled(desk: Desk) -> None:
    from tests.versions import add

    versions = [add(desk.connection, key) for key in ("v1", "v2")]
    assert q.stored_pair(desk.connection, desk.set, *versions) is None
    desk.pair({"q1": [0]}, {"q1": [0]})
    second = desk.pair({"q1": [1]}, {"q1": [1]})
    stored.run(desk.connection, desk.set, "v1", {}, k=5)  # not deep enough
    assert q.stored_pair(desk.connection, desk.set, *versions) == second
    save_queries(desk.connection, "support", [*QUERIES, Query("q3", "new")])
    changed = stored.query_set(desk.connection, [*QUERIES, Query("q3", "new")])
    assert q.stored_pair(desk.connection, changed, *versions) is None
