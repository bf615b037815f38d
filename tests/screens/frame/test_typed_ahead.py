"""Keys typed faster than the console follows: each reaches what the key before it opened, or does nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from textual import events
from textual.widgets import Input

from revector.console.app import RevectorApp
from revector.core.retrieval import Comparison
from revector.core.settings import Settings
from revector.screens.compare.pane import ComparePane
from revector.screens.cutover.pane import CutoverPane
from revector.screens.frame.refusals import Refusals
from revector.screens.situation import Situation
from revector.screens.widgets.inputs import QueryBox
from tests.screens.frozen import NOWHERE, FrozenReader, check, comparison
from tests.screens.support import SMALL, until, until_shown


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RevectorApp:
    monkeypatch.chdir(tmp_path)  # for what it exports
    return RevectorApp(NOWHERE, Settings(), reader=FrozenReader())


def send(app: RevectorApp, *keys: str) -> None:
    """Keys that are all there before the first one is handled."""
    named = {"slash": "/"}
    for key in keys:
        app.post_message(events.Key(key, named.get(key, key if len(key) == 1 else None)))


async def test_a_query_typed_right_after_the_tab_and_the_slash(app: RevectorApp, tmp_path: Path) -> None:
    async with app.run_test(size=SMALL) as pilot:
        send(app, "3", "slash", *"edq1")
        await until(pilot, lambda: app.tab == "3" and app.query_one(QueryBox).value == "edq1", "a new tab")
        pane = app.panes["3"]
        assert isinstance(pane, ComparePane)
        pane.control.show(comparison())
        await until(pilot, lambda: not isinstance(app.focused, Input), "the hits")
        send(app, "slash", *"eE")
        app.post_message(events.Paste("pasted"))
        send(app, "y")
        await until(pilot, lambda: app.query_one(QueryBox).value == "edq1eEpastedy", "a tab that was shown before")
    assert list(tmp_path.iterdir()) == [], "nothing was exported"


async def test_tab_and_what_is_typed_into_the_next_box(app: RevectorApp) -> None:
    async with app.run_test(size=SMALL) as pilot:
        await pilot.press("down", "6")
        await until(pilot, lambda: app.selection == "embed-v2026-03" and app.tab == "6", "the tab")
        await app.workers.wait_for_complete()
        pane = app.panes["6"]
        assert isinstance(pane, CutoverPane)
        pane.checks.show_check(check())
        await until_shown(pilot, "3 of 3 pass")
        pane.control.cut_over()
        await until_shown(pilot, "Type the version key to confirm: embed-v2026-03")
        send(app, "tab", *"embed", "tab", *"why", "shift+tab", *"-v1")
        boxes = [app.screen.query_one(f"#{name}", Input) for name in ("key", "reason")]
        await until(pilot, lambda: [box.value for box in boxes] == ["embed-v1", "why"], "each in its box")


async def test_hits_do_not_take_the_focus_from_the_next_query(app: RevectorApp) -> None:
    found, typed_on = comparison(), threading.Event()

    def search(*_arguments: object) -> Comparison:
        typed_on.wait(20)
        return found

    async with app.run_test(size=SMALL) as pilot:
        await pilot.press("down", "3", "slash", "a")
        pane = app.panes["3"]
        assert isinstance(pane, ComparePane)
        pane.control.searcher.compare = search  # type: ignore[method-assign,assignment]
        await pilot.press("enter", "e")
        typed_on.set()
        await until(pilot, lambda: pane.comparison is found, "the hits")
        send(app, "e")
        await until(pilot, lambda: pane.box.value == "aee", "it is text")


async def test_a_key_right_after_an_arrow_is_for_the_row_that_the_arrow_selects(
    app: RevectorApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    def refuse(_refusals: Refusals, _key: str, moment: Situation, _action: object = None) -> None:
        asked.append(moment.selection)

    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "embed-v2026-02")
        monkeypatch.setattr(Refusals, "refuse", refuse)
        send(app, "down", "down", "Z")
        await until(pilot, lambda: asked, "the key is refused")
        assert asked == ["embed-v2026-04"]
