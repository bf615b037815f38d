"""A table by itself."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult

from revector.screens.widgets.table import Column, Row, Table
from tests.screens.support import cells_of, until_shown


class HiddenAtFirst(App[None]):
    CSS = "Table { display: none; }"

    def compose(self) -> ComposeResult:
        yield Table((Column("name", 10), Column("price")))


@pytest.mark.parametrize("shown", ["before", "after"])
async def test_rows_are_there_though_somebody_asked_for_its_place_before_its_first_layout(shown: str) -> None:
    """Textual sends no Resize then, which happens when a tab comes to the front while a widget is mounted."""
    app = HiddenAtFirst()
    async with app.run_test() as pilot:
        table = app.query_one(Table)
        if shown == "before":
            table.show([Row("a", ("apple", "2"))])
        table.display = True
        app.screen._compositor._full_map_invalidated = True  # as it is after a mount
        assert table.region.width
        if shown == "after":
            await pilot.pause()
            table.show([Row("a", ("apple", "2"))])
        await until_shown(pilot, "name", "apple")
        assert cells_of(table) == {"a": {"name": "apple", "price": "2"}}
