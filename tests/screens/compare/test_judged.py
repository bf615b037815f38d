"""Stars, query sets and the stored evaluation on the Compare tab."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from revector.console.app import RevectorApp
from revector.core.database import Database
from revector.core.evaluation.document import Evaluation
from revector.core.evaluation.judged_sets.query_sets import Query
from revector.screens.compare.actions import CompareState
from revector.screens.compare.hit_list import HitList
from revector.screens.compare.query_picker import QueryPicker
from revector.screens.widgets.chart import Chart
from revector.screens.widgets.page import LivePage
from revector.screens.widgets.table import Table
from tests.databases import copied
from tests.evaluations import judged_set, stored_evaluation
from tests.screens.compare.test_live import at_compare
from tests.screens.compare.test_pane import search
from tests.screens.support import LARGE, SMALL, TEXTS, console, fill, shown, until, until_shown

QUERIES = [
    Query("k1", "rotate an api key", "keys"),
    Query("k2", "who owns a key", "keys"),
    Query("m1", "when are invoices sent", "money"),
    Query("m2", "how long does a refund take", "money"),
    Query("x1", "what happens when a node fails"),
]
BY_KEY = {text.split("\n")[0]: f"doc-{text}" for text in TEXTS}
KEY_GRADES = {BY_KEY["Rotating credentials"]: 2, BY_KEY["Key rotation policy"]: 1, BY_KEY["Refunds"]: 0}


def use_source_ids(database: Database) -> None:
    """Give the documents the ids that ingestion gives them, which judgements on documents refer to."""
    from revector.core.chunks import document_uuid

    with database.session("test") as connection:
        for (source_id,) in connection.execute("SELECT source_id FROM document_chunks").fetchall():
            connection.execute(
                "UPDATE document_chunks SET document_id = %s WHERE source_id = %s",
                [document_uuid(source_id), source_id],
            )


@pytest.fixture(scope="module")
def judged(template: Database) -> Iterator[Database]:
    """The small collection with a judged query set and another one, and no evaluation."""
    with copied(template) as database:
        fill(database)
        use_source_ids(database)
        with database.session("test") as connection:
            judged_set(connection, "help", QUERIES, {"k1": KEY_GRADES, "m2": {BY_KEY["Refunds"]: 1}})
            judged_set(connection, "other", [Query("1", "on call")], {"1": {BY_KEY["On call"]: 1}})
        yield database


@pytest.fixture(scope="module")
def evaluated(template: Database) -> Iterator[tuple[Database, Evaluation]]:
    """The same, evaluated."""
    with copied(template) as database:
        fill(database)
        use_source_ids(database)
        with database.session("test") as connection:
            query_set = judged_set(connection, "help", QUERIES, {"k1": KEY_GRADES})
            stored_evaluation(
                connection, query_set, "demo-256", "demo-64"
            )  # the other way round: not of this pair
            yield database, stored_evaluation(connection, query_set, "demo-64", "demo-256")


def line_of(app: RevectorApp, title: str) -> str:
    return next(line for line in shown(app).split("\n") if title in line)


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_judged_hits_carry_their_grade(judged: Database, size: tuple[int, int]) -> None:
    app = console(judged)
    async with app.run_test(size=size) as pilot:
        pane = await search(pilot, "rotate an api key")
        await until(pilot, lambda: pane.control.judged is not None, "judged")
        found = pane.control.judged
        assert found is not None
        await until_shown(pilot, "★2 Rotating", "★1 Key rotation")
        assert f"nDCG@10 {found.primary_ndcg:.2f} → {found.candidate_ndcg:.2f}" in shown(app)
        assert found.primary_ndcg is not None
        assert 0 < found.primary_ndcg <= 1
        for title, mark in (("Refunds", "✗"), ("Rate limits", "")):
            for hits in app.query(HitList):
                for row in hits._rows_shown:
                    cell = str(row.cells[2])
                    if cell.endswith(title):
                        assert cell.strip() == f"{mark}  {title}".strip(), "an unjudged one is blank"
        if size == LARGE:
            assert "2 relevant documents known, help" in shown(app)
        await search(pilot, "rotate an api keys")
        await until(pilot, lambda: "★" not in shown(app), "no stars: it is another query")
        assert "nDCG" not in shown(app)


async def test_a_query_of_a_set_that_nobody_judged(judged: Database) -> None:
    app = console(judged)
    async with app.run_test(size=LARGE) as pilot:
        pane = await search(pilot, "who owns a key")
        await until(pilot, lambda: pane.control.judged is not None, "looked up")
        await until_shown(pilot, "nDCG@10 —", "not judged, help")


async def test_judgements_are_in_the_exports(judged: Database, clean_environment: Path) -> None:
    app = console(judged)
    async with app.run_test(size=LARGE) as pilot:
        pane = await search(pilot, "rotate an api key")
        await until(pilot, lambda: pane.control.judged is not None, "judged")
        await pilot.press("e", "E", "S", "S")
        await until(pilot, lambda: len(list(clean_environment.iterdir())) == 4, "four files")
    (document,) = (json.loads(path.read_text()) for path in clean_environment.glob("*.json"))
    grades = {hit["source_id"]: hit["grade"] for hit in document["primary"]["hits"]}
    assert grades[BY_KEY["Rotating credentials"]] == 2
    assert grades.get(BY_KEY["Backups"]) is None
    assert document["judged"]["query_set"] == "help"
    assert document["judged"]["ndcg"]["primary"] == pane.control.judged.primary_ndcg  # type: ignore[union-attr]
    (table,) = clean_environment.glob("*.csv")
    assert ",grade,content" in table.read_text().splitlines()[0]
    pictures = list(clean_environment.glob("*.svg"))
    assert len(pictures) == 2, "the first one is not overwritten"
    assert "★2" in pictures[0].read_text()


async def picker_of(pilot: Pilot[None]) -> QueryPicker:
    app: RevectorApp = pilot.app  # type: ignore[assignment]
    await pilot.press("o")
    await until(pilot, lambda: isinstance(app.screen, QueryPicker), "the picker")
    picker = app.screen
    assert isinstance(picker, QueryPicker)
    await until(pilot, lambda: picker._choices.browsing is not None, "the sets are read")
    return picker


def listed(picker: QueryPicker) -> list[str]:
    return [row.key for row in picker.query_one(Table)._rows_shown]


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_a_query_is_chosen_by_words_and_segment(judged: Database, size: tuple[int, int]) -> None:
    app = console(judged)
    async with app.run_test(size=size) as pilot:
        pane = await at_compare(pilot)
        picker = await picker_of(pilot)
        assert listed(picker) == ["k1", "k2", "m1", "m2", "x1"]
        await until_shown(pilot, "5 of 5, by id: no evaluation of this pair yet", "[all]", "[help 5]")
        await pilot.press("tab")
        await until_shown(pilot, "[keys]", "2 of 5")
        await pilot.press("tab")
        assert listed(picker) == ["m1", "m2"]
        await pilot.press("shift+tab", "shift+tab", *"refund")
        await until(pilot, lambda: listed(picker) == ["m2"], "filtered")
        await pilot.press("enter")
        await until(pilot, lambda: pane.comparison is not None, "searched")
        assert pane.comparison is not None
        assert pane.comparison.query == "how long does a refund take"
        await until_shown(pilot, "help · money · 4 of 5", "★1 Refunds")
        await pilot.press("greater_than_sign")
        await until_shown(pilot, "help · 5 of 5")
        assert pane.comparison.query != QUERIES[3].text
        await pilot.press("full_stop")
        await until_shown(pilot, "help · keys · 1 of 5", "★2 Rotating")
        await pilot.press("comma", "less_than_sign")
        await until_shown(pilot, "help · money · 4 of 5")
        picker = await picker_of(pilot)
        assert picker.query_one(Table).row_key == "m2", "the cursor is where one is"
        await pilot.press("ctrl+n")
        await until(pilot, lambda: listed(picker) == ["1"], "the other set")
        await pilot.press("escape")
        await until_shown(pilot, "help · money · 4 of 5")


async def test_the_picker_by_mouse(judged: Database) -> None:
    app = console(judged)
    async with app.run_test(size=LARGE) as pilot:
        pane = await at_compare(pilot)
        picker = await picker_of(pilot)
        await until_shown(pilot, "[all]")
        await pilot.click("#segments", offset=(10, 0))
        await until(pilot, lambda: picker.segment == "keys", "a segment by a click")
        assert isinstance(app.focused, Input), "letters still go into the filter"
        await pilot.click("#queries", offset=(4, 2))
        await pilot.click("#queries", offset=(4, 2))
        await until(pilot, lambda: pane.comparison is not None, "searched")
        assert pane.comparison is not None
        assert pane.comparison.query == QUERIES[1].text


async def test_those_that_moved_most_come_first(evaluated: tuple[Database, Evaluation]) -> None:
    database, evaluation = evaluated
    app = console(database)
    async with app.run_test(size=LARGE) as pilot:
        pane = await at_compare(pilot)
        picker = await picker_of(pilot)
        assert listed(picker) == [row.id for row in evaluation.queries]
        first = evaluation.queries[0]
        await until_shown(pilot, "those that moved most first", f"{first.rbo:.2f}")
        await pilot.press("enter")
        await until(pilot, lambda: pane.comparison and pane.comparison.query == first.text, "the first")
        moved = [row for row in evaluation.queries if row.rbo < 1]
        for row in moved[1:]:
            await pilot.press("N")
            await until(pilot, lambda row=row: pane.comparison.query == row.text, row.id)  # type: ignore[misc]
        await pilot.press("N")
        await until(pilot, lambda: pane.comparison.query == moved[0].text, "in a circle")  # type: ignore[union-attr]


async def test_the_next_query_on_which_they_disagree_is_searched_for_without_an_evaluation(
    judged: Database,
) -> None:
    app = console(judged)
    async with app.run_test(size=LARGE) as pilot:
        pane = await at_compare(pilot)
        await picker_of(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: pane.comparison is not None, "searched")
        before = pane.comparison
        await pilot.press("N")
        await until(pilot, lambda: pane.comparison is not before, "found one")
        assert pane.comparison is not None
        assert any(move.label != "=" for move in pane.comparison.primary_moves)
        assert app.query_one("QueryBox").value == pane.comparison.query  # type: ignore[attr-defined]
        assert pane.pair.browsing is not None
        assert pane.pair.browsing.query is not None
        assert pane.pair.browsing.query.text == pane.comparison.query


async def test_rbo_by_segment_of_the_stored_evaluation(evaluated: tuple[Database, Evaluation]) -> None:
    database, evaluation = evaluated
    app = console(database)
    async with app.run_test(size=LARGE) as pilot:
        pane = await at_compare(pilot)
        chart = app.query_one("#segments", Chart)
        await until(pilot, lambda: chart.builds == 1, "the chart")
        await until_shown(
            pilot, "RBO · help · 2", f"o mean  --- middle half  #{evaluation.id}", "keys┤", "money┤", "all┤"
        )
        assert pane.pair.facts is not None
        means = {row.label: row.mean for row in pane.pair.facts.ranges}
        expected = {row.segment: row.mean for row in evaluation.overlaps}
        assert means == expected
        assert pane.pair.facts.ranges[0].label == "all"
        await search(pilot, "rotate an api key")
        drawn = chart.builds  # the first hits may have changed its size
        await search(pilot, "who owns a key")
        assert chart.builds == drawn, "drawn when its data change"


async def test_without_an_evaluation_the_chart_says_what_to_do(judged: Database) -> None:
    app = console(judged)
    async with app.run_test(size=LARGE) as pilot:
        await at_compare(pilot)
        await until_shown(pilot, "No evaluation of demo-64 → demo-256", "revector evaluate SET")


async def test_one_chart_at_a_time_where_there_is_no_room(evaluated: tuple[Database, Evaluation]) -> None:
    app = console(evaluated[0])
    async with app.run_test(size=SMALL) as pilot:
        await at_compare(pilot)
        overlap, segments = app.query_one("#overlap", Chart), app.query_one("#segments", Chart)
        await until(pilot, lambda: overlap.display and not segments.display, "overlap by depth")
        await pilot.press("m")
        await until(pilot, lambda: segments.display and not overlap.display, "RBO by segment")
        await until_shown(pilot, "keys┤", "money┤", "all┤")
        await pilot.resize_terminal(*LARGE)
        await until(pilot, lambda: segments.display and overlap.display, "both")
        assert not app.situation.state.tight


async def test_from_an_evaluation_to_one_of_its_queries(evaluated: tuple[Database, Evaluation]) -> None:
    database, evaluation = evaluated
    app = console(database)
    async with app.run_test(size=LARGE) as pilot:
        pane = await at_compare(pilot)
        pane.control.open_query("help", "m1")
        await until(pilot, lambda: pane.comparison is not None, "searched")
        assert pane.comparison is not None
        assert pane.comparison.query == QUERIES[2].text
        await until_shown(pilot, "help · money · ")
        pane.control.open_query("nothing", "m1")
        await until_shown(pilot, "✗ There is no query set 'nothing'")
        assert evaluation.query_set == "help"


async def page(pilot: Pilot[None], key: str) -> LivePage:
    app: RevectorApp = pilot.app  # type: ignore[assignment]
    await pilot.press(key)
    await until(pilot, lambda: isinstance(app.screen, LivePage) and app.screen.ready, "the page")
    assert isinstance(app.screen, LivePage)
    return app.screen


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_a_hit_with_the_words_of_the_query_marked(judged: Database, size: tuple[int, int]) -> None:
    app = console(judged)
    async with app.run_test(size=size) as pilot:
        pane = await search(pilot, "rotate an api key")
        await until(pilot, lambda: pane.control.judged is not None, "judged")
        hits = app.query_one("#primary", HitList)
        place = [hit.content.split("\n")[0] for hit in hits.hits].index("Key rotation policy")
        hits.move_cursor(row=place)
        await pilot.pause()
        await page(pilot, "enter")
        await until_shown(pilot, "★1 grade 1, of its document, by ada (help)", "metadata", "document id")
        strips = app.screen._compositor.render_strips(app.size)
        bold = {
            segment.text.strip()
            for strip in strips
            for segment in strip
            if segment.style and segment.style.underline and segment.style.bold
        }
        assert {"API", "key", "rotated", "Key", "rotation"} <= bold
        assert not bold & {"an", "policy", "ninety", "metadata", "semantic key"}


async def test_the_diff_of_both_lists_is_one_column_and_is_copied(judged: Database) -> None:
    app = console(judged)
    async with app.run_test(size=SMALL) as pilot:
        pane = await search(pilot, "rotate an api key")
        await until(pilot, lambda: pane.control.judged is not None, "judged")
        assert pane.comparison is not None
        moves = [*pane.comparison.candidate_moves, *(m for m in pane.comparison.primary_moves if m.after is None)]
        labels = [move.label for move in moves]
        gone, new, same = (labels.count(label) for label in ("gone", "new", "="))
        moved = len(labels) - gone - new - same
        diff = await page(pilot, "d")
        await until_shown(pilot, f"{gone} gone, {new} new, {moved} moved, {same} unchanged")
        await pilot.press("y")
        await until_shown(pilot, "copied")
        lines = app.clipboard.splitlines()
        assert app.clipboard == diff.plain
        assert len([line for line in lines if line[:2] in ("- ", "+ ", "~ ", "  ") and "→" in line]) == len(labels)
        for hit, move in zip(pane.comparison.candidate.hits, pane.comparison.candidate_moves, strict=True):
            line = next(line for line in lines if f"→ {hit.rank} " in line)
            assert hit.content.split("\n")[0] in line
            assert move.label in line
        for hit, move in zip(pane.comparison.primary.hits, pane.comparison.primary_moves, strict=True):
            if move.after is None:
                assert any(line.startswith("-") and hit.content.split("\n")[0] in line for line in lines)
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1, "closed")


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_explain_says_why(judged: Database, size: tuple[int, int]) -> None:
    app = console(judged)
    async with app.run_test(size=size) as pilot:
        pane = await search(pilot, "rotate an api key")
        found = await page(pilot, "x")
        assert pane.comparison is not None
        hit = pane.comparison.primary.hits[0]
        text = " ".join(found.plain.split())
        assert f"{hit.distance:.4f} (cosine) in demo-64; not comparable across versions" in text
        assert "in demo-256; not comparable" in text
        assert "rank 1 of 10 without index rank 1 of all vectors: the index missed nothing before it" in text
        assert "ef_search 100" in text
        assert "m 16, ef_construction 64" in text
        assert "actual time=" in text
        assert text.count("encode ") == 2
        assert "'[…]'" in text
        await until_shown(pilot, "primary demo-64")
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1, "closed")


async def test_there_is_no_query_set_yet(library: Database) -> None:
    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        await at_compare(pilot)
        await pilot.press("o")
        await until_shown(pilot, "There is no query set yet: revector queries import")
        await pilot.press("enter", "tab", "ctrl+n", "down", "escape")
        await until(pilot, lambda: len(app.screen_stack) == 1, "closed")
        assert not app.situation.of(CompareState).browsing
