"""The buttons of a tab: the offered actions that have a button."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Button

from revector.screens.actions import label_of, offered
from revector.screens.pane import Pane
from revector.screens.situation import Following, Situation
from revector.screens.tabs import ACTIONS, BY_ID, Tab


class Buttons(Following, Horizontal):
    """One line of buttons, only for offered actions."""

    DEFAULT_CSS = """
    Buttons { height: 1; padding: 0 1; dock: bottom; }
    Buttons Button { margin: 0 1 0 0; padding: 0 1; min-width: 4; background: $panel; }
    Buttons Button.-dangerous { color: $warning; }
    Buttons Button:focus { text-style: bold reverse; }
    """

    def __init__(self, tab: Tab) -> None:
        super().__init__()
        self._actions = [action for action in ACTIONS if action.button and action.tab == tab.key]

    def compose(self) -> ComposeResult:
        """A button for every action; only those offered are displayed."""
        for action in self._actions:
            text, classes = f"{label_of(action.keys[0])} {action.label}", "-dangerous" if action.dangerous else ""
            yield Button(text, id=f"button-{action.id}", classes=classes, compact=True)

    def show(self, situation: Situation) -> None:
        for action in self._actions:
            self.query_one(f"#button-{action.id}", Button).display = offered(action, situation)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.post_message(Pane.Act(BY_ID[str(event.button.id).removeprefix("button-")].id))
