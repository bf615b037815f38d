"""The app as a whole, over a real collection: its way through the tabs, its start, its end."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import sql

from revector.console.app import RevectorApp, run_console
from revector.core.database import Connection, Database
from revector.core.migrations import upgrade
from revector.core.roles import granting
from revector.core.settings import Settings
from revector.screens.frame import snapshots
from revector.screens.frame.snapshots import SnapshotReader
from revector.screens.tabs import TABS
from revector.screens.widgets.confirm import Confirm
from tests.databases import as_of_development, copied
from tests.login_roles import login_role
from tests.screens.frozen import NOWHERE, FrozenReader
from tests.screens.support import (
    LARGE,
    SMALL,
    active_of,
    console,
    fill,
    shown,
    type_text,
    until,
    until_gone,
    until_shown,
    wait_in_small_steps,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_in_small_steps(monkeypatch)


@pytest.fixture
def library(template: Database) -> Iterator[Database]:
    with copied(template) as database:
        fill(database)
        yield database


async def test_the_whole_way_by_keys(library: Database) -> None:
    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "active demo-64", "demo-256")
        await pilot.press("down", "c")
        await until_shown(pilot, "active demo-64 ", "candidate demo-256 ")
        await pilot.press("slash")
        await type_text(pilot, "rotate a key")
        await pilot.press("enter")
        await until_shown(pilot, "overlap@10", "Rotating credentials")
        await pilot.press("1")
        await until_shown(pilot, "[1 Versions]")
        assert app.selection == "demo-256"
        await pilot.press("u")
        await until_shown(pilot, "13 of 13 pass", "u cut over")
        await pilot.press("u")
        await until_shown(pilot, "Type the version key to confirm: demo-256")
        await pilot.press("tab")
        await type_text(pilot, "demo-265")
        await pilot.press("enter")
        assert isinstance(app.screen, Confirm), "a mistyped key does nothing"
        assert active_of(library) == "demo-64"
        await pilot.press("backspace", "backspace", "5", "6", "enter")
        await until_shown(pilot, "✓ Cut over: demo-64 → demo-256", "active demo-256")
        assert active_of(library) == "demo-256"
        await pilot.press("R")
        await until_shown(pilot, "Type the version key to confirm: demo-64")
        await pilot.press("tab")
        await type_text(pilot, "demo-64")
        await pilot.press("enter")
        await until_shown(pilot, "✓ Rolled back: demo-256 → demo-64", "active demo-64")
        assert active_of(library) == "demo-64"
        await pilot.press("8")
        await until_shown(pilot, "rollback")
        await pilot.press("q")
        await until(pilot, lambda: app._exit, "the console ends")


@pytest.mark.parametrize("tab", [tab.key for tab in TABS])
async def test_every_tab_fits_into_eighty_by_twenty_four(library: Database, tab: str) -> None:
    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "demo-256")
        await pilot.press(tab)
        await until(pilot, lambda: app.tab == tab, "the tab")
        await until_shown(pilot, "? help", "q quit")
        lines = shown(app).split("\n")
        assert len(lines) == 24
        assert "READ/WRITE" in lines[0]
        assert f"[{tab} " in lines[1]
        pane = app.panes[tab]
        assert pane.region.bottom <= 23
        assert not pane.show_horizontal_scrollbar
        for widget in pane.query("Buttons, DataTable, #measures, #outcome"):
            if widget.display:
                assert widget.region.bottom <= 23, widget
                assert widget.region.height > 0, widget


async def test_a_schema_of_a_development_version(database: Database, connection: Connection) -> None:
    as_of_development(connection, "0005")
    app = console(database)
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "made by a development version of revector (revision 0005)")
        await until_shown(pilot, "revector --schema NAME db upgrade", "CASCADE", "revector demo", "q: quit")


async def test_a_schema_that_is_not_set_up(empty_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_FIRST_PAUSE_S", 600.0)
    monkeypatch.setattr(snapshots, "_LONGEST_PAUSE_S", 600.0)
    app = console(empty_database)
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(
            pilot,
            "has not been set up in this database",
            f"→ Set it up: revector --schema {empty_database.schema} db upgrade",
        )
        for tab in TABS:
            await pilot.press(tab.key)
        await pilot.press("1", "enter", "question_mark", "escape")
        assert app.is_running
        upgrade(empty_database)
        await pilot.press("r")
        await until_shown(pilot, "There is no embedding version yet.")
        await until_gone(pilot, "has not been set up")
    with empty_database.connect("test") as connection:
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(empty_database.schema)))


async def test_a_server_that_is_not_there() -> None:
    app = RevectorApp(NOWHERE, Settings())
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(
            pilot, "✗ Cannot reach the database /nowhere/search", "not connected ○", "r try again now"
        )
        await pilot.press("q")
        await until(pilot, lambda: app._exit, "the console ends")


async def test_a_role_that_may_only_search(library: Database) -> None:
    with library.session("test") as connection, login_role(connection, library, "shop") as shop:
        role = f"shop of {library.schema}"
        connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))
        granting.grant(connection, role, "application")
        async with console(shop).run_test(size=SMALL) as pilot:
            await until_shown(pilot, "no access ○", "permission denied", "db grant ROLE RIGHT")


async def test_what_was_read_before_the_screen_was_there_is_in_the_first_frame(library: Database) -> None:
    snapshots = SnapshotReader(library, Settings())
    snapshots.start()
    import time

    deadline = time.monotonic() + 20
    while snapshots.latest.overview is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    app = RevectorApp(library, Settings(refresh_s=60), reader=snapshots)
    async with app.run_test(size=LARGE) as pilot:
        assert "active demo-64" in shown(app)
        await until_shown(pilot, "static:wordllama-256")


async def test_one_snapshot_is_one_update_of_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = FrozenReader()
    app = RevectorApp(NOWHERE, Settings(refresh_s=0.1), reader=frozen)
    async with app.run_test(size=LARGE) as pilot:
        await until_shown(pilot, "embed-v2026-02")
        drawn: list[int] = []
        monkeypatch.setattr(type(app.panes["1"]), "draw", lambda _pane: drawn.append(app._batch_count))
        await until(pilot, lambda: frozen.requests >= 3, "ticks ask the reader")
        assert not drawn, "a tick alone draws nothing"
        frozen.change(frozen.latest)
        await until(pilot, lambda: drawn, "a new snapshot is drawn")
        assert drawn == [1], "once, in a batch"


async def test_ctrl_c_leaves() -> None:
    app = RevectorApp(NOWHERE, Settings(), reader=FrozenReader())
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "embed-v2026-02")
        await pilot.press("ctrl+c")
        await until(pilot, lambda: app._exit, "the console ends")


async def test_a_start_with_collection_paused_ends_the_pause() -> None:
    gc.disable()
    try:
        app = RevectorApp(NOWHERE, Settings(), reader=FrozenReader())
        async with app.run_test(size=SMALL) as pilot:
            await until(pilot, gc.isenabled, "garbage is collected again")
    finally:
        gc.unfreeze()
        gc.enable()


def test_run_console_reads_before_textual_boots(monkeypatch: pytest.MonkeyPatch, library: Database) -> None:
    started = []
    monkeypatch.setattr(SnapshotReader, "start", lambda *_: started.append("reader"))
    monkeypatch.setattr(RevectorApp, "run", lambda self: started.append(type(self).__name__))
    run_console(library, Settings())
    assert started == ["reader", "RevectorApp"]


def test_what_the_first_frame_does_not_import() -> None:
    code = (
        "import revector.console.app, revector.screens.versions.pane, revector.core.overview, sys; "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    heavy = {"numpy", "plotext", "pgvector", "sqlalchemy", "alembic", "tokenizers", "wordllama", "openai", "torch"}
    assert not heavy & set(result.stdout.split())
