"""A terminal that is too small."""

from __future__ import annotations

import pytest

from revector.console.app import RevectorApp
from revector.core.settings import Settings
from tests.screens.frozen import NOWHERE, FrozenReader
from tests.screens.support import SMALL, shown, until, until_shown


def frozen() -> RevectorApp:
    return RevectorApp(NOWHERE, Settings(), reader=FrozenReader())


@pytest.mark.parametrize("size", [(79, 24), (80, 23), (20, 5)])
async def test_it_says_so_takes_no_key_and_grows_back(size: tuple[int, int]) -> None:
    app = frozen()
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "embed-v2026-02")
        await pilot.resize_terminal(*size)
        await until_shown(pilot, f"Too small: {size[0]}×{size[1]}.")
        await pilot.press("2", "question_mark", "ctrl+p", "enter", "escape", "down")
        assert app.tab == "1"
        assert len(app.screen_stack) == 2
        await pilot.resize_terminal(*SMALL)
        await until_shown(pilot, "embed-v2026-02", "[1 Versions]")
        assert "Too small" not in shown(app)
        await pilot.press("2")
        await until(pilot, lambda: app.tab == "2", "keys work again")


async def test_it_may_start_small_and_q_leaves() -> None:
    app = frozen()
    async with app.run_test(size=(60, 20)) as pilot:
        await until_shown(pilot, "Too small: 60×20.", "q to quit")
        await pilot.resize_terminal(50, 20)
        await until_shown(pilot, "Too small: 50×20.")
        await pilot.press("q")
        await until(pilot, lambda: app._exit, "the console ends")


async def test_a_question_survives() -> None:
    app = frozen()
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "embed-v2026-02")
        await pilot.press("question_mark")
        await until_shown(pilot, "Everywhere")
        await pilot.resize_terminal(70, 20)
        await until_shown(pilot, "Too small")
        await pilot.resize_terminal(*SMALL)
        await until_shown(pilot, "Everywhere")
