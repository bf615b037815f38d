"""A page whose text may be found out while it is open, and that can be copied."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import ClassVar

from rich.console import Console, Group, RenderableType
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from revector.core.errors import RevectorError
from revector.screens.background import in_background
from revector.screens.reading import Page
from revector.screens.text import printable
from revector.screens.theme import BAD

_COPY_WIDTH = 120


class LivePage(Page):
    """Shows `body` at once, and what `work` returns as soon as it is there; an error is shown below the body.

    `work` runs in a thread and reads the database.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "copy", "Copy", show=False)]

    def __init__(self, title: str, body: RenderableType, work: Callable[[], RenderableType] | None = None) -> None:
        super().__init__(title, body)
        self._work = work
        self.ready = work is None

    def on_mount(self) -> None:
        """Begin to find out."""
        super().on_mount()
        self.query_one("#page").border_subtitle = Content(" ↑ ↓ scroll   y copy   esc close ")
        work = self._work
        if work is not None:
            in_background(self, "page", lambda _tell: work(), self._show, self._fail)

    def _show(self, body: RenderableType) -> None:
        self.ready = True
        self._body = body
        self.query_one("#page", VerticalScroll).query_one(Static).update(body)

    def _fail(self, error: RevectorError) -> None:
        problem = Text(f"✗ {printable(error.problem)} {printable(error.remedy)}".strip(), BAD)
        self._show(Group(self._body, Text(""), problem))

    @property
    def plain(self) -> str:
        """The page as text, without colours."""
        return plain_text(self._body)

    def action_copy(self) -> None:
        """Send the page's text to the terminal's clipboard."""
        self.app.copy_to_clipboard(self.plain)
        self.query_one("#page").border_subtitle = Content(" copied   esc close ")


def plain_text(body: RenderableType) -> str:
    """What a page shows as lines of text."""
    file = io.StringIO()
    Console(file=file, width=_COPY_WIDTH, color_system=None).print(body)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"
