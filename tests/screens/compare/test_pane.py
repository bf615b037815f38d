"""Tab 3 over a real collection: real vectors, real searches."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs
from textual import events
from textual.pilot import Pilot

from revector.console.app import RevectorApp
from revector.core.database import Database
from revector.core.registry import get_version
from revector.core.retrieval import EncoderCache, VersionSearcher
from revector.screens.compare.export import as_csv, write_comparison
from revector.screens.compare.hit_list import HitList
from revector.screens.compare.pane import ComparePane
from revector.screens.widgets.inputs import QueryBox
from tests.screens.frozen import comparison
from tests.screens.support import LARGE, SMALL, console, shown, type_text, until, until_shown

QUERY = "api key"


async def search(pilot: Pilot[None], query: str = QUERY) -> ComparePane:
    """Compare by keys alone; returns the tab with the result."""
    app: RevectorApp = pilot.app  # type: ignore[assignment]
    if app.tab != "3":
        await until_shown(pilot, "demo-256")
        await pilot.press("3")
        await until(pilot, lambda: app.tab == "3", "the tab")
    pane = app.panes["3"]
    assert isinstance(pane, ComparePane)
    await pilot.press("slash")
    app.query_one(QueryBox).value = ""
    before = pane.comparison
    await type_text(pilot, query)
    await pilot.press("enter")

    def found() -> bool:
        """Not only what was found while the query was typed."""
        return (
            pane.comparison is not before
            and pane.control._latest.asked is None
            and isinstance(app.focused, HitList)
        )

    await until(pilot, found, "found")
    assert pane.comparison is not None
    assert pane.comparison.query == query
    return pane


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_both_versions_side_by_side(library: Database, size: tuple[int, int]) -> None:
    app = console(library)
    async with app.run_test(size=size) as pilot:
        pane = await search(pilot)
        found = pane.comparison
        assert found is not None
        with library.session("test") as connection:
            versions = [get_version(connection, key) for key in ("demo-64", "demo-256")]
            expected = VersionSearcher(connection, EncoderCache()).compare(QUERY, *versions, 10)
        assert [hit.chunk_id for hit in found.candidate.hits] == [hit.chunk_id for hit in expected.candidate.hits]
        await until_shown(
            pilot, "active demo-64 · ", "candidate demo-256 · ", "overlap@10", "Jaccard", "RBO", "tau"
        )
        assert f"overlap@10 {expected.overlap.overlap:.2f}" in shown(app)
        lines = shown(app).split("\n")
        top = next(line for line in lines if line.lstrip("│┃ ").startswith("1  "))
        assert found.primary_moves[0].label in top
        assert found.primary.hits[0].content[:12] in top
        await until(pilot, lambda: "•" in shown(app), "the chart")


async def test_the_cursor_of_one_list_marks_the_chunk_in_the_other(library: Database) -> None:
    app = console(library)
    async with app.run_test(size=LARGE) as pilot:
        pane = await search(pilot)
        primary, candidate = app.query_one("#primary", HitList), app.query_one("#candidate", HitList)
        assert app.focused is primary
        for _ in range(len(primary.hits) - 1):
            await pilot.press("down")
            await pilot.pause()
            there = primary.hit is not None and primary.hit.chunk_id in [hit.chunk_id for hit in candidate.hits]
            assert candidate.show_cursor == there
            if there:
                assert candidate.hit is not None
                assert primary.hit is not None
                assert candidate.hit.chunk_id == primary.hit.chunk_id
        await pilot.press("tab")
        await until(pilot, lambda: app.focused is candidate, "the other list")
        await pilot.press("home")
        await pilot.pause()
        assert candidate.cursor_row == 0
        assert candidate.hit is not None
        assert primary.show_cursor == any(hit.chunk_id == candidate.hit.chunk_id for hit in primary.hits)
        assert pane.comparison is not None


async def test_a_hit_in_full(library: Database) -> None:
    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        pane = await search(pilot)
        assert pane.comparison is not None
        hit = pane.comparison.primary.hits[0]
        await pilot.press("enter")
        await until_shown(pilot, hit.semantic_key, f"distance {hit.distance:.4f} within its own version")
        assert " ".join(hit.content.split("\n")[1].split()[:4]) in shown(app)
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1, "closed")


async def test_more_and_fewer_results(library: Database) -> None:
    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        pane = await search(pilot)
        await pilot.press("minus")
        await until(pilot, lambda: pane.comparison and pane.comparison.k == 5, "five results")
        assert len(app.query_one("#primary", HitList).hits) == 5
        await until_shown(pilot, "overlap@5", "k 5")
        await pilot.press("minus", "minus")
        assert pane.control.k == 5
        await pilot.press("plus", "plus")
        await until(pilot, lambda: pane.comparison and pane.comparison.k == 15, "fifteen results")


async def test_queries_before_come_back(library: Database) -> None:
    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        await search(pilot, "refund")
        await search(pilot, "backup")
        await pilot.press("slash")
        box = app.query_one(QueryBox)
        box.value = "not sent"
        for key, expected in (("up", "backup"), ("up", "refund"), ("up", "refund"), ("down", "backup"),
                              ("down", "not sent")):  # fmt: skip
            await pilot.press(key)
            await until(pilot, lambda expected=expected: box.value == expected, expected)  # type: ignore[misc]
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.focused, HitList), "back in the results")


async def test_what_is_pasted_into_the_query_is_text(library: Database) -> None:
    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "demo-256")
        await pilot.press("3", "slash")
        app.post_message(events.Paste("ro\x1b[31mtate \u202ea key\nsecond line"))
        await until(pilot, lambda: app.query_one(QueryBox).value == "ro[31mtate a key", "without controls")


async def test_the_next_disagreement(library: Database) -> None:
    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        pane = await search(pilot)
        assert pane.comparison is not None
        primary = app.query_one("#primary", HitList)
        others = [place for place, move in enumerate(pane.comparison.primary_moves) if move.label != "="]
        expected = next((place for place in others if place > 0), others[0])
        await pilot.press("n")
        await until(pilot, lambda: primary.cursor_row == expected, "on the next one")


async def test_the_candidate_is_changed_by_keys(own_library: Database) -> None:
    from tests.versions import ready_version

    with own_library.session("test") as connection:
        ready_version(own_library, connection, "other-64", "static:wordllama-64")
    app = console(own_library)
    async with app.run_test(size=LARGE) as pilot:
        await until_shown(pilot, "other-64")
        await pilot.press("3")
        await until_shown(pilot, "active demo-64 │ candidate other-64")
        await pilot.press("left_square_bracket")
        await until_shown(pilot, "active demo-64 │ candidate demo-256")
        await pilot.press("v")
        await until_shown(pilot, "active demo-64 │ candidate other-64")
        await pilot.press("P")
        await until_shown(pilot, "primary demo-256 │ candidate other-64")
        await search(pilot)
        await until_shown(pilot, "primary demo-256 · ", "candidate other-64 · ")
        await pilot.press("P")
        await until_shown(pilot, "active demo-64 │ candidate other-64", "The pair has changed")


async def test_what_enter_has_searched_for_is_not_searched_for_once_more(
    library: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As could happen after the pair of versions changed, by a query that was not sent."""
    monkeypatch.setattr("revector.screens.compare.control._PAUSE_S", 600.0)
    app = console(library)
    async with app.run_test(size=LARGE) as pilot:
        pane = await search(pilot)
        assert pane.control._pause is None
        app.query_one(QueryBox).value = "another query"
        await until(pilot, lambda: pane.control._pause is not None, "the pause after a letter")


