"""A table of rows with a cursor: fits the width, keeps its cursor, and redraws only what changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.geometry import Size
from textual.widgets import DataTable
from textual.widgets.data_table import RowDoesNotExist

from revector.screens.wording.text import printable


@dataclass(frozen=True)
class Column:
    """A column `width` cells wide, or as wide as possible (0); shown only from some width of the table on."""

    title: str
    width: int = 0
    right: bool = False
    from_width: int = 0


@dataclass(frozen=True)
class Row:
    """A row with a key; a cell is untrusted text, or a Text that is already printable."""

    key: str
    cells: tuple[str | Text, ...]


def cell(content: str | Text, *, right: bool = False) -> Text:
    """A cell on one line, cut with an ellipsis."""
    text = content.copy() if isinstance(content, Text) else Text(printable(content))
    text.no_wrap = True
    text.overflow = "ellipsis"
    if right:
        text.justify = "right"
    return text


class Table(DataTable[Text], inherit_bindings=False):
    """Rows and a cursor. Enter belongs to the tab's actions; a click on the row under the cursor acts like
    Enter."""

    DEFAULT_CSS = """
    Table { background: $background; overflow-x: hidden; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }
    Table > .datatable--header { background: $surface; color: $secondary; text-style: bold; }
    Table > .datatable--cursor { text-style: none; }
    Table:focus { background-tint: $foreground 0%; }
    Table:focus > .datatable--cursor { text-style: bold; }
    Table:focus:nocolor > .datatable--cursor { text-style: bold reverse; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "cursor_up", "Up", show=False),
        Binding("down", "cursor_down", "Down", show=False),
        Binding("pageup", "page_up", "Page up", show=False),
        Binding("pagedown", "page_down", "Page down", show=False),
        Binding("home", "scroll_top", "First", show=False),
        Binding("end", "scroll_bottom", "Last", show=False),
    ]

    def __init__(self, columns: Sequence[Column], *, id: str | None = None, header: bool = True) -> None:  # noqa: A002
        super().__init__(id=id, cursor_type="row", show_header=header, cell_padding=1)
        self._plan = tuple(columns)
        self._rows_shown: tuple[Row, ...] = ()
        self._laid_out: tuple[tuple[int, int], ...] = ()
        """The visible columns, as index and width. A hidden table has no size, and keeps its columns."""

    def show(self, rows: Sequence[Row]) -> None:
        """Set the rows; the cursor stays on the row with its key."""
        rows = tuple(rows)
        key = self.row_key
        before, self._rows_shown = self._rows_shown, rows
        if not self._laid_out:
            return
        if [row.key for row in before] != [row.key for row in rows]:
            self._rebuild(key)
            return
        for line, (old, new) in enumerate(zip(before, rows, strict=True)):
            for place, (was, now) in enumerate(zip(self._cells(old), self._cells(new), strict=True)):
                if (was, was.style) != (now, now.style):
                    self.update_cell_at(Coordinate(line, place), now)

    def _cells(self, row: Row) -> list[Text]:
        return [cell(row.cells[index], right=self._plan[index].right) for index, _ in self._laid_out]

    @property
    def row_key(self) -> str | None:
        """The key of the row under the cursor."""
        line = self.cursor_row
        return self._rows_shown[line].key if 0 <= line < len(self._rows_shown) else None

    def move_to(self, key: str) -> bool:
        """Put the cursor on a row; False when there is none with that key."""
        try:
            line = self.get_row_index(key)
        except RowDoesNotExist:
            return False
        self.move_cursor(row=line)
        return True

    def _fit(self) -> tuple[tuple[int, int], ...]:
        """The columns that fit."""
        width = self.outer_size.width - self.styles.gutter.width
        columns = [(index, column) for index, column in enumerate(self._plan) if width >= column.from_width]
        fixed = sum(column.width for _, column in columns)
        room = width - self.scrollbar_gutter.width - 2 * len(columns) - fixed
        flexible = sum(not column.width for _, column in columns)
        return tuple((index, column.width or max(4, room // flexible)) for index, column in columns)

    def _size_updated(self, size: Size, virtual_size: Size, container_size: Size, layout: bool = True) -> bool:
        """Called by each layout with the size. The Resize event does not do: Textual does not send it if the
        table's region was read between a change and the next layout."""
        if size.width != self.outer_size.width:
            self.call_later(self._lay_out)
        return super()._size_updated(size, virtual_size, container_size, layout)

    def _lay_out(self) -> None:
        if (columns := self._fit()) != self._laid_out:
            self._laid_out = columns
            self._rebuild(self.row_key)

    def _rebuild(self, key: str | None) -> None:
        line = self.cursor_row
        with self.prevent(self.RowHighlighted):
            self.clear(columns=True)
            for index, width in self._laid_out:
                column = self._plan[index]
                self.add_column(cell(column.title, right=column.right), width=width)
            for row in self._rows_shown:
                self.add_row(*self._cells(row), key=row.key)
            if key is None or not self.move_to(key):
                self.move_cursor(row=max(0, min(line, len(self._rows_shown) - 1)))
