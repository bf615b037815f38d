"""Tab 8: the audit log."""

from __future__ import annotations

from revector.core import audit
from revector.core.database import Database
from revector.screens.widgets.table import Table
from tests.screens.support import SMALL, console, shown, until, until_shown


async def test_who_did_what(library: Database) -> None:
    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "demo-256")
        await pilot.press("8")
        await until_shown(pilot, "cutover", "versions add", "outcome")
        first = shown(app).split("\n")[3]
        assert "cutover" in first
        assert "demo-64" in first
        await pilot.press("enter")
        await until_shown(pilot, "application", '"to": "demo-64"', "@")


async def test_new_entries_come_to_the_top_and_the_cursor_stays(own_library: Database) -> None:
    app = console(own_library)
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "demo-256")
        await pilot.press("8", "down", "down")
        table = app.panes["8"].query_one(Table)
        await until(pilot, lambda: table.cursor_row == 2, "the third entry")
        entry = table.row_key
        with own_library.session("test") as connection:
            audit.record(
                connection, "act", "[red]key\x1b[31m", "refused", reason="why [b]not", detail={"figure": 7}
            )
        await until_shown(pilot, "[red]key␛[31m", "refused", "why [b]not")
        assert "[red]key" in shown(app).split("\n")[3]
        assert (table.row_key, table.cursor_row) == (entry, 3)
        await pilot.press("home", "enter")
        await until_shown(pilot, '"figure": 7')


async def test_an_empty_log(database: Database) -> None:
    app = console(database)
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "no active version")
        await pilot.press("8")
        await until_shown(pilot, "No entries")
