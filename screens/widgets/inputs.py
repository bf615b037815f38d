"""Boxes for a line of text: a plain one, and the query box with history."""

from __future__ import annotations

import unicodedata

from textual import events
from textual.widgets import Input

_MOST_QUERIES = 200


_JOINERS = ("\u200c", "\u200d")
"""Invisible, but part of the spelling in Persian and in Indic scripts."""


class LineBox(Input):
    """A line of text; control characters in pasted text are removed."""

    def validate_value(self, value: str) -> str:
        """The value without control and other invisible characters."""
        if value.isprintable():
            return value
        return "".join(
            character
            for character in value
            if character in _JOINERS or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        )


class QueryBox(LineBox):
    """Enter searches; the arrow keys step through earlier queries, as in a shell."""

    DEFAULT_CSS = """
    QueryBox { border: none; height: 1; padding: 0; background: $panel; width: 1fr; }
    QueryBox:focus { border: none; background-tint: $foreground 8%; }
    """

    def __init__(self) -> None:
        super().__init__(placeholder="press / and type a query", select_on_focus=False, compact=True)
        self._history: list[str] = []
        self._place = 0
        self._unsent = ""

    async def _on_key(self, event: events.Key) -> None:
        """Ignore the key that opens the box when the box is empty: no query begins with it."""
        if event.key == "slash" and not self.value:
            event.prevent_default()
            event.stop()

    def remember(self, query: str) -> None:
        """Append a sent query to the history."""
        if query in self._history:
            self._history.remove(query)
        self._history = [*self._history, query][-_MOST_QUERIES:]
        self._place = len(self._history)

    def step(self, step: int) -> None:
        """Show an older (−1) or newer (+1) query; after the newest, the text being typed."""
        if self._place == len(self._history):
            self._unsent = self.value
        self._place = max(0, min(len(self._history), self._place + step))
        newest = self._place == len(self._history)
        self.value = self._unsent if newest else self._history[self._place]
        self.cursor_position = len(self.value)
