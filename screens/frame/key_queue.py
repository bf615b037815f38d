"""Keys one after the other: a key is sent when what the one before it opens is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator

from textual import events
from textual.app import App
from textual.dom import DOMNode
from textual.widget import Widget
from textual.widgets import Input

_CURSOR = ("up", "down", "left", "right", "pageup", "pagedown", "backspace", "delete")
_ROUNDS = 3
"""A key, the message that a widget makes of it (a row is selected), and the request that a pane makes of that."""

Typed = events.Key | events.Paste


class KeyQueue:
    """What was typed and is not handled yet.

    Textual sends a key to the widget that has the focus when the key arrives, though a key before it may still be
    about to move the focus. What is typed right after `/`, Tab or the key of a tab is meant for what that opens.
    `send` is Textual's own way.
    """

    def __init__(self, app: App[None], send: Callable[[events.Event], Awaitable[None]]) -> None:
        self._app, self._send = app, send
        self._waiting: deque[Typed] = deque()
        self._sent: object = None
        self._front: Widget | None = None
        self._rounds = 0

    async def add(self, event: Typed) -> None:
        """Send a key when its turn comes."""
        self._waiting.append(event)
        await self._send_next()

    async def _send_next(self) -> None:
        while self._waiting and (not self._rounds or self._kind(self._waiting[0]) == self._sent):
            event = self._waiting.popleft()
            followed = self._rounds > 0
            self._sent, self._front, self._rounds = self._kind(event), self._in_front, _ROUNDS
            await self._send(event)
            if not followed:
                self._follow(iter(self._front.ancestors_with_self))

    def _kind(self, event: Typed) -> object:
        """Text for one box, and cursor keys that are held down, need no wait between them."""
        if isinstance(event, events.Key):
            if event.is_printable and isinstance(self._app.focused, Input):
                return self._app.focused
            if event.key in _CURSOR:
                return _CURSOR
        return event

    @property
    def _in_front(self) -> Widget:
        return self._app.focused or self._app.screen

    def _follow(self, nodes: Iterator[DOMNode]) -> None:
        """Wait in the queue of each widget that the key passes, and last in the app's. Closed ones are left out."""
        if not any(node.call_later(self._follow, nodes) for node in nodes):
            self._app.call_later(self._arrived)  # behind a change of the focus

    async def _arrived(self) -> None:
        """Follow once more what the key has caused, from the start when it has brought something else to the front."""
        front = self._in_front
        self._rounds = self._rounds - 1 if front is self._front else _ROUNDS
        self._front = front
        if self._rounds:
            self._follow(iter(front.ancestors_with_self))
        else:
            await self._send_next()
