"""The tabs, one row each, and their actions: bindings, tab bar, help and palette are made from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

from revector.screens.actions import Action, permitted
from revector.screens.backfill import actions as backfill
from revector.screens.compare import actions as compare
from revector.screens.cutover import actions as cutover
from revector.screens.evaluate import actions as evaluate
from revector.screens.frame import actions as frame
from revector.screens.log import actions as log
from revector.screens.shadow import actions as shadow
from revector.screens.situation import Situation
from revector.screens.versions import actions as versions

if TYPE_CHECKING:
    from revector.screens.pane import Pane

Shown = TypeVar("Shown", bound="Pane", default=Any)


@dataclass(frozen=True)
class Tab(Generic[Shown]):
    """One tab: its key and name, the path of its pane's class, and its actions."""

    key: str
    name: str
    pane: str
    actions: tuple[Action[Shown], ...]

    def __str__(self) -> str:
        """`6 Cutover`."""
        return f"{self.key} {self.name}"

    def load(self) -> type[Shown]:
        """Import its pane, only when it is first shown, so that the first frame comes soon."""
        pane: type[Shown] = resolve_name(f"revector.screens.{self.pane}")
        return pane


TABS: tuple[Tab, ...] = (
    VERSIONS := Tab("1", "Versions", "versions.pane:VersionsPane", versions.ACTIONS),
    BACKFILL := Tab("2", "Backfill", "backfill.pane:BackfillPane", backfill.ACTIONS),
    COMPARE := Tab("3", "Compare", "compare.pane:ComparePane", compare.ACTIONS),
    EVALUATE := Tab("4", "Evaluate", "evaluate.pane:EvaluatePane", evaluate.ACTIONS),
    SHADOW := Tab("5", "Shadow", "shadow.pane:ShadowPane", shadow.ACTIONS),
    CUTOVER := Tab("6", "Cutover", "cutover.pane:CutoverPane", cutover.ACTIONS),
    LOG := Tab("8", "Log", "log.pane:LogPane", log.ACTIONS),
)
"""7 Health keeps its number."""

ACTIONS: tuple[Action, ...] = (
    *map(frame.showing, TABS),
    *(replace(action, tab=tab.key) for tab in TABS for action in tab.actions),
    *frame.ACTIONS,
)
BY_ID = {action.id: action for action in ACTIONS}


def refused(key: str, situation: Situation) -> Action | None:
    """The action of a key that does nothing now, the tab's before the app's; None for an unknown key."""
    own = [
        action
        for action in ACTIONS
        if key in action.keys and action.tab in (None, situation.state.tab) and not action.typing
    ]
    return min(own, key=lambda action: (action.tab is None, not permitted(action, situation)), default=None)
