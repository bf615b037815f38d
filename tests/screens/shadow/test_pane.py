"""The Shadow tab on a real collection: starting, watching live, disagreements, judging, stopping."""

from __future__ import annotations

import datetime
import hashlib

from revector.core import shadow
from revector.core.database import Connection, Database, fetch_one
from revector.core.evaluation.judged_sets.query_sets import get_query_set
from revector.core.overlap import compare
from revector.core.registry import get_version
from revector.core.shadow.store import Counts, MirroredQuery, write
from revector.screens.widgets.table import Table
from tests.core.shadow.support import answers, mirror_of
from tests.screens.support import LARGE, SMALL, console, shown, type_text, until, until_gone, until_shown

HOSTILE = "[bold red]reset[/] \x1b[31mpassword"


def run_of(database: Database) -> shadow.ShadowRun | None:
    with database.session("test") as connection:
        return shadow.running(connection)


def mirror(database: Database, queries: list[str], segment: str = "") -> None:
    """Users' queries by the active version, mirrored."""
    with database.session("test") as connection, mirror_of(database) as one:
        for result in answers(connection, get_version(connection, "demo-64"), queries):
            one(result, segment)
        assert one.flush()


def store(connection: Connection, *queries: tuple[str | None, int]) -> None:
    """Mirrored queries as (text, results in common of ten)."""
    run = shadow.latest(connection)
    assert run is not None
    first = [f"a{rank}" for rank in range(10)]
    rows = []
    for text, common in queries:
        second = first[:common] + [f"b{rank}" for rank in range(10 - common)]
        digest = hashlib.sha256((text or "nobody knows").encode()).digest()
        at = datetime.datetime.now(datetime.UTC)
        overlap = compare(first, second, 10)
        rows.append(
            MirroredQuery(run.id, at, "demo-64", text, digest, "how-to", 10, first, second, overlap, 1.5, 2.5)
        )
    write(connection, rows, [])


async def test_from_the_empty_tab_to_live_figures_and_back(own_library: Database) -> None:
    app = console(own_library)
    async with app.run_test(size=LARGE) as pilot:
        await until_shown(pilot, "demo-256")
        await pilot.press("5")
        await until_shown(pilot, "No shadow yet.", "then press s", "s start")
        await pilot.press("s")
        await until_shown(pilot, "Type demo-256 in the last box")
        await pilot.press("enter")  # on Cancel
        await until_gone(pilot, "Start it")
        assert run_of(own_library) is None
        await pilot.press("s")
        await until_shown(pilot, "Start it")
        dialog = app.screen
        dialog.query_one("#sample").value = "2"  # type: ignore[attr-defined]
        await until_shown(pilot, "✗ The sample is 2; expected a share")
        dialog.query_one("#sample").value = "1"  # type: ignore[attr-defined]
        dialog.query_one("#query-text").value = "stored"  # type: ignore[attr-defined]
        dialog.query_one("#key").focus()
        await type_text(pilot, "demo-25")
        await pilot.press("enter")
        assert app.screen is dialog, "not without the whole key"
        await type_text(pilot, "6")
        await until_shown(pilot, "Enter or the button: do it")
        await pilot.press("enter")
        await until_shown(
            pilot, "✓ The shadow of demo-256 is running", "No query has been answered by both versions yet."
        )
        run = run_of(own_library)
        assert run is not None
        assert (run.candidate, run.sample, run.query_text, run.retention_days) == ("demo-256", 1, "stored", 14)

        mirror(own_library, [HOSTILE, "invoices", "rotate a key"], "how-to")
        await until_shown(pilot, "3 seen  3 drawn  3 done  0 dropped  0 failed", "RBO 0.", "x stop")
        mirror(own_library, ["refund"], "billing")
        await until_shown(pilot, "4 done", "billing")  # live, without a key
        await pilot.press("x")
        await until_shown(pilot, "Stop the shadow of demo-256?")
        await pilot.press("enter")  # on Let it run
        await until_gone(pilot, "Let it run")
        assert run_of(own_library) is not None
        await pilot.press("x")
        await until_shown(pilot, "Stop the shadow of demo-256?")
        await pilot.press("right", "enter")
        await until_shown(pilot, "■ stopped shadow of demo-256", "s start")
        assert run_of(own_library) is None


