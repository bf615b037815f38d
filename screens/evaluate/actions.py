"""Actions of the Evaluate tab, and when they are offered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from revector.screens.actions import BEFORE, NEXT, Action, has_candidate, has_several, needs
from revector.screens.situation import Situation

if TYPE_CHECKING:
    from revector.screens.evaluate.pane import EvaluatePane


@dataclass(frozen=True)
class EvaluateState:
    """What the tab knows in addition to the snapshot."""

    evaluated: bool = False
    """Whether it shows an evaluation."""
    evaluating: bool = False
    """Whether an evaluation runs here."""
    listing_runs: bool = False
    """Whether it lists stored runs in place of evaluations."""


can_evaluate = needs(
    lambda moment: not moment.of(EvaluateState).evaluating, "an evaluation is running", has_several
)
is_evaluating = needs(lambda moment: moment.of(EvaluateState).evaluating, "no evaluation is running here")
evaluated = needs(lambda moment: moment.of(EvaluateState).evaluated, "no evaluation is shown")


def can_compare_runs(situation: Situation) -> str | None:
    if not situation.of(EvaluateState).listing_runs:
        return "the runs are not shown: l lists them"
    return "an evaluation is running" if situation.of(EvaluateState).evaluating else None


can_show_parts = needs(lambda moment: moment.state.tight, "all parts are on the screen", evaluated)


ACTIONS: tuple[Action[EvaluatePane], ...] = (
    Action("open-evaluated", ("enter",), "open", "What is under the cursor: an evaluation, the worst queries of a "
           "segment, a query on the Compare tab.", lambda pane: pane.open_row()),
    Action("evaluate", ("r",), "evaluate", "Evaluate two versions: choose query set, search, judges, measures, "
           "gates.", lambda pane: pane.control.evaluate(), can_evaluate, dangerous=True, button=True),
    Action("cancel-evaluation", ("x",), "cancel", "Cancel the evaluation running here. Finished searches are kept.",
           lambda pane: pane.control.cancel(), is_evaluating, dangerous=True, button=True),
    Action("evaluation-part", ("m",), "next part", "Switch between the parts of this tab on a small screen.",
           lambda pane: pane.next_part(), can_show_parts, offline=True),
    Action("next-measure", ("n",), "measure", "The next measure.", lambda pane: pane.step_measure(1), evaluated,
           offline=True),
    Action("previous-measure", ("N",), "measure", "The measure before.", lambda pane: pane.step_measure(-1),
           evaluated, offline=True, footer=False),
    Action("runs", ("l",), "runs", "Switch between evaluations and stored runs.",
           lambda pane: pane.toggle_runs(), offline=True, button=True),
    Action("compare-runs", ("c",), "compare runs", "Mark the run under the cursor; on another one, compare it "
           "with the marked one.", lambda pane: pane.compare_runs(), can_compare_runs, dangerous=True,
           button=True),
    Action("evaluation-details", ("d",), "details", "All of the evaluation: warnings, runs, gates, every measure, "
           "rank overlap.", lambda pane: pane.control.open_details(), evaluated, offline=True, button=True),
    Action("thresholds", ("t",), "thresholds", "The score threshold of the candidate that keeps as many results.",
           lambda pane: pane.control.open_thresholds(), evaluated, button=True),
    Action("export-evaluation", ("e",), "export", "Write a report to a file in the working directory: Markdown, "
           "HTML, JUnit XML or JSON.", lambda pane: pane.control.export(), evaluated, offline=True, button=True),
    Action("only-candidate", ("f",), "only this candidate", "List the evaluations of the selected candidate only, "
           "or all again.", lambda pane: pane.control.toggle_only(), has_candidate, footer=False),
    Action("next-evaluated", NEXT, "candidate", "The next version as candidate.",
           lambda pane: pane.step_candidate(1), has_several, footer=False),
    Action("previous-evaluated", BEFORE, "candidate", "The version before as candidate.",
           lambda pane: pane.step_candidate(-1), has_several, footer=False),
)  # fmt: skip
