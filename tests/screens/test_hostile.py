"""Documents, ids, notes and keys that try to do something to the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from psycopg.types.json import Jsonb

from revector.console.app import RevectorApp
from revector.core import cutover
from revector.core.database import Database
from revector.core.evaluation.judged_sets.query_sets import Query
from revector.screens.compare.actions import CompareState
from revector.screens.compare.pane import ComparePane
from tests.databases import copied
from tests.evaluations import judged_set, stored_evaluation
from tests.screens.support import LARGE, SMALL, console, shown, type_text, until, until_shown
from tests.versions import add, add_chunks, ready_version

HOSTILE = [
    "[red]markup[/red] [@click=app.bell]click[/] [/unbalanced",
    "\x1b[31mescape\x1b[2J\x1b]52;c;aGk=\x07 sequence",
    "\u202edirection\u2066 override \u200bzero width",
    "漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字 wide",
    "Z" + "\u0336" * 60 + " combining",
    "\x9b31m\x85 c1 controls \x7f",
    "long " * 2_000,
    "line one\x0b\x0cline two\rline three",
]


@pytest.fixture(scope="session")
def hostile(template: Database) -> Iterator[Database]:
    with copied(template) as database:
        with database.session("test") as connection:
            add_chunks(connection, HOSTILE)
            for key in ("demo-64", "demo-256"):
                ready_version(database, connection, key, f"static:wordllama-{key[5:]}")
            cutover.run(connection, "demo-64", confirm="demo-64", reason="[b]why\x1b[5m")
            add(connection, "noted", notes="[blink]note\x1b[2J")
            connection.execute(
                "ALTER TABLE embedding_versions DROP CONSTRAINT embedding_versions_version_key_check"
            )
            connection.execute(
                """
                INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions,
                                                distance_metric)
                VALUES (%s, '[b]encoder', %s, 64, 'cosine')
                """,
                ["[red]key\x1b[31m", "\u202er1"],
            )
            connection.execute(
                "INSERT INTO audit_log (action, version_key, outcome, detail) VALUES ('act', %s, 'done', %s)",
                ["[b]act\x1b[2J", Jsonb({"[red]": "\x1b[31m\u202e"})],
            )
        yield database


def nothing_obeyed(app: RevectorApp) -> None:
    """No control or invisible character is on the screen, and every line has the screen's width."""
    from rich.cells import cell_len

    strips = app.screen._compositor.render_strips(app.size)
    for strip in strips:
        line = "".join(segment.text for segment in strip)
        assert not re.search("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]", line), repr(line)
        assert cell_len(line) == app.size.width, repr(line)
        assert not any("click" in str(segment.style.meta) for segment in strip if segment.style), repr(line)


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_it_is_shown_and_not_obeyed(hostile: Database, size: tuple[int, int]) -> None:
    app = console(hostile)
    async with app.run_test(size=size) as pilot:
        await until_shown(pilot, "[red]key␛[3", "noted")
        nothing_obeyed(app)
        await pilot.press("end")
        await until_shown(pilot, "‹202E›r1", "adopt", "[red]key␛[31m --encoder SPEC")
        nothing_obeyed(app)
        await pilot.press("up", "enter")
        await until_shown(pilot, "version noted")
        await pilot.press("end")
        await until_shown(pilot, "[blink]note␛[2J")
        nothing_obeyed(app)
        await pilot.press("escape", "3", "slash")
        await until(pilot, lambda: app.situation.state.typing, "the query box")
        await type_text(pilot, "red")
        await pilot.press("enter")
        await until(pilot, lambda: app.situation.of(CompareState).compared, "found")
        await until_shown(pilot, "[red]markup[/red]", "␛[31mescape", "‹202E›direction", "Z̶̶̶‹0336›", "‹009B›31m")
        nothing_obeyed(app)
        pane = app.panes["3"]
        assert isinstance(pane, ComparePane)
        assert pane.comparison is not None
        for _ in HOSTILE[: 4 if size == LARGE else 2]:
            nothing_obeyed(app)
            await pilot.press("enter")
            await until(pilot, lambda: len(app.screen_stack) == 2, "a hit in full")
            nothing_obeyed(app)
            await pilot.press("escape", "down")
            await pilot.pause()
        await pilot.press("8")
        await until_shown(pilot, "[b]act␛[2J")
        nothing_obeyed(app)
        await pilot.press("enter")
        await until_shown(pilot, '"[red]": "\\u001b[31m‹202E›"')
        nothing_obeyed(app)
        assert "Unhandled" not in shown(app)


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_queries_and_segments_are_text_too(own_library: Database, size: tuple[int, int]) -> None:
    queries = [
        Query("[b]1\x1b[2J", "[red]key\x1b[31m \u202erotate", "[blink]seg\x1b[5m"),
        Query("2", "[@click=app.bell]x[/] [/unbalanced", "\u2066wide 漢字"),
    ]
    with own_library.session("test") as connection:
        (hit,) = connection.execute("SELECT semantic_key FROM document_chunks LIMIT 1").fetchone() or ("",)
        query_set = judged_set(connection, "set [b]", queries, {"2": {hit: 1}}, kind="chunk", judge="[i]ada")
        stored_evaluation(connection, query_set, "demo-64", "demo-256")
    app = console(own_library)
    async with app.run_test(size=size) as pilot:
        await until_shown(pilot, "demo-256")
        await pilot.press("3")
        await until(pilot, lambda: app.tab == "3", "the tab")
        pane = app.panes["3"]
        assert isinstance(pane, ComparePane)
        await until(pilot, lambda: pane.pair.facts and pane.pair.facts.evaluation, "the evaluation")
        await pilot.press("m", "o")
        await until_shown(pilot, "[red]key␛[31m ‹202E›rotate", "[@click=app.bell]x[/]", "[blink]seg␛[5m")
        nothing_obeyed(app)
        await pilot.press("tab", "tab", "enter")
        for number in range(2):
            await until(pilot, lambda: pane.control.judged is not None, "judged")
            nothing_obeyed(app)
            for key in ("enter", "d", "x"):
                await pilot.press(key)
                await until(pilot, lambda: getattr(app.screen, "ready", False), "the page")
                nothing_obeyed(app)
                await pilot.press("escape")
            if not number:
                await pilot.press("greater_than_sign")
        await until_shown(pilot, "set [b] · ")
