"""A line of names, one of which is chosen: parts that do not fit beside each other are shown in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text
from textual import events
from textual.message import Message
from textual.widget import Widget

from revector.screens.wording.theme import FAINT


class Parts(Widget):
    """`[map]  rate   workers 2   failures 3   m next`; a click shows one."""

    DEFAULT_CSS = "Parts { height: 1; padding: 0 1; }"

    @dataclass
    class Chosen(Message):
        """A name was clicked, in the line with that id."""

        name: str
        part_of: str | None

    def __init__(self, key: str, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._key = key
        self._items: tuple[tuple[str, str], ...] = ()
        self._chosen = ""

    def show(self, items: Sequence[tuple[str, str]], chosen: str) -> None:
        """Show the parts as (name, words), and the visible one."""
        if (tuple(items), chosen) != (self._items, self._chosen):
            self._items, self._chosen = tuple(items), chosen
            self.refresh()

    def render(self) -> Text:
        """The visible part is in brackets too, not only in another colour."""
        line = Text(no_wrap=True, overflow="ellipsis")
        for name, words in self._items:
            front = name == self._chosen
            shown = Text(f"[{words}]", "bold reverse") if front else Text(f" {words} ", FAINT)
            shown.apply_meta({"part": name})
            line.append_text(shown)
        return line.append(f"  {self._key} shows the next", FAINT)

    def on_click(self, event: events.Click) -> None:
        if name := event.style.meta.get("part"):
            self.post_message(self.Chosen(name, self.id))
