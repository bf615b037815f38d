"""Actions of the Shadow tab, and when they are offered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from revector.screens.actions import BEFORE, NEXT, Action, has_candidate, is_tight, needs
from revector.screens.situation import Situation

if TYPE_CHECKING:
    from revector.screens.shadow.pane import ShadowPane


@dataclass(frozen=True)
class ShadowState:
    """What the tab knows in addition to the snapshot."""

    shadowing: bool | None = None
    """Whether a shadow runs; None until it was read."""
    disagreeing: bool = False
    """Whether it has a disagreement to open."""
    judgeable: bool = False
    """Whether the text of one of them is stored."""


shadowing = needs(lambda moment: moment.of(ShadowState).shadowing, "no shadow is running")


def not_shadowing(situation: Situation) -> str | None:
    if situation.of(ShadowState).shadowing is None:
        return "the shadow has not been read yet"
    return "a shadow is running" if situation.of(ShadowState).shadowing else None


def can_shadow(situation: Situation) -> str | None:
    candidate = situation.candidate
    if situation.active is None or candidate is None:
        return "no version is active" if situation.active is None else has_candidate(situation)
    if not candidate.embedded:
        return "the candidate has no vectors yet"
    if not candidate.version.encoder_spec:
        return "the candidate has no encoder that can be opened"
    return not_shadowing(situation)


can_choose_shadow = needs(lambda moment: len(moment.versions) > 1, "there is no other version", not_shadowing)
disagreeing = needs(lambda moment: moment.of(ShadowState).disagreeing, "there is no disagreement to open")
judgeable = needs(lambda moment: moment.of(ShadowState).judgeable, "no disagreement has its text stored")

ACTIONS: tuple[Action[ShadowPane], ...] = (
    Action("shadow-open", ("enter",), "open", "The disagreement under the cursor: on the Compare tab where its "
           "text is stored, else both rankings.", lambda pane: pane.open_row(), disagreeing),
    Action("shadow-start", ("s",), "start", "Send a sample of users' queries to the candidate too; asks how many, "
           "what is kept of them, and for the version key.", lambda pane: pane.start(), can_shadow, dangerous=True,
           button=True),
    Action("shadow-stop", ("x",), "stop", "Stop the shadow. Its results are kept for the retention time.",
           lambda pane: pane.stop(), shadowing, dangerous=True, button=True),
    Action("shadow-judge", ("t",), "to judging", "Send the worst disagreements to the judging queue, as queries "
           "of a query set.", lambda pane: pane.send_to_judging(), judgeable, dangerous=True, button=True),
    Action("shadow-part", ("m",), "next part", "Switch between the parts of this tab on a small screen.",
           lambda pane: pane.next_part(), is_tight, offline=True),
    Action("next-shadow", NEXT, "candidate", "The next version as candidate.", lambda pane: pane.step_candidate(1),
           can_choose_shadow, footer=False),
    Action("previous-shadow", BEFORE, "candidate", "The version before as candidate.",
           lambda pane: pane.step_candidate(-1), can_choose_shadow, footer=False),
)  # fmt: skip
