"""A dialog to choose one line of a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from revector.screens.widgets.dialog import Dialog
from revector.screens.widgets.table import Column, Row, Table

R = TypeVar("R")


class ListDialog(Dialog[R | None]):
    """Returns the value of the chosen line, or None."""

    DEFAULT_CSS = """
    ListDialog #box { max-width: 76; margin: 1 2; }
    ListDialog Table { max-height: 100%; }
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
        with self.frame(self._heading, f"↑ ↓ choose   ↵ {self._verb}   esc close"):
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
