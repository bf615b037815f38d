"""A console that stays open all day: what has not changed is neither painted nor laid out."""

from __future__ import annotations

import pytest
from rich.text import Text
from textual.app import App, ComposeResult
from textual.screen import Screen
from textual.widgets import Static

from revector.core.database import Database
from revector.screens.tabs import TABS
from revector.screens.widgets.words import Words, titled
from tests.screens.support import LARGE, console, until, until_shown


@pytest.mark.parametrize("tab", [tab.key for tab in TABS])
async def test_readings_without_news_lay_nothing_out(
    library: Database, tab: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it has all that it reads in the background, too."""
    app, quiet = console(library, refresh_s=0.05), [0]
    lay_out = Screen._refresh_layout

    def laid_out(screen: Screen[object], *arguments: object, **more: object) -> None:
        quiet[0] = 0
        lay_out(screen, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Screen, "_refresh_layout", laid_out)
    async with app.run_test(size=LARGE) as pilot:
        await until_shown(pilot, "active demo-64")
        await pilot.press(tab)
        draw = app.draw

        def drawn() -> None:
            quiet[0] += 1
            draw()

        monkeypatch.setattr(app, "draw", drawn)
        await until(pilot, lambda: quiet[0] >= 10, "ten readings in a row without a layout")
        assert app.tab == tab


class One(App[None]):
    def compose(self) -> ComposeResult:
        yield Words(id="above")
        yield Static(id="static", markup=False)


async def test_words_take_the_room_of_a_static() -> None:
    app = One()
    async with app.run_test(size=(20, 10)) as pilot:
        words, static, heights = app.query_one("#above", Words), app.query_one("#static", Static), []
        for text in ("one", "one\ntwo", "words that do not fit in one line", "", "a", "word " * 20):
            for content in (text, Text(text)):
                words.update(content)
                static.update(content)
                await pilot.pause()
                assert words.size.height == static.size.height
                heights.append(words.size.height)
    assert set(heights) == {1, 2, 5}


async def test_a_change_of_colour_alone_is_painted() -> None:
    app = One()
    async with app.run_test(size=(20, 10)) as pilot:
        words, colours = app.query_one("#above", Words), []
        for style in ("red", "green", "green"):
            words.update(Text("state", style))
            titled(words, style)
            await pilot.pause()
            segment = next(iter(app.screen._compositor.render_strips(app.size)[0]))
            colours.append(segment.style.color.name if segment.style and segment.style.color else "")
        assert colours[0] != colours[1] == colours[2]
        assert words.border_title == "green"
