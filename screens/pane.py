"""What the tabs have in common: they are shown situations, and ask the app for things by message."""

from __future__ import annotations

from typing import ClassVar

from textual.containers import Vertical
from textual.message import Message

from revector.screens.services import Services
from revector.screens.situation import Situation


class Pane(Vertical):
    """One tab. `situation` is the moment that it shows."""

    DEFAULT_CSS = "Pane { height: 1fr; }"
    TALL: ClassVar[int] = 32
    WIDE: ClassVar[int] = 100
    """In a terminal with less than this, its parts have no room beside each other."""

    class Select(Message):
        """Make a version the selected one, and show a tab if one is named."""

        def __init__(self, key: str, tab: str | None = None) -> None:
            super().__init__()
            self.key = key
            self.tab = tab

    class Changed(Message):
        """Something that actions depend on changed; with `database`, it was in the database."""

        def __init__(self, *, database: bool = False) -> None:
            super().__init__()
            self.database = database

    class Act(Message):
        """Do the action of this id, if it is there: what a click on a row or a button asks for."""

        def __init__(self, action_id: str) -> None:
            super().__init__()
            self.action_id = action_id

    class OpenQuery(Message):
        """Search for a query of a query set on the Compare tab, with these two versions."""

        def __init__(self, query_set: str, query_id: str, primary: str, candidate: str) -> None:
            super().__init__()
            self.query_set, self.query_id = query_set, query_id
            self.primary, self.candidate = primary, candidate

    class OpenEvaluation(Message):
        """Show an evaluation on the Evaluate tab."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    class OpenText(Message):
        """Search for a text on the Compare tab, with these two versions."""

        def __init__(self, text: str, primary: str, candidate: str) -> None:
            super().__init__()
            self.text, self.primary, self.candidate = text, primary, candidate

    def __init__(self, services: Services) -> None:
        super().__init__()
        self.services = services
        self.situation = Situation()

    def show(self, situation: Situation) -> None:
        """Draw this moment."""
        self.situation = situation
        self.draw()

    def draw(self) -> None:
        """Draw `self.situation`."""

    def changed(self, *, database: bool = False) -> None:
        """Draw, and say that what actions depend on changed; with `database`, it was in the database."""
        self.draw()
        self.post_message(self.Changed(database=database))

    def show_actions(self, situation: Situation) -> None:
        """Show the buttons of this moment, which may follow from what the tab itself has just drawn."""

    @property
    def tight(self) -> bool:
        """Whether it has parts that are shown in turn, for want of room."""
        return False

    @property
    def narrow(self) -> bool:
        """Whether the terminal is too small for parts beside each other."""
        return self.app.size.height < self.TALL or self.app.size.width < self.WIDE

    def focus_main(self) -> None:
        """Put the focus where the tab's work is."""

    def next_candidate(self) -> None:
        """The next version as candidate."""
        self.step_candidate(1)

    def previous_candidate(self) -> None:
        """The version before as candidate."""
        self.step_candidate(-1)

    def step_candidate(self, step: int) -> None:
        """Another version as candidate, where the tab has one: the next one, or the one before."""

    def entered(self) -> None:
        """Called each time that the tab comes to the front."""


def step_through(keys: list[str], current: str | None, step: int) -> str | None:
    """The key after (or before) the current one, in a circle."""
    if not keys:
        return None
    if current not in keys:
        return keys[0]
    return keys[(keys.index(current) + step) % len(keys)]
