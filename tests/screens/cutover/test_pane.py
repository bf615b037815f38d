"""Tab 6 over a real collection: guards, the flip by a typed key, and the way back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Button, Input

from revector.console.app import RevectorApp
from revector.core import cutover
from revector.core.audit import entries
from revector.core.database import Database
from revector.core.settings import Settings
from revector.screens.cutover.actions import CutoverState
from revector.screens.cutover.pane import CutoverPane
from revector.screens.frame.snapshots import Reading
from revector.screens.widgets.confirm import Confirm
from revector.screens.widgets.table import Table
from tests.screens.frozen import NOWHERE, OVERVIEW, FrozenReader, check
from tests.screens.support import (
    ALL_PASS,
    LARGE,
    SMALL,
    active_of,
    add_candidate,
    cells_of,
    console,
    shown,
    type_text,
    until,
    until_gone,
    until_shown,
)
from tests.versions import add_chunks


async def to_cutover(pilot: Pilot[None]) -> None:
    """The tab, with the guards checked."""
    await until_shown(pilot, "demo-256")
    await pilot.press("6")
    await until_shown(pilot, f"guards of demo-256 ─ {ALL_PASS}", "u cut over")


async def confirm(pilot: Pilot[None], key: str, typed: str | None = None) -> None:
    """Type into the question that is open, and press Enter."""
    await until_shown(pilot, f"Type the version key to confirm: {key}")
    await pilot.press("tab")
    await type_text(pilot, key if typed is None else typed)
    await pilot.press("enter")


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_cut_over_and_roll_back(own_library: Database, size: tuple[int, int]) -> None:
    app = console(own_library)
    async with app.run_test(size=size) as pilot:
        await to_cutover(pilot)
        await until_shown(pilot, "demo-64  →  demo-256", "nothing to roll back to", "✓  pass  complete")
        assert "roll back" not in shown(app).split("\n")[-1]
        await pilot.press("u")
        await until_shown(pilot, "Cut over", "demo-64 → demo-256", "/postgres", own_library.schema)
        await confirm(pilot, "demo-256")
        await until_shown(pilot, "✓ Cut over: demo-64 → demo-256 in", "active demo-256", "R roll back")
        assert active_of(own_library) == "demo-256"
        await pilot.press("1")
        await until_shown(pilot, "[1 Versions]")
        cells = cells_of(app.panes["1"].query_one(Table))
        assert [(row[""], row["state"], row["missing"]) for row in cells.values()] == [
            ("", "previous", "0"),
            ("▶", "active", "0"),
        ]
        await pilot.press("6")
        await until_shown(pilot, "R roll back")

        with own_library.session("test") as connection:
            add_chunks(connection, ["came later", "and later"])
        await until_shown(pilot, "demo-64, which misses 2 chunks")
        await pilot.press("R")
        await until_shown(
            pilot, "Roll back", "demo-256 → demo-64", "2 chunks: not found until the backfill has run"
        )
        await confirm(pilot, "demo-64")
        await until_shown(
            pilot,
            "✓ Rolled back: demo-256 → demo-64 in",
            "2 chunks missing from searches: run the backfill (2, r).",
        )
        assert active_of(own_library) == "demo-64"


async def test_the_reason_is_in_the_log(own_library: Database) -> None:
    app = console(own_library)
    async with app.run_test(size=SMALL) as pilot:
        await to_cutover(pilot)
        await pilot.press("u")
        await until_shown(pilot, "Reason, for the log")
        await pilot.press("tab")
        await type_text(pilot, "demo-256")
        await pilot.press("tab")
        await type_text(pilot, "better in March")
        await pilot.press("enter")
        await until_shown(pilot, "✓ Cut over")
    with own_library.session("test") as connection:
        entry = entries(connection, limit=1)[0]
    assert (entry.action, entry.reason) == ("cutover", "better in March")
    assert entry.application == "revector console"


NOT_A_YES = [
    ("enter",),  # the focus is on Cancel
    ("escape",),
    ("tab", "type:d", "enter", "escape"),
    ("tab", "type:demo-25", "enter", "escape"),
    ("tab", "type:demo-2566", "enter", "escape"),
    ("tab", "type:DEMO-256", "enter", "escape"),
    ("tab", "type: demo-256", "enter", "escape"),
    ("tab", "tab", "type:demo-256", "enter", "escape"),  # the key in the wrong box
    ("shift+tab", "enter", "escape"),
    ("tab", "type:demo-256", "escape"),
]


async def test_anything_but_the_key_and_enter_changes_nothing(library: Database) -> None:
    app = console(library)

    def logged() -> int:
        with library.session("test") as connection:
            return entries(connection, limit=1)[0].id

    before = logged()
    async with app.run_test(size=SMALL) as pilot:
        await to_cutover(pilot)
        for keys in NOT_A_YES:
            await pilot.press("u")
            await until_shown(pilot, "Type the version key to confirm")
            assert app.focused is not None
            assert app.focused.id == "cancel"
            for key in keys:
                await (type_text(pilot, key[5:]) if key.startswith("type:") else pilot.press(key))
            await until(pilot, lambda: len(app.screen_stack) == 1, "the question is gone")
            await app.workers.wait_for_complete()
            assert "Cut over:" not in shown(app), keys
            assert active_of(library) == "demo-64", keys
            assert logged() == before, keys  # nothing was tried: the question itself took it for no yes


async def test_a_key_that_is_pasted_while_cancel_has_the_focus_is_not_typed(library: Database) -> None:
    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        await to_cutover(pilot)
        await pilot.press("u")
        await until_shown(pilot, "Type the version key to confirm")
        app.post_message(events.Paste("demo-256"))
        await pilot.pause()
        assert app.screen.query_one("#key", Input).value == ""
        assert app.screen.query_one("#go", Button).disabled
        await pilot.press("tab")
        app.post_message(events.Paste("demo-256"))
        await until_shown(pilot, "The key matches.")


async def test_a_guard_that_fails_takes_the_key_away(own_library: Database) -> None:
    app = console(own_library)
    async with app.run_test(size=SMALL) as pilot:
        await to_cutover(pilot)
        with own_library.session("test") as connection:
            add_chunks(connection, ["came later"])
        await until_shown(pilot, "✗  fail  complete", "1 missing", "→ revector backfill run demo-256")
        await until_gone(pilot, "u cut over")
        app.refusals.clock = lambda: 1_000.0
        await pilot.press("u")
        assert len(app.screen_stack) == 1
        await until_shown(pilot, "u: 1 guard fails: complete")


async def test_a_guard_that_fails_at_the_last_moment_is_a_refusal_in_its_place(
    own_library: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = console(own_library, refresh_s=60)
    async with app.run_test(size=SMALL) as pilot:
        await to_cutover(pilot)
        await pilot.press("u")
        await until_shown(pilot, "Type the version key to confirm")
        with own_library.session("test") as connection:
            add_chunks(connection, ["came at the last moment"])
        await confirm(pilot, "demo-256")
        await until_shown(pilot, "✗ Version demo-256 is not ready; nothing was changed.", "1 missing")
    assert active_of(own_library) == "demo-64"


async def test_somebody_else_flips_while_the_question_is_open(own_library: Database) -> None:
    app = console(own_library)
    async with app.run_test(size=SMALL) as pilot:
        await to_cutover(pilot)
        await pilot.press("u")
        await until_shown(pilot, "Type the version key to confirm")
        with own_library.session("test") as connection:
            cutover.run(connection, "demo-256", confirm="demo-256")
        await until_shown(pilot, "✗ The active version is now demo-256")
        await confirm(pilot, "demo-256")
        assert isinstance(app.screen, Confirm), "Enter does nothing"
        await pilot.press("escape")
    assert active_of(own_library) == "demo-256"


async def test_a_question_cannot_be_answered_while_the_database_is_lost() -> None:
    reader = FrozenReader()
    app = RevectorApp(NOWHERE, Settings(), reader=reader)
    async with app.run_test(size=SMALL) as pilot:
        pane = await frozen_cutover(pilot, app)
        pane.control.cut_over()
        await until_shown(pilot, "Type the version key to confirm: embed-v2026-03")
        await pilot.press("tab")
        await type_text(pilot, "embed-v2026-03")
        await until_shown(pilot, "The key matches.")
        reader.change(replace(reader.latest, lost=True))
        await until_shown(pilot, "✗ No connection to the database")
        await pilot.press("enter")
        assert isinstance(app.screen, Confirm)
        reader.change(replace(reader.latest, lost=False))
        await until_shown(pilot, "The key matches.")


async def frozen_cutover(pilot: Pilot[None], app: RevectorApp) -> CutoverPane:
    """The tab over the frozen snapshot, all guards passing."""
    await pilot.press("down", "6")
    await until(pilot, lambda: app.selection == "embed-v2026-03" and app.tab == "6", "the tab")
    await app.workers.wait_for_complete()
    pane = app.panes["6"]
    assert isinstance(pane, CutoverPane)
    pane.checks.show_check(check())
    await until_shown(pilot, "3 of 3 pass")
    return pane


async def test_a_check_counts_only_for_what_it_was_made_of() -> None:
    reader = FrozenReader()
    app = RevectorApp(NOWHERE, Settings(), reader=reader)
    async with app.run_test(size=SMALL) as pilot:
        pane = await frozen_cutover(pilot, app)
        first, second, third = OVERVIEW.versions
        changed = replace(OVERVIEW, versions=(first, replace(second, missing=1), third))
        assert app.situation.of(CutoverState).cleared == "embed-v2026-03"
        reader.latest = Reading(changed, reader.latest.received, lost=False)
        assert app.situation.of(CutoverState).cleared is None, "a key pressed before the new snapshot is drawn"
        reader.change(reader.latest)
        await until_gone(pilot, "u cut over")
        await app.workers.wait_for_complete()
        await pilot.pause()
        pane.checks.show_check(check(ready=False))
        await until_shown(pilot, "✗  fail  index used", "→ ANALYZE chunk_embeddings_2")
        assert app.situation.of(CutoverState).cleared is None
        await until_gone(pilot, "u cut over")


async def test_production_looks_different() -> None:
    app = RevectorApp(NOWHERE, Settings(production=True, label="prod-eu"), reader=FrozenReader())
    async with app.run_test(size=SMALL) as pilot:
        pane = await frozen_cutover(pilot, app)
        await until_shown(pilot, "PRODUCTION ─ prod-eu/docs")
        header = app.query_one("Header")
        assert header.styles.background.r > 2 * header.styles.background.b, "a warning colour"
        pane.control.cut_over()
        await until_shown(pilot, "collection docs, label prod-eu, PRODUCTION", "Type the version key to confirm")


async def test_the_candidate_is_changed_by_keys(own_library: Database) -> None:
    with own_library.session("test") as connection:
        add_candidate(connection)
    app = console(own_library)
    async with app.run_test(size=SMALL) as pilot:
        await to_cutover(pilot)
        await pilot.press("right_square_bracket")
        await until_shown(pilot, "guards of demo-new ─ 7 of 13 pass", "0 of 16 chunks embedded")
        await pilot.press("left_square_bracket")
        await until_shown(pilot, f"guards of demo-256 ─ {ALL_PASS}")
