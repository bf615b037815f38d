"""A table by itself."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult

from revector.screens.widgets.table import Column, Row, Table
from tests.screens.support import cells_of, until


class OneTable(App[None]):
    def compose(self) -> ComposeResult:
        yield Table((Column("name", 10), Column("price")))


async def test_rows_are_there_though_the_table_was_not_told_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Table, "_on_resize", lambda _table, _event: None)
    app = OneTable()
    async with app.run_test() as pilot:
        table = app.query_one(Table)
        await until(pilot, lambda: table.size.width, "the layout")
        table.show([Row("a", ("apple", "2"))])
        await pilot.pause()
        assert cells_of(table) == {"a": {"name": "apple", "price": "2"}}
