"""The question before a chunk is given up: which one, and why it may be missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

from revector.screens.situation import Following, Situation
from revector.screens.widgets.inputs import LineBox
from revector.screens.wording.text import printable
from revector.screens.wording.theme import CAUTION


@dataclass(frozen=True)
class Waiver:
    """A chunk that may be missing, and why."""

    chunk_id: int
    reason: str


class Waive(Following, ModalScreen[Waiver | None]):
    """Answers with the waiver, or with None. Without a reason there is none."""

    DEFAULT_CSS = """
    Waive { align: center middle; background: $background 70%; }
    Waive #box {
        width: 100%; max-width: 84; height: auto; margin: 0 2; padding: 1 2;
        border: heavy $warning; border-title-color: $warning; border-title-style: bold; background: $surface;
    }
    Waive Label { margin: 1 0 0 0; }
    Waive Input { border: none; height: 1; padding: 0 1; background: $panel; }
    Waive Input:focus { border: none; background: $block-cursor-background; }
    Waive #state { height: auto; margin: 1 0 0 0; color: $secondary; }
    Waive #buttons { height: 1; margin: 1 0 0 0; }
    Waive Button { margin: 0 2 0 0; padding: 0 1; min-width: 4; background: $panel; }
    Waive Button:focus { text-style: bold reverse; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False),
        Binding("up", "app.focus_previous", show=False),
        Binding("down", "app.focus_next", show=False),
    ]

    def __init__(self, key: str, chunk_id: int | None) -> None:
        super().__init__()
        self._key, self._chunk_id = key, chunk_id
        self._live = True

    def compose(self) -> ComposeResult:
        """What it means, the two boxes, the buttons."""
        with Vertical(id="box") as box:
            box.border_title = Content(" Waive a dead letter ")
            yield Static(
                Text(
                    f"The chunk gets no vector in {printable(self._key)}, and the version counts as complete "
                    "without it. Searches do not find it. Who waived it, and why, stays in the log."
                ),
                markup=False,
            )
            yield Label("Chunk")
            yield LineBox(str(self._chunk_id or ""), id="chunk", compact=True, select_on_focus=False)
            yield Label("Why it may be missing")
            yield LineBox(id="reason", compact=True, select_on_focus=False)
            yield Static(id="state", markup=False)
            with Horizontal(id="buttons"):
                yield Button("Cancel", id="cancel", compact=True)
                yield Button("Waive it", id="go", compact=True, disabled=True)

    def on_mount(self) -> None:
        """Enter alone does nothing: the reason is empty."""
        self.query_one("#reason" if self._chunk_id is not None else "#chunk").focus()
        self._check()

    def show(self, situation: Situation) -> None:
        """Make a yes impossible while the database is lost."""
        if situation.state.live != self._live:
            self._live = situation.state.live
            self._check()

    @property
    def _waiver(self) -> Waiver | None:
        chunk, reason = (self.query_one(f"#{name}", Input).value.strip() for name in ("chunk", "reason"))
        number = int(chunk) if chunk.isascii() and chunk.isdigit() else None
        if number is None or number >= 2**63 or not reason or not self._live:
            return None
        return Waiver(number, reason)

    def _check(self) -> None:
        self.query_one("#go", Button).disabled = self._waiver is None
        if not self._live:
            message = Text("✗ The database is lost: wait, or cancel.", CAUTION)
        elif self._waiver is not None:
            message = Text("Enter, or the button, does it now.")
        else:
            message = Text("It takes the number of the chunk and a reason. Escape cancels.")
        self.query_one("#state", Static).update(message)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Every letter counts."""
        event.stop()
        self._check()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter in a box."""
        event.stop()
        if self._waiver is not None:
            self.dismiss(self._waiver)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """One of the two buttons."""
        event.stop()
        self.dismiss(self._waiver if event.button.id == "go" else None)

    def action_cancel(self) -> None:
        """Escape."""
        self.dismiss(None)
