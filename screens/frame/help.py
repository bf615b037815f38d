"""All keys on one page, by tab: those offered now, and the others."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table as Grid
from rich.text import Text

from revector.screens.actions import Action, label_of, offered, permitted
from revector.screens.situation import Situation
from revector.screens.tabs import ACTIONS, TABS
from revector.screens.wording.theme import FAINT, TITLE


def help_text(situation: Situation) -> RenderableType:
    """The table of actions, without those that the session may not do."""
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, justify="right")
    grid.add_column(overflow="fold")
    for key, title in ((None, "Everywhere"), *((tab.key, str(tab)) for tab in TABS)):
        actions = [action for action in listed(situation) if action.tab == key]
        if actions:
            grid.add_row("", Text(title, TITLE))
            for action in actions:
                grid.add_row(
                    Text(keys_of(action), "bold"), Text(action.help, "" if offered(action, situation) else FAINT)
                )
            grid.add_row("", "")
    grid.add_row("", Text("In lists: ↑ ↓ PgUp PgDn Home End. Tab and Shift+Tab move between parts.", FAINT))
    grid.add_row("", Text("Dimmed keys do nothing right now, or belong to another tab.", FAINT))
    return grid


def listed(situation: Situation) -> list[Action]:
    """The actions that this session may do."""
    return [action for action in ACTIONS if permitted(action, situation)]


def keys_of(action: Action) -> str:
    """`q ^q`."""
    return " ".join(label_of(key) for key in action.keys)
