"""The frame that all dialogs and pages share, and a dialog that edits a list of lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from revector.screens.situation import Following, Situation
from revector.screens.widgets.inputs import LineBox
from revector.screens.widgets.table import Column, Table
from revector.screens.wording.theme import CAUTION

R = TypeVar("R")

LOST = Text("✗ No connection to the database: wait, or press Esc.", CAUTION)


class Dialog(ModalScreen[R]):
    """A frame in the middle of the screen."""

    DEFAULT_CSS = """
    Dialog { align: center middle; background: $background 70%; }
    Dialog #box {
        width: 100%; height: auto; max-height: 100%; margin: 0 1; padding: 0 1; border: round $border;
        background: $surface; border-title-color: $foreground; border-subtitle-color: $secondary;
    }
    Dialog Table { height: auto; background: $surface; }
    Dialog Input { background: $panel; width: 1fr; }
    Dialog Input:focus { background: $block-cursor-background; }
    Dialog #buttons { height: 1; margin: 1 0 0 0; }
    Dialog Button { margin: 0 2 0 0; padding: 0 1; min-width: 4; background: $panel; }
    Dialog Button:focus { text-style: bold reverse; }
    """

    def frame(self, title: str, keys: str = "") -> Vertical:
        """The frame with its title, and the keys below."""
        box = Vertical(id="box")
        box.border_title = Content(f" {title} ")
        box.border_subtitle = Content(f" {keys} " if keys else "")
        return box


class EditDialog(Following, Dialog[R]):
    """A list of lines: Enter edits the one under the cursor, Enter again applies it, Escape goes back."""

    DEFAULT_CSS = """
    EditDialog #help { height: 2; color: $secondary; }
    EditDialog #edit { height: 1; display: none; }
    EditDialog #edit.-shown { display: block; }
    EditDialog #state { height: auto; min-height: 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", show=False),
        Binding("enter", "edit", "Edit", show=False),
    ]

    def __init__(self, title: str, columns: Sequence[Column], *, header: bool = True, rest: Text) -> None:
        """`rest` is what is said below the list while there is nothing else to say."""
        super().__init__()
        self._heading, self._columns, self._header, self._rest = title, columns, header, rest
        self._edited: str | None = None
        self._live = True

    def compose(self) -> ComposeResult:
        with self.frame(self._heading):
            yield Table(self._columns, id="lines", header=self._header)
            yield Static(id="help", markup=False)
            with Horizontal(id="edit"):
                yield Label(id="name", markup=False)
                yield LineBox(id="value", compact=True, select_on_focus=False)
            yield Static(id="state", markup=False)

    def on_mount(self) -> None:
        self.query_one(Table).focus()
        self._say(self._rest)
        self._draw()

    def show(self, situation: Situation) -> None:
        if situation.state.live != self._live:
            self._live = situation.state.live
            self._say(self._rest if self._live else LOST)

    def _draw(self) -> None:
        """Draw the lines, and the help of one of them."""
        raise NotImplementedError

    def _draw_help(self) -> None:
        raise NotImplementedError

    @property
    def _line(self) -> str | None:
        """The line that is edited, or else the one under the cursor."""
        return self._edited or self.query_one(Table).row_key

    def _say(self, message: Text) -> None:
        self.query_one("#state", Static).update(message)

    def on_data_table_row_highlighted(self, event: Table.RowHighlighted) -> None:
        event.stop()
        self._draw_help()

    def on_data_table_row_selected(self, event: Table.RowSelected) -> None:
        event.stop()
        self.action_edit()

    def action_edit(self) -> None:
        raise NotImplementedError

    def _open_box(self, name: str, label: str, value: str) -> None:
        self._edited = name
        box = self.query_one("#value", Input)
        box.value = value
        box.cursor_position = len(box.value)
        self.query_one("#name", Label).update(Text(label))
        self.query_one("#edit").add_class("-shown")
        box.focus()
        self._draw()

    def action_back(self) -> None:
        if self._edited is not None:
            self._say(self._rest)
            self._close_box()
        else:
            self.dismiss(None)

    def _close_box(self) -> None:
        self._edited = None
        self.query_one("#edit").remove_class("-shown")
        self.query_one(Table).focus()
        self._draw()
