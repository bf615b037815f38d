"""A line of keys and what they do, for a screen over the tabs; a click acts like the key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text
from textual import events
from textual.widget import Widget

from revector.screens.wording.theme import TITLE


@dataclass(frozen=True)
class Key:
    """The label of a key, what it does in words, and the screen's action."""

    key: str
    label: str
    action: str


class KeyLine(Widget):
    """`0 not relevant  1 marginal …`."""

    DEFAULT_CSS = "KeyLine { height: 1; padding: 0 1; }"

    def __init__(self, keys: Sequence[Key], *, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._keys = tuple(keys)

    def render(self) -> Text:
        """All keys; those that do not fit are cut."""
        line = Text(no_wrap=True, overflow="ellipsis")
        for one in self._keys:
            shown = Text.assemble((one.key, TITLE), f" {one.label}  ")
            shown.apply_meta({"does": one.action})
            line.append_text(shown)
        return line

    async def on_click(self, event: events.Click) -> None:
        if action := event.style.meta.get("does"):
            await self.run_action(f"screen.{action}")
