"""The screen for a terminal that is too small: its size, the needed size, and one key."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.screen import ModalScreen
from textual.widget import Widget

SMALLEST = Size(80, 24)


def too_small(size: Size) -> bool:
    """Whether the console cannot be used in a terminal of that size."""
    return size.width < SMALLEST.width or size.height < SMALLEST.height


class TooSmall(ModalScreen[None]):
    """Takes only the key q."""

    DEFAULT_CSS = "TooSmall { background: $background; }"

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q,ctrl+q,ctrl+c", "leave", "Quit", show=False)]

    class Left(Message):
        """The user wants to quit."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes = _Sizes()

    def compose(self) -> ComposeResult:
        yield self._sizes

    def refuse(self, reason: str) -> None:
        """Say why the console cannot quit now."""
        self._sizes.reason = reason
        self._sizes.refresh()

    def action_leave(self) -> None:
        self.post_message(self.Left())


class _Sizes(Widget):
    reason = "Make it larger,\nor q to quit."

    def render(self) -> Text:
        size = self.app.size
        return Text(
            f"Too small: {size.width}×{size.height}.\nrevector needs {SMALLEST.width}×{SMALLEST.height}.\n"
            f"{self.reason}"
        )
