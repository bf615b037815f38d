"""What the tabs use: the database, the settings, open connections, and the backfills of this process."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from revector.core.database import Database
from revector.core.settings import Settings
from revector.screens.backfill.runs import Backfills
from revector.screens.connections import Connections
from revector.screens.wording.facts import place


@dataclass(frozen=True)
class Services:
    """What a tab needs to work with the database."""

    database: Database
    settings: Settings
    connections: Connections
    backfills: Backfills

    @property
    def where(self) -> tuple[str, Text]:
        """The line of a dialog about where something is about to happen."""
        return "database", place(self.database, self.settings)

    @property
    def patience_s(self) -> float:
        """After how many seconds a read without an answer counts as lost."""
        return self.database.connect_timeout_s + 2 * self.settings.read_timeout_s
