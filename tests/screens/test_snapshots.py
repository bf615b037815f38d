"""Pictures of three tabs in both sizes, over a snapshot built by hand. `--snapshot-update` takes them anew."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from textual.pilot import Pilot

from console.app import RevectorApp
from core.settings import Settings
from tests.screens.frozen import NOWHERE, FrozenReader, check, comparison
from tests.screens.support import LARGE, SMALL, until

pytestmark = pytest.mark.parametrize("size", [LARGE, SMALL], ids=["large", "small"])


@pytest.fixture(autouse=True)
def fixed_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr("screens.cutover.time_now", lambda: "14:02:11")
    yield
    monkeypatch.undo()
    time.tzset()


def frozen() -> RevectorApp:
    return RevectorApp(NOWHERE, Settings(label="search-eu"), reader=FrozenReader())


Before = Callable[[Pilot[None]], Awaitable[None]]


async def at_versions(pilot: Pilot[None]) -> None:
    app: RevectorApp = pilot.app  # type: ignore[assignment]
    await pilot.press("down")
    await until(pilot, lambda: app.selection == "embed-v2026-03", "selected")


async def at_compare(pilot: Pilot[None]) -> None:
    app: RevectorApp = pilot.app  # type: ignore[assignment]
    await pilot.press("down", "3")
    await until(pilot, lambda: "3" in app.panes, "the tab")
    pane: Any = app.panes["3"]
    pane.query_one("QueryBox").value = "rotate an api key"
    pane.show_comparison(comparison())
    await until(pilot, lambda: pane.query_one("Chart").builds, "the chart")


async def at_cutover(pilot: Pilot[None]) -> None:
    app: RevectorApp = pilot.app  # type: ignore[assignment]
    await pilot.press("down", "6")
    await until(pilot, lambda: "6" in app.panes and app.selection == "embed-v2026-03", "the tab")
    await app.workers.wait_for_complete()
    await pilot.pause()
    pane: Any = app.panes["6"]
    pane.show_check(check(ready=False))
    await pilot.pause()


def test_versions(snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    assert snap_compare(frozen(), terminal_size=size, run_before=at_versions)


def test_compare(snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    assert snap_compare(frozen(), terminal_size=size, run_before=at_compare)


def test_cutover(snap_compare: Callable[..., bool], size: tuple[int, int]) -> None:
    assert snap_compare(frozen(), terminal_size=size, run_before=at_cutover)
