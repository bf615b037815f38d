"""A dialog to choose one line of a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from revector.screens.widgets.table import Column, Row, Table

R = TypeVar("R")


class ListDialog(ModalScreen[R | None]):
    """Returns the value of the chosen line, or None."""

    DEFAULT_CSS = """
    ListDialog { align: center middle; background: $background 70%; }
    ListDialog #box {
        width: 100%; max-width: 76; height: auto; max-height: 100%; margin: 1 2; padding: 0 1;
        border: round $border; background: $surface; border-title-color: $foreground;
        border-subtitle-color: $secondary;
    }
    ListDialog Table { height: auto; max-height: 100%; background: $surface; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss", "Close", show=False),
        Binding("enter", "take", "Take", show=False),
    ]

    def __init__(
        self, title: str, verb: str, columns: Sequence[Column], rows: Sequence[Row], *, header: bool = True
    ) -> None:
        super().__init__()
        self._heading, self._verb, self._columns, self._lines, self._header = title, verb, columns, rows, header

    def compose(self) -> ComposeResult:
        with Vertical(id="box") as box:
            box.border_title = Content(f" {self._heading} ")
            box.border_subtitle = Content(f" ↑ ↓ choose   ↵ {self._verb}   esc close ")
            yield Table(tuple(self._columns), id="choices", header=self._header)

    def on_mount(self) -> None:
        table = self.query_one(Table)
        table.show(list(self._lines))
        table.focus()

    def taken(self, key: str | None) -> R | None:
        """The value of the line with this key."""
        raise NotImplementedError

    def on_data_table_row_selected(self, event: Table.RowSelected) -> None:
        event.stop()
        self.action_take()

    def action_take(self) -> None:
        self.dismiss(self.taken(self.query_one(Table).row_key))

    async def action_dismiss(self, result: R | None = None) -> None:
        self.dismiss(result)
