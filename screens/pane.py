"""The base of all tabs: a tab shows a situation, and sends requests to the app as messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rich.text import Text
from textual.containers import Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

from revector.core.database import Connection
from revector.core.errors import RevectorError
from revector.screens.services import Services
from revector.screens.situation import Following, Situation
from revector.screens.widgets.background import Tell, in_background
from revector.screens.widgets.parts import Parts

if TYPE_CHECKING:
    from revector.screens.tabs import Shown, Tab

T = TypeVar("T")
Failed = Callable[[RevectorError], None]


class Pane(Vertical):
    """One tab. `situation` is what it shows."""

    DEFAULT_CSS = "Pane { height: 1fr; }"
    ROW_ACTION: ClassVar[str] = ""
    """What a click on the row under the cursor does."""
    PARTS: ClassVar[tuple[str, ...]] = ()
    TALL: ClassVar[int] = 32
    WIDE: ClassVar[int] = 100
    """In a narrower terminal, its parts do not fit beside each other."""

    @dataclass
    class Select(Message):
        """Make a version the selected one."""

        key: str

    @dataclass
    class Changed(Message):
        """Something that actions depend on changed; with `database`, it was in the database."""

        database: bool = False

    @dataclass
    class Act(Message):
        """Do the action with this id, if it is offered; sent by a click on a row or a button."""

        action_id: str

    class Open(Message):
        """Show another tab, optionally select a version, and do something there."""

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
        self.situation = situation
        self.draw()

    def draw(self) -> None:
        """Draw `self.situation`."""

    def changed(self, *, database: bool = False) -> None:
        """Draw, and report that something actions depend on changed; with `database`, in the database."""
        self.draw()
        self.post_message(self.Changed(database=database))

    def show_actions(self, situation: Situation) -> None:
        """Show the current buttons, which may depend on what the tab has just drawn."""
        for buttons in self.query("Buttons"):
            if isinstance(buttons, Following):
                buttons.show(situation)

    def show_line(self, place: str, text: Text) -> None:
        """Show a text in its place, which takes no room while there is none."""
        line = self.query_one(place, Static)
        line.display = bool(text)
        line.update(text)

    def on_parts_chosen(self, event: Parts.Chosen) -> None:
        event.stop()
        self._show_part(event.name)

    def _show_part(self, part: str) -> None:
        """Show this part, where one is shown at a time."""

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        event.data_table.focus()
        if self.ROW_ACTION:
            self.post_message(self.Act(self.ROW_ACTION))

    def state(self, situation: Situation) -> object:
        """The tab's own state that actions depend on, in addition to the snapshot."""

    def read(self, group: str, work: Callable[[Connection], T], done: Callable[[T], None], failed: Failed) -> None:
        """Read in the background; `done` or `failed` is called on the screen's own thread. See `in_background`."""

        def run(_tell: Tell) -> T:
            with self.services.connections.reading() as connection:
                return work(connection)

        in_background(self, group, run, done, failed)

    def write(
        self, group: str, work: Callable[[Connection], T], done: Callable[[T], None], failed: Failed
    ) -> None:
        """Change something in the background, like `read`."""

        def run(_tell: Tell) -> T:
            with self.services.connections.writing() as connection:
                return work(connection)

        in_background(self, group, run, done, failed)

    def ask(self, dialog: ModalScreen[T | None], then: Callable[[T], object]) -> None:
        """Open a dialog; `then` gets its answer, unless there is none or it is no."""

        def answered(answer: T | None) -> None:
            if answer is not None and answer is not False:
                then(answer)

        self.app.push_screen(dialog, answered)

    @property
    def tight(self) -> bool:
        """Whether one part is shown at a time, because the terminal is too small for more."""
        return bool(self.PARTS) and (self.app.size.height < self.TALL or self.app.size.width < self.WIDE)

    def focus_main(self) -> None:
        """Focus the tab's main widget."""

    def entered(self) -> None:
        """Called each time the tab is shown."""


def step_through(keys: list[str], current: str | None, step: int) -> str | None:
    """The key after (or before) the current one, wrapping around."""
    if not keys:
        return None
    if current not in keys:
        return keys[0]
    return keys[(keys.index(current) + step) % len(keys)]