async def test_copying_goes_to_the_terminals_clipboard(library: Database) -> None:
    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        pane = await search(pilot)
        await pilot.press("y")
        await until_shown(pilot, "Copied")
        assert pane.comparison is not None
        assert app.clipboard == pane.comparison.primary.hits[0].content


async def test_exports_overwrite_nothing_and_say_where(library: Database, clean_environment: Path) -> None:
    app = console(library)
    async with app.run_test(size=(200, 40)) as pilot:
        pane = await search(pilot)
        await pilot.press("e")
        await until_shown(pilot, f"Written to {clean_environment}")
        await pilot.press("e", "e", "E")
        await until(pilot, lambda: len(list(clean_environment.iterdir())) == 4, "four files")
        found = pane.comparison
        assert found is not None
    documents = [json.loads(path.read_text()) for path in clean_environment.glob("compare-*.json")]
    assert len(documents) == 3
    for document in documents:
        assert document["query"] == QUERY
        assert document["overlap"]["kendall_tau"] == found.overlap.kendall_tau
        assert [hit["chunk_id"] for hit in document["primary"]["hits"]] == [h.chunk_id for h in found.primary.hits]
    (table,) = clean_environment.glob("*.csv")
    with table.open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + len(found.primary.hits) + len(found.candidate.hits)


def test_a_csv_is_read_as_it_was_written() -> None:
    rows = list(csv.DictReader(as_csv(comparison()).splitlines(keepends=True)))
    assert (rows[0]["primary_rank"], rows[0]["candidate_rank"]) == ("1", "3")
    assert "" in [row["candidate_rank"] for row in rows if row["side"] == "primary"]
    assert "" in [row["primary_rank"] for row in rows if row["side"] == "candidate"]
    assert "\x1b[31m" in rows[3]["content"]


def test_no_cell_of_a_spreadsheet_begins_a_formula() -> None:
    found = comparison()
    for begins in "=+-@\t\r":
        hostile = f"{begins}cmd|' /C calc'!A0"
        hits = (structs.replace(found.primary.hits[0], content=hostile, distance=-0.5), *found.primary.hits[1:])
        mine = replace(found, query=hostile, primary=replace(found.primary, hits=hits))
        row = next(csv.DictReader(io.StringIO(as_csv(mine), newline="")))
        assert row["query"] == row["content"] == f"'{hostile}"
        assert row["distance"] == "-0.5"  # a number stays one


def test_a_folder_that_cannot_be_written_is_an_error_for_a_person(tmp_path: Path) -> None:
    from revector.core.errors import RefusedError

    with pytest.raises(RefusedError, match="cannot be written"):
        write_comparison(comparison(), tmp_path / "is not there", "json")


async def test_an_error_is_shown_in_its_place(library: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the model [b]is\x1b[31m gone")

    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        await search(pilot)
        monkeypatch.setattr(VersionSearcher, "compare", fail)
        await pilot.press("plus")
        await until_shown(pilot, "✗ RuntimeError: the model [b]is␛[31m gone")
        monkeypatch.undo()
        await pilot.press("plus")
        await until_shown(pilot, "overlap@20")


async def test_one_version_alone_cannot_be_compared(own_library: Database) -> None:
    with own_library.session("test") as connection:
        from revector.core.registry import drop_version, retire_version

        retire_version(connection, "demo-256")
        drop_version(connection, "demo-256")
    app = console(own_library)
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "demo-64")
        await pilot.press("3")
        await until_shown(pilot, "This needs two versions with vectors")


async def test_the_slash_that_leads_to_the_box_is_no_text(library: Database) -> None:
    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "demo-256")
        await pilot.press("3")
        await until(pilot, lambda: app.tab == "3", "the tab")
        await pilot.press("slash", "slash", *"a/b")
        await until(pilot, lambda: app.query_one(QueryBox).value == "a/b", "the query")
