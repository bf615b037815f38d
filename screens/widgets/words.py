"""Text that is drawn again with each reading, and mostly stays the same."""

from __future__ import annotations

from rich.console import RenderableType
from rich.segment import Segment
from rich.text import Text
from textual.content import Content
from textual.visual import VisualType
from textual.widget import Widget
from textual.widgets import Static


class Words(Static):
    """A Static that is painted only when it looks different, and laid out only when its height changes.

    A layout of the screen takes 30 ms of the processor, and a console stays open all day.
    """

    def __init__(self, content: VisualType = "", *, id: str | None = None, classes: str | None = None) -> None:  # noqa: A002
        super().__init__(content, id=id, classes=classes, markup=False)
        self._lines: list[list[Segment]] | None = None

    def update(self, content: VisualType = "", *, layout: bool = True) -> None:
        """Show something else, or the same again."""
        size, before = self.content_size, self._lines
        self._lines = self._drawn(content, size.width) if size.width else None
        if self._lines is not None and self._lines == before:
            return
        super().update(content, layout=False)
        if layout and self.display and self.get_content_height(size, self.app.size, size.width) != size.height:
            self.refresh(layout=True)

    def _drawn(self, content: VisualType, width: int) -> list[list[Segment]]:
        what: RenderableType = Text(content) if isinstance(content, str) else content  # type: ignore[assignment]
        console = self.app.console
        return console.render_lines(what, console.options.update_width(width))


def titled(widget: Widget, title: str) -> None:
    """Set the title on a widget's border, if it is another one."""
    content = Content(title)
    if widget.border_title != content.markup:
        widget.border_title = content
