"""A page to read over the screen: scrolls, and goes with Escape."""

from __future__ import annotations

from typing import ClassVar

from rich.console import RenderableType
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from revector.screens.text import printable


class Page(ModalScreen[None]):
    """Text in a frame, as large as the screen lets it be."""

    DEFAULT_CSS = """
    Page { align: center middle; background: $background 70%; }
    Page #page {
        width: 100%; max-width: 110; height: auto; max-height: 100%; margin: 1 2; padding: 0 1;
        border: round $border; background: $surface; border-title-color: $foreground;
        border-subtitle-color: $secondary;
        scrollbar-size-vertical: 1;
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark", "dismiss", "Close", show=False),
    ]

    def __init__(self, title: str, body: RenderableType) -> None:
        super().__init__()
        self._heading = printable(title)
        self._body = body

    def compose(self) -> ComposeResult:
        """The frame, which scrolls, and the text in it."""
        with VerticalScroll(id="page") as page:
            page.border_title = Content(f" {self._heading} ")
            page.border_subtitle = Content(" ↑ ↓ scroll   esc close ")
            yield Static(self._body, markup=False)

    def on_mount(self) -> None:
        """The frame takes the arrow keys."""
        self.query_one("#page").focus()

    async def action_dismiss(self, result: None = None) -> None:
        """Close the page."""
        self.dismiss(result)
