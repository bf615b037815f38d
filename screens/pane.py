"""What the tabs have in common: they are shown situations, and ask the app for things by message."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from textual.containers import Vertical
from textual.message import Message

from revector.screens.services import Services
from revector.screens.situation import Situation

if TYPE_CHECKING:
    from revector.screens.tabs import Shown, Tab


class Pane(Vertical):
    """One tab. `situation` is the moment that it shows."""

    DEFAULT_CSS = "Pane { height: 1fr; }"
    TALL: ClassVar[int] = 32
    WIDE: ClassVar[int] = 100
    """In a terminal with less than this, its parts have no room beside each other."""

    class Select(Message):
        """Make a version the selected one."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

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

    class Open(Message):
        """Show another tab, with a version as the selected one if one is named, and do something there."""

        def __init__(
            self, tab: Tab[Shown], do: Callable[[Shown], object] | None = None, *, select: str | None = None
        ) -> None:
            super().__init__()
            self.tab: Tab = tab
            self.do: Callable[[Any], object] | None = do
            self.select = select

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

    def state(self, situation: Situation) -> object:
        """What actions depend on beside the snapshot, in a class of the tab's own."""

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
