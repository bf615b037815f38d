"""Actions of the Cutover screen: request, approve, withdraw, waive, dry run, flip and rollback."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.text import Text

from revector.core import cutover
from revector.screens.cutover.checking import CandidateChecks
from revector.screens.cutover.dialogs import ReasonDialog, WaiveDialog
from revector.screens.cutover.text import request_figures, sql_page
from revector.screens.pane import Pane
from revector.screens.situation import Situation, key_of
from revector.screens.widgets.background import Tell, in_background
from revector.screens.widgets.confirm import Confirm, Confirmation, Question
from revector.screens.widgets.page import LivePage
from revector.screens.wording.errors import error_text
from revector.screens.wording.text import chunks, milliseconds, printable, time_now
from revector.screens.wording.theme import CAUTION, FAINT, GOOD

if TYPE_CHECKING:
    from rich.console import RenderableType

    from revector.core.cutover import Flip, Guard, Request
    from revector.core.database import Connection


class CutoverControl:
    """Asks, then acts in the background; `outcome` is the result.

    `on_flip` is called when a flip has ended, successfully or not.
    """

    def __init__(self, pane: Pane, checks: CandidateChecks, on_flip: Callable[[], None]) -> None:
        self.outcome = Text("")
        self._pane, self._checks, self._on_flip = pane, checks, on_flip
        self._services = pane.services

    @property
    def _situation(self) -> Situation:
        return self._pane.situation

    def say(self, outcome: Text, *, database: bool = False) -> None:
        """Show a message until the next action; `database` says that the database was changed."""
        self.outcome = outcome
        self._pane.changed(database=database)

    # -- the flip -----------------------------------------------------------------------------------------

    def cut_over(self) -> None:
        candidate, checks = self._situation.candidate, self._checks
        if candidate is None:
            return
        before, after = key_of(self._situation.active), candidate.version.version_key
        back = f"{before} is kept; R rolls back to it" if before else "none: this is the first active version"
        lines = [("way back", back), ("guards", checks.board.count)]
        lines += [("waived", f"{one.name}: {one.waived}") for one in checks.board.in_order if one.waived]
        if checks.request is not None and checks.request.approvals:
            lines.append(("approved by", ", ".join(one.approved_by for one in checks.request.approvals)))
        question = self._question("Cut over", before, after, *lines)
        # Where approvals are required, only the waivers of the request count.
        waivers = None if checks.approvals_needed else dict(checks.waivers)

        def flip(answer: Confirmation, tell: Tell) -> Flip:
            with self._services.connections.writing() as connection:
                return cutover.run(
                    connection, after, confirm=answer.typed, reason=answer.reason, waivers=waivers,
                    encoders=checks.encoders, on_guard=lambda guard: tell(lambda: self._passed(guard)),
                )  # fmt: skip

        self._ask(question, before, f"Checking the guards of {after} again …", flip)

    def roll_back(self) -> None:
        target = self._situation.rollback
        if target is None:
            return
        before, after = key_of(self._situation.active), target.version.version_key
        loss = f"{chunks(target.missing)}: not found until the backfill has run" if target.missing else "no chunk"
        question = self._question("Roll back", before, after, ("missing", loss))

        def flip(answer: Confirmation, _tell: Tell) -> Flip:
            with self._services.connections.writing() as connection:
                return cutover.rollback(connection, confirm=answer.typed, reason=answer.reason, only_from=before)

        self._ask(question, before, "Flipping …", flip)

    def _question(self, title: str, before: str | None, after: str, *lines: tuple[str, str]) -> Question:
        change = ("change", f"{before or 'no version'} → {after}")
        effect = ("effect", f"every search uses {after} from then on")
        said = (change, effect, *lines)
        return Question(title, self._services, said, after, f"{title} now", ask_reason=True)

    def _ask(
        self, question: Question, before: str | None, doing: str, flip: Callable[[Confirmation, Tell], Flip]
    ) -> None:
        def still_so(situation: Situation) -> str:
            now = key_of(situation.active)
            if now != before:
                return f"The active version is now {now}. Cancel and check again."
            return ""

        def confirmed(answer: Confirmation) -> None:
            self._checks.flipping = True
            self.say(Text(printable(doing), FAINT))
            began = time.perf_counter()
            in_background(
                self._pane, "flip", lambda tell: flip(answer, tell),
                lambda done: self._flipped(done, time.perf_counter() - began),
                lambda error: self._end(error_text(error)),
            )  # fmt: skip

        self._pane.ask(Confirm(question, still_so), confirmed)

    def _passed(self, guard: Guard) -> None:
        if self._checks.flipping:
            self.say(Text(f"Checking the guards again: {printable(guard.name)} {guard.verdict} …", FAINT))

    def _flipped(self, flip: Flip, whole: float) -> None:
        word = "Rolled back" if flip.action == "rollback" else "Cut over"
        text = f"✓ {word}: {printable(flip.previous or 'no version')} → {printable(flip.version_key)}"
        text += f" in {milliseconds(flip.seconds)}, at {time_now()}"
        outcome = Text(f"{text}.", f"bold {GOOD}")
        guards = "" if flip.action == "rollback" else f"; with all guards {milliseconds(whole)}"
        outcome.append(f" Waited {milliseconds(flip.waited)} for locks{guards}.", FAINT)
        if flip.missing:
            outcome.append(f" {chunks(flip.missing)} missing from searches: run the backfill (2, r).", CAUTION)
        self._checks.forget_waivers(flip.version_key)
        self._end(outcome)

    def _end(self, outcome: Text) -> None:
        self._checks.flipping = False
        self._on_flip()
        self.say(outcome, database=True)

    # -- request and approvals ----------------------------------------------------------------------------

    def ask_for_approval(self) -> None:
        candidate = self._situation.candidate
        if candidate is None:
            return
        key, waivers = candidate.version.version_key, dict(self._checks.waivers)
        lines: list[tuple[str, str | Text]] = [
            ("change", f"{key_of(self._situation.active) or 'no version'} → {key}"),
            ("guards", self._checks.board.count),
            *(("waives", f"{name}: {why}") for name, why in waivers.items()),
        ]
        required = "A request needs a reason for the approvers."
        dialog = ReasonDialog(f"Request a cutover to {key}", lines, "Request it", required=required)

        def make(reason: str, connection: Connection) -> Request:
            return cutover.request(connection, key, reason=reason, waivers=waivers)

        def said(made: Request) -> str:
            wait = f"waits for {made.waits_for}" if made.waits_for else "no approval needed"
            return f"✓ Requested the cutover to {key} (request {made.id}): {wait}."

        self._ask_reason(dialog, f"Requesting the cutover to {key} …", make, said)

    def approve(self) -> None:
        request = self._checks.request
        if request is None:
            return
        key = request.version_key
        change = ("change", f"{key_of(self._situation.active) or 'no version'} → {key}")
        lines = (change, *request_figures(request))
        question = Question("Approve", self._services, lines, key, "Approve it", ask_reason=True)

        def still_so(_situation: Situation) -> str:
            now = self._checks.request
            if now is None or now.id != request.id:
                return "The request has ended. Cancel and check again."
            return f"It no longer applies: {now.void_because}" if now.void_because else ""

        def confirmed(answer: Confirmation) -> None:
            self._change(
                "Approving …",
                lambda connection: cutover.approve(connection, key, comment=answer.reason, request_id=request.id),
                lambda now: f"✓ Approved the cutover to {key}: {now.given} of {now.needed}.",
            )

        self._pane.ask(Confirm(question, still_so), confirmed)

    def withdraw(self) -> None:
        request = self._checks.request
        if request is None:
            return
        key = request.version_key

        def end(reason: str, connection: Connection) -> Request:
            return cutover.withdraw(connection, key, reason=reason)

        dialog = ReasonDialog(f"Withdraw the request for {key}", request_figures(request), "Withdraw it")
        self._ask_reason(dialog, "Withdrawing …", end, lambda _ended: f"✓ Withdrew the request for {key}.")

    def _ask_reason(
        self,
        dialog: ReasonDialog,
        doing: str,
        change: Callable[[str, Connection], Request],
        said: Callable[[Request], str],
    ) -> None:
        self._pane.ask(
            dialog, lambda reason: self._change(doing, lambda connection: change(reason, connection), said)
        )

    def _change(self, doing: str, change: Callable[[Connection], Request], said: Callable[[Request], str]) -> None:
        self.say(Text(printable(doing), FAINT))

        def done(request: Request) -> None:
            facts = self._checks.facts
            if facts is not None and facts.candidate == request.version_key:
                self._checks.show_facts(replace(facts, request=None if request.ended else request))
            self.say(Text(printable(said(request)), GOOD), database=True)

        self._pane.write("request", change, done, lambda error: self.say(error_text(error), database=True))

    # -- waivers and the dry run --------------------------------------------------------------------------

    def waive(self) -> None:
        checks, key = self._checks, key_of(self._situation.candidate)
        if key is None:
            return

        guards = [guard for guard in checks.board.in_order if guard.name in checks.waivable]
        dialog = WaiveDialog(key, guards, checks.waivers, approved=checks.approvals_needed > 0)
        self._pane.ask(dialog, lambda waiver: checks.waive(key, *waiver))

    def plan(self) -> None:
        checks, key = self._checks, key_of(self._situation.candidate)
        if key is None:
            return
        waivers = dict(checks.waivers)

        def work() -> RenderableType:
            with self._services.connections.reading() as connection:
                found = cutover.plan(connection, key, waivers=waivers, encoders=checks.encoders)
            self._pane.app.call_later(checks.show_check, found.check)
            return sql_page(key, found.statements, ready=found.check.ready)

        waiting = Text("Checking the guards …", FAINT)
        self._pane.app.push_screen(LivePage(f"dry run of the cutover to {key}", waiting, work))
