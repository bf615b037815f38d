"""Names and values, one pair on each line; long values wrap in their column."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import RenderableType
from rich.table import Table as Grid
from rich.text import Text

from revector.core.database import Database
from revector.core.settings import Settings
from revector.screens.wording.text import printable
from revector.screens.wording.theme import FAINT


def facts(lines: Iterable[tuple[str, str | Text]]) -> RenderableType:
    """The lines as a grid. A str is untrusted; a Text is already printable."""
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, style=FAINT)
    grid.add_column(overflow="fold")
    for name, value in lines:
        grid.add_row(Text(name), value if isinstance(value, Text) else Text(printable(value)))
    return grid


def place(database: Database, settings: Settings) -> Text:
    """Where something is about to happen: `local/app, collection search, label prod-eu, PRODUCTION`."""
    label = f", label {settings.label}" if settings.label else ""
    text = Text(printable(f"{database.name}, collection {database.schema}{label}"), "bold")
    return text.append(", ").append("PRODUCTION", "bold reverse") if settings.production else text
