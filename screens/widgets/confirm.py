"""The question before anything that a key cannot undo: what, where, and a name to type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Button, Input, Label, Static

from revector.screens.services import Services
from revector.screens.situation import Situation
from revector.screens.widgets.dialog import Dialog
from revector.screens.widgets.form import Form, wrong
from revector.screens.widgets.inputs import LineBox
from revector.screens.wording.facts import facts
from revector.screens.wording.text import printable


@dataclass(frozen=True)
class Question:
    """What is about to happen. `key` must be typed; `ask_reason` adds a box for a reason in the log."""

    title: str
    services: Services
    lines: tuple[tuple[str, str], ...]
    key: str
    verb: str
    ask_reason: bool = False


@dataclass(frozen=True)
class Confirmation:
    """A yes: the typed key, and the reason."""

    typed: str
    reason: str


class Confirm(Form[Confirmation | None]):
    """Returns the confirmation, or None. The focus starts on Cancel, and Escape cancels."""

    DEFAULT_CSS = """
    Confirm #box { max-width: 84; padding: 1 2; }
    Confirm.-production #box { border: heavy $error; border-title-color: $error; }
    Confirm #facts { height: auto; max-height: 10; scrollbar-size-vertical: 1; }
    Confirm Label { width: auto; margin: 1 0 0 0; color: $foreground; }
    """

    ready = "The key matches. Press Enter, or the button."

    def __init__(self, question: Question, changed: Callable[[Situation], str] = lambda _situation: "") -> None:
        super().__init__(classes="-production" if question.services.settings.production else "")
        self._question = question
        self._changed = changed
        self._stopped = ""

    def compose(self) -> ComposeResult:
        question = self._question
        with self.frame(question.title):
            with VerticalScroll(id="facts", can_focus=False):
                yield Static(facts([question.services.where, *question.lines]), markup=False)
            yield Label(Text.assemble("Type the version key to confirm: ", (printable(question.key), "bold")))
            yield LineBox(id="key", compact=True, select_on_focus=False)
            if question.ask_reason:
                yield Label("Reason, for the log (optional)")
                yield LineBox(id="reason", compact=True, select_on_focus=False)
            yield from self.end_of_form(question.verb)

    def show(self, situation: Situation) -> None:
        """Disable the yes while the database is lost, or when the question no longer applies."""
        stopped = self._changed(situation) if situation.state.live else ""
        if (stopped, situation.state.live) != (self._stopped, self.live):
            self._stopped, self.live = stopped, situation.state.live
            self.check()

    def objection(self) -> Text:
        """What prevents a yes: a change meanwhile, or a key not typed exactly."""
        typed = self.query_one("#key", Input).value
        if self._stopped:
            return wrong(self._stopped)
        if typed == self._question.key:
            return Text()
        return Text("Not the version key yet." if typed else "Tab to the box and type. Esc: close without changes")

    def go(self) -> None:
        typed = self.query_one("#key", Input).value
        self.dismiss(Confirmation(typed, self.text("reason") if self._question.ask_reason else ""))

    def on_paste(self, event: events.Paste) -> None:
        """Ignore a paste while Cancel has the focus: the key must be typed."""
        event.stop()


class Ask(Dialog[bool | None]):
    """A question with two answers; the first, safe one has the focus."""

    DEFAULT_CSS = """
    Ask #box { max-width: 76; margin: 0 2; padding: 1 2; border: heavy $border; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Stay", show=False),
        Binding("left,up", "app.focus_previous", show=False),
        Binding("right,down", "app.focus_next", show=False),
    ]

    def __init__(self, text: str, no: str, yes: str) -> None:
        super().__init__()
        self._text, self._no, self._yes = text, no, yes

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Static(Text(printable(self._text, lines=True)), markup=False)
            with Horizontal(id="buttons"):
                yield Button(self._no, id="no", compact=True)
                yield Button(self._yes, id="yes", compact=True)

    def on_mount(self) -> None:
        """Focus the safe answer: Enter alone must change nothing."""
        self.query_one("#no").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.dismiss(event.button.id == "yes")
