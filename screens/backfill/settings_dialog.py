"""The dialog of a backfill's settings: each with its value, the current measurement, and its meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from revector.core.backfill.job.settings import HELP, JobSettings, shown
from revector.core.errors import RevectorError
from revector.screens.situation import Following, Situation
from revector.screens.widgets.inputs import LineBox
from revector.screens.widgets.table import Column, Row, Table
from revector.screens.wording.text import printable
from revector.screens.wording.theme import BAD, CAUTION, FAINT, GOOD

_COLUMNS = (
    Column("setting", 21),
    Column("value", 18),
    Column("now", 12, right=True),
    Column("meaning"),
)


class SettingsDialog(Following, ModalScreen[None]):
    """A list: Enter edits the line under the cursor, Enter again applies it, Escape goes back."""

    DEFAULT_CSS = """
    SettingsDialog { align: center middle; background: $background 70%; }
    SettingsDialog #box {
        width: 100%; max-width: 130; height: 100%; max-height: 26; margin: 0 1; padding: 0 1;
        border: round $border; background: $surface; border-title-color: $foreground;
        border-subtitle-color: $secondary;
    }
    SettingsDialog Table { height: 1fr; background: $surface; }
    SettingsDialog #help { height: 2; color: $secondary; }
    SettingsDialog #edit { height: 1; display: none; }
    SettingsDialog #edit.-shown { display: block; }
    SettingsDialog #edit Label { padding: 0 1 0 0; text-style: bold; }
    SettingsDialog Input { border: none; height: 1; padding: 0 1; background: $panel; width: 1fr; }
    SettingsDialog Input:focus { border: none; background: $block-cursor-background; }
    SettingsDialog #state { height: auto; min-height: 1; max-height: 3; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", show=False),
        Binding("enter", "edit", "Edit", show=False),
    ]

    def __init__(
        self,
        key: str,
        settings: JobSettings,
        measured: Mapping[str, Any],
        effect: str,
        on_apply: Callable[[str, str], None],
    ) -> None:
        """`on_apply(name, value)` is called on the screen's thread, and then calls `applied` or `refused`."""
        super().__init__()
        self._key, self._settings, self._measured = key, settings, measured
        self._effect, self._on_apply = effect, on_apply
        self._edited: str | None = None
        self._before = ""
        self._live = True

    def compose(self) -> ComposeResult:
        with Vertical(id="box") as box:
            box.border_title = Content(f" settings of the backfill of {printable(self._key)} ")
            yield Table(_COLUMNS, id="settings")
            yield Static(id="help", markup=False)
            with Horizontal(id="edit"):
                yield Label(id="name", markup=False)
                yield LineBox(id="value", compact=True, select_on_focus=False)
            yield Static(id="state", markup=False)

    def on_mount(self) -> None:
        self.query_one(Table).focus()
        self._say(Text(self._effect, FAINT))
        self._draw()

    def follow(self, settings: JobSettings, measured: Mapping[str, Any]) -> None:
        """Show the settings in force; keeps what is being typed."""
        self._settings, self._measured = settings, measured
        if self.is_mounted:
            self._draw()

    def show(self, situation: Situation) -> None:
        if situation.state.live != self._live:
            self._live = situation.state.live
            lost = Text("✗ No connection to the database: wait, or press Esc.", CAUTION)
            self._say(lost if not self._live else Text(self._effect, FAINT))

    # -- drawing ------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        self.query_one(Table).show([self._row(name) for name in HELP])
        self._draw_help()
        keys = " ↵ apply   esc keep the old value " if self._edited else " ↑ ↓ choose   ↵ change   esc close "
        self.query_one("#box").border_subtitle = Content(keys)

    def _row(self, name: str) -> Row:
        value = shown(self._settings, name)
        is_set = getattr(self._settings, name) != getattr(JobSettings(), name)
        figure = self._figure(name)
        return Row(
            name,
            (
                Text(name, "bold" if is_set else ""),
                Text(printable(value), "bold" if is_set else FAINT),
                Text(figure, CAUTION if self._holds(name) else ""),
                HELP[name],
            ),
        )

    def _figure(self, name: str) -> str:
        value = (self._measured.get(name) or {}).get("value")
        if value is None:
            return ""
        return f"{value:,.1f}" if isinstance(value, float) else printable(str(value))

    def _holds(self, name: str) -> str:
        return str((self._measured.get(name) or {}).get("reason") or "")

    def _draw_help(self) -> None:
        name = self._edited or self.query_one(Table).row_key
        if name is None:
            return
        text = Text(HELP[name])
        if self._holds(name):
            text.append(f" It holds the backfill now: {printable(self._holds(name))}.", CAUTION)
        else:
            text.append(
                " `none` lifts it." if getattr(JobSettings(), name) is None and name != "batch_size" else ""
            )
        self.query_one("#help", Static).update(text)

    def _say(self, message: Text) -> None:
        self.query_one("#state", Static).update(message)

    # -- editing ------------------------------------------------------------------------------------------

    def on_data_table_row_highlighted(self, event: Table.RowHighlighted) -> None:
        event.stop()
        self._draw_help()

    def on_data_table_row_selected(self, event: Table.RowSelected) -> None:
        event.stop()
        self.action_edit()

    def action_edit(self) -> None:
        name = self.query_one(Table).row_key
        if name is None or self._edited is not None:
            return
        self._edited = name
        box = self.query_one("#value", Input)
        # A query of several lines is shown as one; if unchanged, it is not written back.
        self._before = " ".join(shown(self._settings, name).split())
        box.value = self._before
        self._before = box.value
        box.cursor_position = len(box.value)
        self.query_one("#name", Label).update(Text(name))
        self.query_one("#edit").add_class("-shown")
        box.focus()
        self._say(Text(self._effect, FAINT))
        self._draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self._edited is None or not self._live:
            return
        if event.value == self._before:
            self._close_box()
            return
        self._say(Text("Applying …", FAINT))
        self._on_apply(self._edited, event.value)

    def applied(self, name: str, settings: JobSettings) -> None:
        """The change is in force."""
        self._settings = settings
        self._say(Text(f"✓ {name} is {printable(shown(settings, name))} now. {self._effect}", GOOD))
        if self._edited == name:
            self._close_box()
        else:
            self._draw()

    def refused(self, error: RevectorError) -> None:
        """The change was refused; keeps what was typed."""
        self._say(Text(f"✗ {printable(error.problem)} {printable(error.remedy)}".strip(), BAD))

    def action_back(self) -> None:
        if self._edited is not None:
            self._say(Text(self._effect, FAINT))
            self._close_box()
        else:
            self.dismiss(None)

    def _close_box(self) -> None:
        self._edited = None
        self.query_one("#edit").remove_class("-shown")
        self.query_one(Table).focus()
        self._draw()
