"""Actions of the Backfill tab, and when they are offered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from revector.screens.actions import BEFORE, NEXT, Action, has_several, has_versions, is_tight, needs
from revector.screens.situation import AT_WORK, Situation, key_of

if TYPE_CHECKING:
    from revector.screens.backfill.pane import BackfillPane


@dataclass(frozen=True)
class BackfillState:
    """What the tab knows in addition to the snapshot."""

    rows: bool = False
    """Whether it has a row to open."""


def state_of_job(situation: Situation) -> str:
    job = situation.job(situation.selected)
    return job.state if job is not None else ""


def can_run(situation: Situation) -> str | None:
    selected = situation.selected
    if selected is not None and key_of(selected) in situation.state.staying:
        # A run that stays is in this process, waiting to be resumed.
        return None if state_of_job(situation) in ("paused", "failed") else "the backfill runs here already"
    return can_begin(situation)


def can_begin(situation: Situation) -> str | None:
    selected = situation.selected
    if selected is None or not selected.version.encoder_spec:
        return has_encoder(situation)
    if key_of(selected) in situation.state.working:
        return "the backfill runs here already"
    state = state_of_job(situation)
    return f"the backfill is {state}" if state in ("pausing", "proving") else None


runs_here = needs(
    lambda moment: key_of(moment.selected) in moment.state.working, "no backfill of this version runs here"
)
can_pause = needs(
    lambda moment: state_of_job(moment) in ("running", "proving", "interrupted"), "no backfill is running"
)
can_cancel = needs(
    lambda moment: state_of_job(moment) in (*AT_WORK, "paused", "interrupted", "failed"),
    "there is no backfill to cancel",
)
has_encoder = needs(
    lambda moment: moment.selected is None or moment.selected.version.encoder_spec,
    "this version has no encoder that can be opened",
    has_versions,
)
has_failures = needs(lambda moment: moment.selected and moment.selected.failed, "no chunk has failed")
can_retry = needs(lambda moment: has_failures(moment) is None, "no chunk has failed", has_encoder)
has_job = needs(lambda moment: moment.job(moment.selected) is not None, "this version has no backfill yet")
has_rows = needs(lambda moment: moment.of(BackfillState).rows, "there is no row to open")

ACTIONS: tuple[Action[BackfillPane], ...] = (
    Action("run", ("r",), "run", "Run or resume the backfill here, then build the index.",
           lambda pane: pane.control.run(), can_run, dangerous=True, button=True),
    Action("run-with", ("o",), "options", "Run it with options: workers, keep running, Ray, no index.",
           lambda pane: pane.control.run_with_options(), can_begin, dangerous=True),
    Action("stop-run", ("k",), "stop working here", "Stop working on the backfill in this console, without pausing it.",
           lambda pane: pane.control.stop_run(), runs_here, dangerous=True),
    Action("pause", ("p",), "pause", "Pause the backfill, wherever it runs.", lambda pane: pane.control.pause(),
           can_pause, dangerous=True, button=True),
    Action("cancel", ("x",), "cancel", "Stop the backfill for good. Vectors made so far stay.",
           lambda pane: pane.control.cancel(), can_cancel, dangerous=True, button=True),
    Action("set", ("s",), "settings", "The settings of the backfill: batch size, workers, rate, limits, spend "
           "cap.", lambda pane: pane.settings.open(), has_encoder, dangerous=True, button=True),
    Action("plan", ("P",), "plan", "What the backfill will take: chunks, tokens, cost, time, disk; and what would "
           "make it fail.", lambda pane: pane.control.plan(), has_encoder),
    Action("more-workers", ("plus", "equals_sign"), "worker", "One more worker in each run of the backfill.",
           lambda pane: pane.settings.step_workers(1), has_job, dangerous=True),
    Action("fewer-workers", ("minus",), "worker", "One worker fewer in each run of the backfill.",
           lambda pane: pane.settings.step_workers(-1), has_job, dangerous=True),
    Action("part", ("m",), "next part", "Switch between map, rate, workers and failed chunks on a small screen.",
           lambda pane: pane.next_part(), is_tight),
    Action("open-row", ("enter",), "open", "The failed chunk or the worker under the cursor, in full.",
           lambda pane: pane.open_row(), has_rows, offline=True),
    Action("failures", ("f",), "failures", "The chunks that could not be embedded, and why.",
           lambda pane: pane.open_failures(), has_failures, button=True),
    Action("retry-failures", ("t",), "retry", "Retry the failed chunks, and run the backfill if it is not running.",
           lambda pane: pane.control.retry_failures(), can_retry, dangerous=True, button=True),
    Action("waive", ("w",), "waive", "Accept that a failed chunk stays missing. Asks for a reason.",
           lambda pane: pane.waive_failure(), has_failures, dangerous=True, button=True),
    Action("load", ("L",), "load", "Load vectors made elsewhere from a file: .npy with its ids, or Parquet.",
           lambda pane: pane.control.load_vectors(), has_versions, dangerous=True),
    Action("job-log", ("l",), "log", "History of the backfill: changes of state, proofs, settings.",
           lambda pane: pane.open_log(), has_job),
    Action("next-backfill", NEXT, "next version", "The backfill of the next version.",
           lambda pane: pane.step_candidate(1), has_several),
    Action("previous-backfill", BEFORE, "version before", "The backfill of the version before.",
           lambda pane: pane.step_candidate(-1), has_several, footer=False),
)  # fmt: skip
