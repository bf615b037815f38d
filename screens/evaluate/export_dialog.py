"""In which form a report is written."""

from __future__ import annotations

from typing import ClassVar, get_args

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen

from revector.screens.evaluate.lists import REPORTS, ReportKind
from revector.screens.widgets.table import Column, Row, Table


class ExportDialog(ModalScreen[ReportKind | None]):
    """A list of forms; Enter takes the one under the cursor. None for none."""

    DEFAULT_CSS = """
    ExportDialog { align: center middle; background: $background 70%; }
    ExportDialog #box {
        width: 100%; max-width: 66; height: auto; margin: 0 2; padding: 0 1; border: round $border;
        background: $surface; border-title-color: $foreground; border-subtitle-color: $secondary;
    }
    ExportDialog Table { height: auto; background: $surface; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss", "Close", show=False),
        Binding("enter", "take", "Take", show=False),
    ]

    def compose(self) -> ComposeResult:
        """The list."""
        with Vertical(id="box") as box:
            box.border_title = Content(" write the evaluation to a new file in the working directory ")
            box.border_subtitle = Content(" ↑ ↓ choose   ↵ write   esc close ")
            yield Table((Column("", 6), Column("what")), id="kinds", header=False)

    def on_mount(self) -> None:
        """The list has the focus."""
        table = self.query_one(Table)
        table.show([Row(kind, (f".{end}", words)) for kind, (end, words) in REPORTS.items()])
        table.focus()

    def on_data_table_row_selected(self, event: Table.RowSelected) -> None:
        """A click on the line under the cursor."""
        event.stop()
        self.action_take()

    def action_take(self) -> None:
        """Enter."""
        key = self.query_one(Table).row_key
        self.dismiss(next((kind for kind in get_args(ReportKind) if kind == key), None))

    async def action_dismiss(self, result: ReportKind | None = None) -> None:
        """Escape writes nothing."""
        self.dismiss(result)
