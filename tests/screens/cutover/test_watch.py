"""After the flip, on the Cutover tab: the watch, limits that are broken, the way back, who serves what, history."""

from __future__ import annotations

import psycopg
import pytest

from revector.core import cutover
from revector.core.database import Connection, Database, fetch_one
from revector.core.registry import get_version
from revector.core.retrieval.counts import Counter
from revector.core.serving import served_name
from tests.screens.support import (
    LARGE,
    SMALL,
    active_of,
    console,
    shown,
    type_text,
    until,
    until_gone,
    until_shown,
)
from tests.versions import add_chunks


@pytest.fixture
def flipped(own_library: Database) -> Database:
    """Users' searches go to demo-256 now; those before are of demo-64, which was active for a day."""
    with own_library.session("test") as connection:
        connection.execute("UPDATE embedding_versions SET activated_at = now() - interval '1 day' WHERE active")
        cutover.run(connection, "demo-256", confirm="demo-256", reason="better")
        searched(connection, "demo-64", empty=1, ms=3)
        connection.execute("UPDATE search_counts SET at = at - interval '5 minutes'")
    return own_library


def searched(connection: Connection, key: str, *, empty: int, ms: float) -> None:
    """200 searches by a version."""
    counter, version = Counter(), get_version(connection, key)
    for one in range(200):
        counter.count(version.id, ms / 1000, empty=one < empty)
    counter.flush(connection)


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_the_watch_and_the_rollback(flipped: Database, size: tuple[int, int]) -> None:
    app = console(flipped)
    async with app.run_test(size=size) as pilot:
        await until_shown(pilot, "demo-256")
        await pilot.press("6")
        await until_shown(
            pilot, "watch of demo-256 ─ 23 h 5", "✓ demo-64 is complete: a rollback loses nothing", "before 200",
            "0.5%", "since 0", "? max_error_rate: no search was counted",
        )  # fmt: skip
        assert "checking" not in shown(app), "nobody has asked for the guards of the way back"
        with flipped.session("test") as connection:
            add_chunks(connection, ["came later"])
            cutover.change_policy(connection, {"max_empty_rate_rise": 0.01, "max_latency_ratio": 10})
            searched(connection, "demo-256", empty=40, ms=4)
        await until_shown(
            pilot, "✗ LIMIT BROKEN ─ watch of demo-256", "20.0% of searches find nothing, 0.5% before",
            "! 1 chunk missing in demo-64", "✓ 1 of 3 hold", "✗ 1 broken",
            "auto_rollback is off: it would roll back to demo-64", "R roll back",
        )  # fmt: skip
        if size == SMALL:
            await pilot.press("m")
            await until_shown(pilot, "Search services", "watch ✗", "✗ LIMIT BROKEN: max_empty_rate_rise")
        await pilot.press("R")
        await until_shown(
            pilot, "Roll back", "demo-256 → demo-64", "1 chunk: not found", "Type the version key to confirm"
        )
        await pilot.press("tab")
        await type_text(pilot, "demo-64")
        await pilot.press("enter")
        await until_shown(pilot, "✓ Rolled back: demo-256 → demo-64 in")
        await until_gone(pilot, "LIMIT BROKEN")
    assert active_of(flipped) == "demo-64"


async def test_a_process_that_has_not_followed_a_flip_is_in_a_visible_place(flipped: Database) -> None:
    with flipped.session("test") as connection:
        (schema,) = fetch_one(connection, "SELECT oid::bigint FROM pg_namespace WHERE nspname = current_schema()")
        ids = {key: get_version(connection, key).id for key in ("demo-64", "demo-256")}
    name = served_name("shop", ids["demo-64"], schema, pinned=False)
    app = console(flipped)
    with psycopg.connect(flipped.dsn, application_name=name, autocommit=True) as process:
        async with app.run_test(size=SMALL) as pilot:
            await until_shown(pilot, "demo-256")
            await pilot.press("6")
            with flipped.session("test") as connection:
                connection.execute(
                    "UPDATE embedding_versions SET activated_at = now() - interval '90 seconds' WHERE active"
                )
            await until_shown(pilot, "served by ✗ 1 of 1 process has not switched 1 min 3", "serves demo-64")
            await pilot.press("m")
            await until_shown(pilot, "✗ 1 min 3")
            name = served_name("shop", ids["demo-256"], schema, pinned=False)
            process.execute("SELECT set_config('application_name', %s, false)", [name])
            await until_shown(pilot, "served by 1 process, all up to date", "✓ up to date shop")
            pinned = served_name("shop", ids["demo-64"], schema, pinned=True)
            process.execute("SELECT set_config('application_name', %s, false)", [pinned])
            await until_shown(pilot, "1 pinned", "! pinned shop")


async def test_the_history_tells_every_flip_in_full(flipped: Database) -> None:
    with flipped.session("test") as connection:
        connection.execute(cutover.FLIP, {"key": "demo-64"})  # as somebody types it into psql
    app = console(flipped)
    async with app.run_test(size=LARGE) as pilot:
        await until_shown(pilot, "demo-256")
        await pilot.press("6")
        await until_shown(
            pilot, "history, the newest first", "rollback demo-256 → demo-64", "cutover demo-64 → demo-256"
        )
        app.query_one("CutoverPane #history").focus()
        await pilot.press("enter")
        await until_shown(pilot, "rollback", "from", "demo-256")
        await pilot.press("escape", "down", "enter")
        await until_shown(pilot, "cutover", "reason", "better", "watched until")
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1, "the page is closed")
