"""Actions of the Cutover tab, and when they are offered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from revector.screens.actions import BEFORE, NEXT, Action, has_candidate, has_several, is_tight, needs
from revector.screens.situation import Situation, key_of

if TYPE_CHECKING:
    from revector.core.cutover import Request
    from revector.screens.cutover.pane import CutoverPane


@dataclass(frozen=True)
class CutoverState:
    """What the tab knows in addition to the snapshot."""

    cleared: str | None = None
    """The version whose guards all pass."""
    blocked: str = ""
    """Why the guards do not all pass, in a few words."""
    flipping: bool = False
    request: Request | None = None
    """The request for a cutover to the candidate."""
    waivable: bool = False
    """Whether a guard can be waived, or is."""
    evidence: bool = False
    """Whether there is an evaluation of the pair to open."""


not_flipping = needs(lambda moment: not moment.of(CutoverState).flipping, "the active version is being changed")


def can_cut_over(situation: Situation) -> str | None:
    if (reason := has_candidate(situation) or not_flipping(situation)) is not None:
        return reason
    cleared = situation.of(CutoverState).cleared == key_of(situation.candidate)
    return None if cleared else situation.of(CutoverState).blocked or "the guards are not checked yet"


has_request = needs(lambda moment: moment.of(CutoverState).request is not None, "there is no request")


def can_request(situation: Situation) -> str | None:
    request = situation.of(CutoverState).request
    if request is not None and request.state not in ("void", "expired"):
        return f"there is a request already, and it is {request.state}"
    return has_candidate(situation) or not_flipping(situation)


def can_approve(situation: Situation) -> str | None:
    """The database refuses approving one's own request, and approving twice, so neither is offered."""
    request, role = situation.of(CutoverState).request, situation.rights.role
    if request is None:
        return has_request(situation)
    if request.state != "open":
        return f"the request is {request.state}"
    if role == request.requested_by:
        return "you made this request: others approve it"
    return "you have approved it already" if role in (one.approved_by for one in request.approvals) else None


can_refuse = needs(lambda moment: not moment.rights.operate, "an operator withdraws it", has_request)
can_waive_guard = needs(
    lambda moment: moment.of(CutoverState).waivable, "no guard can be waived now", not_flipping
)
has_evidence = needs(lambda moment: moment.of(CutoverState).evidence, "there is no evaluation of these versions")
can_roll_back = needs(lambda moment: moment.rollback, "there is no version to go back to", not_flipping)


ACTIONS: tuple[Action[CutoverPane], ...] = (
    Action("cut-over", ("u",), "cut over", "Make the candidate the active version.",
           lambda pane: pane.control.cut_over(), can_cut_over, dangerous=True, button=True),
    Action("roll-back", ("R",), "roll back", "Make the version that was active before active again.",
           lambda pane: pane.control.roll_back(), can_roll_back, dangerous=True, button=True),
    Action("request-cutover", ("r",), "request", "Request the cutover, with a reason: others approve it.",
           lambda pane: pane.control.ask_for_approval(), can_request, dangerous=True, button=True),
    Action("approve", ("a",), "approve", "Approve another person's request. Asks for the version key.",
           lambda pane: pane.control.approve(), can_approve, dangerous=True, needs="approve", button=True),
    Action("withdraw", ("x",), "withdraw", "Withdraw your request for the cutover.",
           lambda pane: pane.control.withdraw(), has_request, dangerous=True),
    Action("refuse", ("x",), "refuse", "Withdraw another person's request, as an approver.",
           lambda pane: pane.control.withdraw(), can_refuse, dangerous=True, needs="approve"),
    Action("waive-guard", ("w",), "waive", "Waive one guard for this cutover, by name, with a reason that is logged.",
           lambda pane: pane.control.waive(), can_waive_guard, dangerous=True),
    Action("check-guards", ("g",), "check again", "Check all guards again.",
           lambda pane: pane.checks.check_again(), has_candidate, button=True),
    Action("cutover-part", ("m",), "next part", "Switch between the parts of this tab on a small screen.",
           lambda pane: pane.next_part(), is_tight,
           offline=True),
    Action("dry-run", ("d",), "dry run", "Show the SQL of the flip. Nothing is changed.",
           lambda pane: pane.control.plan(), has_candidate),
    Action("to-evaluation", ("e",), "evaluation", "The evaluation of the two versions, on the Evaluate tab.",
           lambda pane: pane.open_evaluation(), has_evidence),
    Action("to-shadow", ("s",), "shadow", "The shadow of users' queries, on the Shadow tab.",
           lambda pane: pane.open_shadow(), has_candidate),
    Action("open-cutover", ("enter",), "open", "What has the focus, in full: a flip of the history, the "
           "evaluation, the guards.", lambda pane: pane.open_row(), offline=True, footer=False),
    Action("next-cutover", NEXT, "candidate", "The next version as candidate.",
           lambda pane: pane.step_candidate(1), has_several),
    Action("previous-cutover", BEFORE, "candidate", "The version before as candidate.",
           lambda pane: pane.step_candidate(-1), has_several, footer=False),
)  # fmt: skip
