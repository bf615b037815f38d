"""A picture of the console for a notebook: the real app, run without a terminal, as SVG."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from revector.console.notebook.answer import Picture
from revector.console.notebook.kernel import undisturbed
from revector.core.errors import RefusedError, UsageError, unknown_name

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from revector.console.app import RevectorApp
    from revector.core.database import Database
    from revector.core.settings import Settings
    from revector.screens.tabs import Tab

_PATIENCE_S = 30.0
_LEAST, _MOST = (80, 24), (400, 200)
_REMOTE_FONT = re.compile(r',\s*url\("https?:[^"]*"\)\s*format\("[^"]*"\)')


def take_snapshot(
    database: Database,
    settings: Settings,
    name: str,
    size: tuple[int, int],
    query: str | None,
    candidate: str | None,
) -> Picture:
    """A picture of the named tab now; of the Compare tab with the results of `query`, if given.

    Raises UsageError for an unknown tab, a size out of range and a query for another tab than Compare,
    RefusedError when two versions with vectors are needed, UnreachableError when the database does not answer.
    """
    from revector.screens.tabs import COMPARE, TABS

    names = {tab.name.lower(): tab for tab in TABS}
    if name.lower() not in names:
        raise unknown_name("tab", name, names)
    tab = names[name.lower()]
    columns, lines = size
    if not (_LEAST[0] <= columns <= _MOST[0] and _LEAST[1] <= lines <= _MOST[1]):
        raise UsageError(
            f"A screen of {columns}×{lines} is not possible.",
            f"Use {_LEAST[0]} to {_MOST[0]} columns and {_LEAST[1]} to {_MOST[1]} lines.",
        )
    if query is not None and tab is not COMPARE:
        raise UsageError(f"The tab {tab.name} shows no query.", 'Leave it out, or use tab="compare".')
    # In another thread, since a notebook's event loop runs in this one.
    with undisturbed(), ThreadPoolExecutor(1, thread_name_prefix="snapshot") as thread:
        svg = thread.submit(asyncio.run, _draw(database, settings, tab, size, query, candidate)).result()
    return Picture(tab.name, size, _REMOTE_FONT.sub("", svg))


async def _draw(
    database: Database, settings: Settings, tab: Tab, size: tuple[int, int], query: str | None,
    candidate: str | None,
) -> str:  # fmt: skip
    from revector.console.app import RevectorApp

    app = RevectorApp(database, settings)
    async with app.run_test(size=size) as pilot:
        await _until(pilot, lambda: app.reader.latest.overview or app.reader.latest.error, "the first snapshot")
        if app.reader.latest.overview is None and app.reader.latest.error is not None:
            raise app.reader.latest.error
        if candidate is not None:
            app.selection = candidate
        await app.go_to(tab)
        app.draw()
        if query is not None:
            await _search(app, pilot, query)
        # The tab's background reads, such as the guards, then one more snapshot, and what that makes it read.
        await _until(pilot, lambda: not any(worker.is_running for worker in app.workers), "the tab")
        last = app.reader.latest
        app.reader.request()
        await _until(pilot, lambda: app.reader.latest is not last, "a snapshot")
        await _until(pilot, lambda: not any(worker.is_running for worker in app.workers), "the tab")
        await pilot.pause()
        return app.export_screenshot(title=f"revector: {tab.name}")


async def _search(app: RevectorApp, pilot: Pilot[None], query: str) -> None:
    from revector.screens.actions import offered
    from revector.screens.compare.actions import CompareState
    from revector.screens.tabs import BY_ID
    from revector.screens.widgets.inputs import QueryBox

    await pilot.press("slash")
    if not offered(BY_ID["search"], app.situation):
        raise RefusedError(
            "A comparison needs two versions with vectors.", "Backfill another one: console.backfill(KEY)"
        )
    app.query_one(QueryBox).value = query
    await pilot.press("enter")
    await _until(pilot, lambda: app.situation.of(CompareState).compared, "the results")


async def _until(pilot: Pilot[None], condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise RefusedError(f"The screen was not ready within {_PATIENCE_S:.0f} s: {what} did not come.")
        await pilot.pause(0.02)
    await pilot.pause()
