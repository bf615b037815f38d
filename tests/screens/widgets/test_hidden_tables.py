"""A table that changes while its tab is hidden, in a terminal so wide that it has all its columns."""

from __future__ import annotations

from dataclasses import replace

from msgspec import structs
from textual.pilot import Pilot

from revector.console.app import RevectorApp
from revector.core import cutover
from revector.core.database import Database
from revector.core.settings import Settings
from revector.screens.backfill.pane import BackfillPane
from revector.screens.compare.hit_list import HitList
from revector.screens.compare.pane import ComparePane
from revector.screens.frame.snapshots import Reading
from revector.screens.widgets.table import Table
from tests.screens.frozen import NOW, NOWHERE, OVERVIEW, FrozenReader, comparison, detail, letters
from tests.screens.support import LARGE, TEXTS, cells_of, console, shown, until, until_shown


async def to_tab(pilot: Pilot[None], tab: str) -> None:
    app: RevectorApp = pilot.app  # type: ignore[assignment]
    await pilot.press(tab)
    await until(pilot, lambda: app.tab == tab, "the tab")
    await pilot.pause()


def versions(app: RevectorApp) -> dict[str, dict[str, str]]:
    return cells_of(app.panes["1"].query_one("#versions", Table))


async def test_a_flip_from_elsewhere_while_the_log_is_in_front(own_library: Database) -> None:
    app = console(own_library)
    async with app.run_test(size=LARGE) as pilot:
        await until_shown(pilot, "active demo-64", "demo-256")
        count = str(len(TEXTS))
        ready = {"embedded": count, "missing": "0", "metric": "cosine"}
        before = versions(app)
        assert before["demo-64"].items() >= {**ready, "": "▶", "version": "demo-64", "state": "active"}.items()
        await to_tab(pilot, "8")
        with own_library.session("test") as connection:
            cutover.run(connection, "demo-256", confirm="demo-256")
        await until_shown(pilot, "active demo-256")
        await to_tab(pilot, "1")
        now = versions(app)
        assert now["demo-64"] == {**before["demo-64"], "": "", "state": "previous"}
        assert now["demo-256"] == {**before["demo-256"], "": "▶", "state": "active"}


async def test_rows_that_come_while_the_tab_is_hidden_and_the_cursor() -> None:
    log = tuple(replace(OVERVIEW.log[0], id=number, version_key=f"v-{number}") for number in range(60, 0, -1))
    reader = FrozenReader(replace(OVERVIEW, log=log))
    app = RevectorApp(NOWHERE, Settings(), reader=reader)
    async with app.run_test(size=LARGE) as pilot:
        await until_shown(pilot, "embed-v2026-04")
        await pilot.press("end")
        await until(pilot, lambda: app.selection == "embed-v2026-04", "the cursor")
        before = versions(app)
        await to_tab(pilot, "8")
        await pilot.press("end", "up")
        await until_shown(pilot, " v-2 ")
        await to_tab(pilot, "2")
        first, second, third = OVERVIEW.versions
        newer = replace(first, version=replace(first.version, id=9, version_key="embed-new", active=False))
        overview = replace(
            OVERVIEW,
            versions=(newer, first, replace(second, missing=7), third),
            log=(replace(log[0], id=61, version_key="v-61"), *log),
        )
        reader.change(Reading(overview, reader.latest.received, lost=False))
        await pilot.pause()
        await to_tab(pilot, "1")
        now = versions(app)
        assert list(now) == ["embed-new", *before]
        assert now["embed-v2026-03"] == {**before["embed-v2026-03"], "missing": "7"}
        assert now["embed-new"]["encoder"] == before["embed-v2026-02"]["encoder"]
        assert app.panes["1"].query_one(Table).row_key == app.selection == "embed-v2026-04"
        await to_tab(pilot, "8")
        assert app.panes["8"].query_one(Table).row_key == "2"
        await until_shown(pilot, " v-2 ")


async def test_workers_and_failures_that_change_while_their_tab_is_hidden() -> None:
    app = RevectorApp(NOWHERE, Settings(), reader=FrozenReader())
    async with app.run_test(size=(130, 50)) as pilot:
        await until_shown(pilot, "embed-v2026-04")
        await pilot.press("end", "b")
        await until(pilot, lambda: app.tab == "2", "the Backfill tab")
        await app.workers.wait_for_complete()  # nothing can be read here
        pane: BackfillPane = app.panes["2"]  # type: ignore[assignment]
        pane.job.show(detail(), letters())
        await until_shown(pilot, "ada@ops-1", "guide/1.md")
        workers, failures = pane.query_one("#workers", Table), pane.query_one("#failures", Table)
        before = cells_of(workers), cells_of(failures)
        assert before[0]["8"]["engine"] == "local"
        assert before[0]["8"]["does"].startswith("waits: 429")
        await to_tab(pilot, "8")
        ada, bob, died = detail().workers
        works = replace(bob, throttle=None, done=9_999, batch_size=512, seen_at=NOW)
        waived = (replace(letters()[0], waived_reason="empty page"), *letters()[1:])
        pane.job.show(detail(workers=(ada, works, died)), waived)
        await pilot.pause()
        await to_tab(pilot, "2")
        assert cells_of(workers) == {
            **before[0], "8": {**before[0]["8"], "done": "9,999", "batch": "512", "does": "works"},
        }  # fmt: skip
        assert cells_of(failures) == {**before[1], "700": {**before[1]["700"], "waived": "✓ empty page"}}


async def test_hits_that_come_while_the_tab_is_hidden() -> None:
    app = RevectorApp(NOWHERE, Settings(), reader=FrozenReader())
    async with app.run_test(size=(130, 40)) as pilot:
        await until_shown(pilot, "embed-v2026-03")
        await pilot.press("down", "3")
        await until(pilot, lambda: app.tab == "3", "the Compare tab")
        pane: ComparePane = app.panes["3"]  # type: ignore[assignment]
        pane.control.show(comparison())
        await until_shown(pilot, "guide/3.md")
        await pilot.press("escape")
        await to_tab(pilot, "8")
        found = comparison()
        moved = structs.replace(found.primary.hits[0], source_id="moved.md")
        primary = replace(found.primary, hits=(moved, *found.primary.hits[1:]))
        pane.control.show(replace(found, primary=primary))
        await pilot.pause()
        await to_tab(pilot, "3")
        hits = pane.query(HitList).first()
        line = shown(app).split("\n")[hits.content_region.y]
        assert "moved.md" in line[: hits.region.right]
        assert "Key rotation policy" in line[: hits.region.right]
