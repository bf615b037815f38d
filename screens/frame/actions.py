"""Actions of every tab, and when they are offered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from revector.screens.actions import Action, can_compare, needs

if TYPE_CHECKING:
    from revector.screens.tabs import Tab


class Console(Protocol):
    """What these actions need from the app."""

    async def go_to(self, tab: Tab) -> None: ...
    def open_judging(self) -> None: ...
    def retry(self) -> None: ...
    def show_help(self) -> None: ...
    def show_palette(self) -> None: ...
    def leave(self) -> None: ...


lost = needs(lambda moment: not moment.state.live, "the database is connected")


def showing(tab: Tab) -> Action[Console]:
    return Action(f"tab-{tab.key}", (tab.key,), tab.name, f"Show {tab.name}.", lambda console: console.go_to(tab),
                  offline=True, footer=False)  # fmt: skip


ACTIONS: tuple[Action[Console], ...] = (
    Action("judge", ("J",), "judge", "Judge what both versions find, without seeing which one found it.",
           lambda console: console.open_judging(), can_compare, dangerous=True, footer=False),
    Action("retry", ("r",), "try again now", "Try to reach the database now.", lambda console: console.retry(),
           lost, offline=True),
    Action("help", ("question_mark",), "help", "All keys.", lambda console: console.show_help(), offline=True),
    Action("palette", ("ctrl+p",), "commands", "Find an action by its name.",
           lambda console: console.show_palette(), offline=True, footer=False),
    Action("quit", ("q", "ctrl+q", "ctrl+c"), "quit", "Leave. A backfill that runs here is paused, after a "
           "question.", lambda console: console.leave(), offline=True),
)  # fmt: skip