async def test_a_disagreement_opens_on_the_compare_tab_and_its_text_is_shown_not_obeyed(
    own_library: Database,
) -> None:
    with own_library.session("test") as connection:
        shadow.start(connection, "demo-256", sample=1, query_text="stored")
        store(connection, (HOSTILE, 1), ("invoices", 9))
    app = console(own_library)
    async with app.run_test(size=LARGE) as pilot:
        await until_shown(pilot, "demo-256")
        await pilot.press("5")
        await until_shown(pilot, "[bold red]reset[/] ␛[31mpassword", "↵ compare")
        await until(pilot, lambda: app.panes["5"].query_one("#worst", Table).row_key, "the rows")
        app.panes["5"].query_one("#worst").focus()
        await pilot.press("enter")
        await until(pilot, lambda: app.tab == "3", "the Compare tab")
        await until_shown(pilot, "[bold red]reset[/] [31mpassword", "Resetting a password", "candidate demo-256")


async def test_hashes_show_both_rankings_and_cannot_be_judged(own_library: Database) -> None:
    with own_library.session("test") as connection:
        shadow.start(connection, "demo-256", sample=1)
        store(connection, (None, 2))
        (digest,) = fetch_one(connection, "SELECT encode(query_sha256, 'hex') FROM shadow_queries")
    app = console(own_library)
    async with app.run_test(size=LARGE) as pilot:
        await until_shown(pilot, "demo-256")
        await pilot.press("5")
        await until_shown(pilot, f"hash {digest[:16]}…", "↵ both rankings")
        assert "to judging" not in shown(app)
        await pilot.press("enter")
        await until_shown(pilot, "its text is not stored", digest, "a9", "b7")


async def test_the_worst_go_to_the_judging_queue(own_library: Database) -> None:
    with own_library.session("test") as connection:
        shadow.start(connection, "demo-256", sample=1, query_text="stored")
        store(connection, ("far", 1), ("near", 9), ("same", 10))
        app = console(own_library)
        async with app.run_test(size=LARGE) as pilot:
            await until_shown(pilot, "demo-256")
            await pilot.press("5")
            await until_shown(pilot, "t to judging")
            await pilot.press("t")
            await until_shown(pilot, "The 2 queries below")
            app.screen.query_one("#set").focus()
            await pilot.press("enter")
            await until_shown(pilot, "✓ Added to the query set shadow: 2. J judges them.")
        assert {query.text for query in get_query_set(connection, "shadow").queries} == {"far", "near"}


async def test_an_open_breaker_and_why(own_library: Database) -> None:
    with own_library.session("test") as connection:
        run = shadow.start(connection, "demo-256", sample=1)
        opened = (datetime.datetime.now(datetime.UTC), "no answer in 2 s")
        write(connection, [], [Counts(run.id, "web-1:7/a", 900, 90, 10, 75, 5, opened)])
    app = console(own_library)
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "demo-256")
        await pilot.press("5")
        await until_shown(pilot, "900 seen  90 drawn  10 done  75 dropped  5 failed")
        await until_shown(pilot, "✗ breaker open web-1:7/a since", "no answer in 2 s")


async def test_eighty_columns_show_the_parts_in_turn(own_library: Database) -> None:
    with own_library.session("test") as connection:
        shadow.start(connection, "demo-256", sample=1, query_text="stored")
        store(connection, ("far", 1), ("near", 9))
    app = console(own_library)
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "demo-256")
        await pilot.press("5")
        await until_shown(pilot, "[overlap]", "overlap 0.50 ─ RBO ", "m next part")
        await pilot.press("m")
        await until_shown(pilot, "[latency, segments]", "active p50/p95/p99", "1.5/1.5/1.5", "2.5/2.5/2.5")
        await pilot.press("m")
        await until_shown(pilot, "[disagreements]", "far", "near")
        await pilot.press("m")
        await until_shown(pilot, "[overlap]")


async def test_without_an_active_version_it_says_what_to_do(database: Database) -> None:
    app = console(database)
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "There is no embedding version yet.")
        await pilot.press("5")
        await until_shown(pilot, "No version is active yet")
        assert "s start" not in shown(app)
