"""The database goes away while the console is open, and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from revector.core import embedded
from revector.core.database import Database
from revector.core.migrations import upgrade
from revector.screens.frame import snapshots
from revector.screens.widgets.table import Table
from tests.screens.support import (
    ALL_PASS,
    LARGE,
    SMALL,
    cells_of,
    console,
    fill,
    shown,
    until,
    until_gone,
    until_shown,
)
from tests.versions import add_chunks


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A server of this test's own, to stop and start."""
    yield tmp_path
    embedded.stop(tmp_path)


async def test_banner_greyed_data_no_action_and_recovery(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_LONGEST_PAUSE_S", 0.3)
    database = Database(embedded.start(home).dsn, "docs", embedded=True)
    upgrade(database)
    fill(database)
    app = console(database)
    async with app.run_test(size=LARGE) as pilot:
        await until_shown(pilot, "demo-256", "↵ details")
        app.refusals.clock = lambda: 1_000.0
        versions = cells_of(app.panes["1"].query_one(Table))
        await pilot.press("down", "6")
        await until_shown(pilot, ALL_PASS, "u cut over")

        embedded.stop(home)
        await until_shown(pilot, "✗ Cannot reach the database", "s old. No action is possible", "r try again now")
        assert "○" in shown(app).split("\n")[0]
        assert ALL_PASS in shown(app), "the last data stays"
        assert app.body.has_class("-old")
        assert app.body.styles.opacity < 1
        await until_gone(pilot, "u cut over")
        await pilot.press("u", "R", "g")
        assert len(app.screen_stack) == 1
        await until_shown(pilot, "u: not connected to the database")
        await pilot.press("escape")
        await pilot.press("1")
        await until_shown(pilot, "[1 Versions]")
        assert "b backfill" not in shown(app)
        await pilot.resize_terminal(*SMALL)
        await until_shown(pilot, "✗ Cannot reach the database")
        await pilot.resize_terminal(*LARGE)
        await pilot.press("8")
        await until_shown(pilot, "[8 Log]")

        embedded.start(home)
        with database.session("test") as connection:
            add_chunks(connection, ["came meanwhile"])
        await until_gone(pilot, "✗ Cannot reach")
        await until(pilot, lambda: app.situation.versions[0].missing == 1, "the new chunk")
        await pilot.press("1")
        await until_shown(pilot, "●", "b backfill")
        assert not app.body.has_class("-old")
        assert cells_of(app.panes["1"].query_one(Table)) == {
            key: {**cells, "missing": "1"} for key, cells in versions.items()
        }
        await pilot.press("6")
        await until_shown(pilot, "✗  fail          complete", "w waive")


async def test_a_search_goes_on_after_its_connection_was_killed(library: Database) -> None:
    from tests.screens.compare.test_pane import search
    from tests.screens.frame.test_snapshots import kill_console

    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        pane = await search(pilot, "refund")
        first = pane.comparison
        before = app.reader._round.connection  # type: ignore[attr-defined]
        kill_console(library)
        await until(
            pilot,
            lambda: app.reader._round.connection not in (None, before) and not app.reader.latest.lost,  # type: ignore[attr-defined]
            "reads again",
        )
        await pilot.press("plus")
        await until(pilot, lambda: pane.comparison is not first, "searched again")
        await until_shown(pilot, "overlap@15")
