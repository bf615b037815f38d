"""A dialog of boxes with two buttons: the base of all dialogs that ask before they act."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, TypeVar

from rich.console import RenderableType
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Checkbox, Input, Label, Static

from revector.screens.situation import Following, Situation
from revector.screens.widgets.dialog import LOST, Dialog
from revector.screens.widgets.inputs import LineBox
from revector.screens.wording.text import printable
from revector.screens.wording.theme import CAUTION

R = TypeVar("R")


class Choice(Checkbox):
    """A checkbox whose states differ by a sign, not only by colour."""

    @property
    def _button(self) -> Content:
        return Content("[x]" if self.value else "[ ]")


class Form(Following, Dialog[R]):
    """Boxes one below the other, a line for what is wrong, and the buttons. The focus starts on Cancel."""

    DEFAULT_CSS = """
    Form #box {
        max-width: 90; margin: 0 2; padding: 0 2;
        border: heavy $warning; border-title-color: $warning; border-title-style: bold;
    }
    Form #about { height: auto; margin: 0 0 1 0; }
    Form .field { height: 1; }
    Form Label { width: 18; color: $secondary; }
    Form Checkbox, Form Checkbox:focus { border: none !important; height: 1; padding: 0; background: $surface; }
    Form #state { height: auto; max-height: 8; margin: 1 0 0 0; color: $secondary; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False),
        Binding("left,up", "app.focus_previous", show=False),
        Binding("right,down", "app.focus_next", show=False),
    ]

    live = True
    focus_first = "#cancel"
    """Enter alone must not confirm."""
    ready = "Enter or the button: do it   Esc: close without changes"

    def field(self, name: str, label: str, value: str = "", hint: str = "") -> Widget:
        """A named box; `hint` is shown while it is empty."""
        box = LineBox(value, placeholder=hint, id=name, compact=True, select_on_focus=False)
        return Horizontal(Label(label), box, classes="field")

    def choice(self, name: str, label: str, words: str, *, on: bool = False, disabled: bool = False) -> Widget:
        """A named checkbox; Space toggles it."""
        box = Choice(Content(words), on, id=name, compact=True, disabled=disabled)
        return Horizontal(Label(label), box, classes="field")

    def about(self, what: RenderableType) -> Widget:
        """What it is about, above the boxes."""
        return Static(Text(what) if isinstance(what, str) else what, id="about", markup=False)

    def end_of_form(self, verb: str) -> Iterator[Widget]:
        """The line for errors, and the buttons."""
        yield Static(id="state", markup=False)
        yield Horizontal(
            Button("Cancel", id="cancel", compact=True), Button(verb, id="go", compact=True), id="buttons"
        )

    def on_mount(self) -> None:
        self.query_one(self.focus_first).focus()
        self.check()

    def text(self, name: str) -> str:
        return self.query_one(f"#{name}", Input).value.strip()

    def chosen(self, name: str) -> bool:
        return self.query_one(f"#{name}", Checkbox).value

    def say(self, message: RenderableType) -> None:
        """Show a message below the boxes."""
        self.query_one("#state", Static).update(message)

    def show(self, situation: Situation) -> None:
        """Disable the yes while the database is lost."""
        if situation.state.live != self.live:
            self.live = situation.state.live
            self.check()

    def check(self) -> None:
        """Show what is missing, and enable the button when nothing is."""
        objection = self.objection() if self.live else LOST
        self.query_one("#go", Button).disabled = bool(objection)
        self.say(objection or Text(self.ready))

    def objection(self) -> Text:
        """What is missing or wrong; empty when nothing is."""
        return Text()

    def go(self) -> None:
        """Confirm; called when nothing is missing."""

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.check()

    def on_checkbox_changed(self, event: Checkbox.Changed) -> None:
        event.stop()
        self.check()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._go_if_possible()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.id == "go":
            self._go_if_possible()
        else:
            self.action_cancel()

    def _go_if_possible(self) -> None:
        if self.live and not self.query_one("#go", Button).disabled:
            self.go()

    def action_cancel(self) -> None:
        self.dismiss(None)


def wrong(problem: str, remedy: str = "") -> Text:
    """What is wrong with the input."""
    return Text(f"✗ {printable(problem, lines=True)} {printable(remedy, lines=True)}".strip(), CAUTION)
