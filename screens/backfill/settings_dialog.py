"""The dialog of a backfill's settings: each with its value, the current measurement, and its meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.text import Text
from textual.content import Content
from textual.widgets import Input, Static

from revector.core.backfill.job.settings import HELP, JobSettings, shown
from revector.core.errors import RevectorError
from revector.screens.widgets.dialog import EditDialog
from revector.screens.widgets.table import Column, Row, Table
from revector.screens.wording.text import printable
from revector.screens.wording.theme import BAD, CAUTION, FAINT, GOOD

_COLUMNS = (
    Column("setting", 21),
    Column("value", 18),
    Column("now", 12, right=True),
    Column("meaning"),
)


class SettingsDialog(EditDialog[None]):
    """Each setting is applied by itself, and may change while the dialog is open."""

    DEFAULT_CSS = """
    SettingsDialog #box { max-width: 130; height: 100%; max-height: 26; }
    SettingsDialog Table { height: 1fr; }
    SettingsDialog Label { padding: 0 1 0 0; text-style: bold; }
    SettingsDialog #state { max-height: 3; }
    """

    def __init__(
        self,
        key: str,
        settings: JobSettings,
        measured: Mapping[str, Any],
        effect: str,
        on_apply: Callable[[str, str], None],
    ) -> None:
        """`on_apply(name, value)` is called on the screen's thread, and then calls `applied` or `refused`."""
        title = f"settings of the backfill of {printable(key)}"
        super().__init__(title, _COLUMNS, rest=Text(effect, FAINT))
        self._settings, self._measured = settings, measured
        self._effect, self._on_apply = effect, on_apply
        self._before = ""

    def follow(self, settings: JobSettings, measured: Mapping[str, Any]) -> None:
        """Show the settings in force; keeps what is being typed."""
        self._settings, self._measured = settings, measured
        if self.is_mounted:
            self._draw()

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
        name = self._line
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

    # -- editing ------------------------------------------------------------------------------------------

    def action_edit(self) -> None:
        name = self.query_one(Table).row_key
        if name is None or self._edited is not None:
            return
        # A query of several lines is shown as one; if unchanged, it is not written back.
        self._open_box(name, name, " ".join(shown(self._settings, name).split()))
        self._before = self.query_one("#value", Input).value
        self._say(self._rest)

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
