"""The last line: the offered actions, each with its key and clickable; or why a key does nothing."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.reactive import reactive
from textual.widget import Widget

from revector.screens.actions import Action, label_of, shown_keys
from revector.screens.pane import Pane
from revector.screens.situation import Situation
from revector.screens.wording.text import printable
from revector.screens.wording.theme import CAUTION, TITLE

_LAST = ("help", "quit")
"""Always visible, however narrow the screen is."""


class Footer(Widget):
    """Keys and what they do. Those that do not fit are in the help."""

    DEFAULT_CSS = "Footer { height: 1; dock: bottom; background: $panel; padding: 0 1; }"

    items: reactive[list[tuple[Action, str, str]]] = reactive(list)
    reason = reactive("")
    """Why a key does nothing, shown in place of the keys; '' shows them again."""

    def show(self, actions: Sequence[Action], situation: Situation) -> None:
        self.items = [
            (action, label_of(shown_keys(action, situation)[0]), action.label)
            for action in actions
            if action.footer
        ]

    def _fitting(self) -> list[tuple[Action, str, str]]:
        last = [item for item in self.items if item[0].id in _LAST]
        room = self.content_size.width - sum(map(_width, last))
        fitting = []
        for item in self.items:
            if item not in last and _width(item) <= room:
                room -= _width(item)
                fitting.append(item)
        return fitting + last

    def render(self) -> Text:
        """`↵ details  b backfill … ? help  q quit`, or why a key does nothing."""
        if self.reason:
            return Text(printable(self.reason), f"bold {CAUTION}", no_wrap=True, overflow="ellipsis")
        line = Text(no_wrap=True)
        for action, key, label in self._fitting():
            shown = Text.assemble((key, TITLE), f" {label}  ")
            shown.apply_meta({"does": action.id})
            line.append_text(shown)
        return line

    def on_click(self, event: events.Click) -> None:
        if action_id := event.style.meta.get("does"):
            self.post_message(Pane.Act(action_id))


def _width(item: tuple[Action, str, str]) -> int:
    return cell_len(item[1]) + 1 + cell_len(item[2]) + 2
