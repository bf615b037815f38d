"""Actions of the Log tab, and when they are offered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from revector.screens.actions import Action, needs

if TYPE_CHECKING:
    from revector.screens.log.pane import LogPane


has_log = needs(lambda moment: moment.overview and moment.overview.log, "the log is empty")

ACTIONS: tuple[Action[LogPane], ...] = (
    Action("log-entry", ("enter",), "open", "All of the entry, with its figures.", lambda pane: pane.open_entry(),
           has_log, offline=True),
)  # fmt: skip
