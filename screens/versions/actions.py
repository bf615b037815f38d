"""Actions of the Versions tab, and when they are offered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from revector.screens.actions import Action, can_compare, has_versions, needs

if TYPE_CHECKING:
    from revector.screens.versions.pane import VersionsPane


can_compare_selected = needs(
    lambda moment: moment.selected is None or moment.selected.embedded,
    "this version has no vectors yet",
    can_compare,
)
can_propose = needs(
    lambda moment: not (moment.selected and moment.selected.version.active),
    "this version is the active one",
    has_versions,
)


ACTIONS: tuple[Action[VersionsPane], ...] = (
    Action("details", ("enter",), "details", "All details of the version.",
           lambda pane: pane.open_details(), has_versions),
    Action("to-backfill", ("b",), "backfill", "The backfill of the selected version.",
           lambda pane: pane.to_backfill(), has_versions),
    Action("to-compare", ("c",), "compare", "Compare the selected version with the active one.",
           lambda pane: pane.to_compare(), can_compare_selected),
    Action("to-cutover", ("u",), "cut over", "The guards of the selected version, and its cutover.",
           lambda pane: pane.to_cutover(), can_propose),
)  # fmt: skip
