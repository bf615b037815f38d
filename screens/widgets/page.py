"""A page over the screen: scrolls, and closes with Escape; its text may be loaded while it is open."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import ClassVar

from rich.console import Console, Group, RenderableType
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from revector.core.errors import RevectorError
from revector.screens.widgets.background import in_background
from revector.screens.widgets.dialog import Dialog
from revector.screens.wording.text import printable
from revector.screens.wording.theme import BAD

_COPY_WIDTH = 120


class Page(Dialog[None]):
    """Text in a frame, as large as the screen allows."""

    DEFAULT_CSS = """
    Page #box { max-width: 110; margin: 1 2; scrollbar-size-vertical: 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark", "dismiss", "Close", show=False),
    ]

    def __init__(self, title: str, body: RenderableType) -> None:
        super().__init__()
        self._heading = printable(title)
        self._body = body

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="box") as page:
            page.border_title = Content(f" {self._heading} ")
            page.border_subtitle = Content(" ↑ ↓ scroll   esc close ")
            yield Static(self._body, markup=False)

    def on_mount(self) -> None:
        """The frame takes the arrow keys."""
        self.query_one("#box").focus()


class LivePage(Page):
    """Shows `body` at once, and the result of `work` when it is ready; an error is shown below the body.

    `work` runs in a thread and reads the database.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "copy", "Copy", show=False)]

    def __init__(self, title: str, body: RenderableType, work: Callable[[], RenderableType] | None = None) -> None:
        super().__init__(title, body)
        self._work = work
        self.ready = work is None

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#box").border_subtitle = Content(" ↑ ↓ scroll   y copy   esc close ")
        work = self._work
        if work is not None:
            in_background(self, "page", lambda _tell: work(), self._show, self._fail)

    def _show(self, body: RenderableType) -> None:
        self.ready = True
        self._body = body
        self.query_one("#box", VerticalScroll).query_one(Static).update(body)

    def _fail(self, error: RevectorError) -> None:
        problem = Text(f"✗ {printable(error.problem)} {printable(error.remedy)}".strip(), BAD)
        self._show(Group(self._body, Text(""), problem))

    @property
    def plain(self) -> str:
        """The page as text, without colours."""
        return plain_text(self._body)

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self.plain)
        self.query_one("#box").border_subtitle = Content(" copied   esc close ")


def plain_text(body: RenderableType) -> str:
    """The content of a page as lines of text."""
    file = io.StringIO()
    Console(file=file, width=_COPY_WIDTH, color_system=None).print(body)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"
