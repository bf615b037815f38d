"""What is done on the Cutover screen: request, approve, withdraw, waive, dry run, flip and rollback."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.text import Text

from revector.core.errors import RevectorError
from revector.screens.cutover.checking import Checking
from revector.screens.cutover.text import request_figures, sql_page
from revector.screens.pane import step_through
from revector.screens.services import Services
from revector.screens.situation import Situation, key_of
from revector.screens.widgets.background import Tell, in_background
from revector.screens.wording.errors import error_text
from revector.screens.wording.text import chunks, milliseconds, printable, time_now
from revector.screens.wording.theme import CAUTION, FAINT, GOOD

if TYPE_CHECKING:
    from rich.console import RenderableType

    from revector.core.cutover import Flip, Guard, Request
    from revector.core.database import Connection
    from revector.screens.cutover.dialogs import ReasonDialog, Waiver
    from revector.screens.widgets.confirm import Answer, Question


class Stepping(Checking):
    """Asks, and then changes something in the background; what came of it is `outcome`."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.outcome = Text("")

    # -- the flip -----------------------------------------------------------------------------------------

    def cut_over(self) -> None:
        """Ask, then make the candidate active."""
        candidate = self.situation.candidate
        if candidate is None:
            return
        before, after = key_of(self.situation.active), candidate.version.version_key
        back = f"{before} stays, and R rolls back to it" if before else "none: it is the first active version"
        lines = [("way back", back), ("guards", self.board.count)]
        lines += [("waived", f"{name}: {why}") for name, why in self._waivers_needed().items()]
        if self.request is not None and self.request.approvals:
            lines.append(("approved by", ", ".join(one.approved_by for one in self.request.approvals)))
        question = self._question("Cut over", before, after, *lines)
        # Where approvals are required, the waivers are those of the request, whatever is given here.
        waivers = None if self.approvals_needed else dict(self.waivers)

        def flip(answer: Answer, tell: Tell) -> Flip:
            from revector.core import cutover

            with self.services.connections.writing() as connection:
                return cutover.run(
                    connection, after, confirm=answer.typed, reason=answer.reason, waivers=waivers,
                    encoders=self.encoders, on_guard=lambda guard: tell(lambda: self._passed(guard)),
                )  # fmt: skip

        self._ask(question, before, f"Looking at the guards of {after} once more …", flip)

    def roll_back(self) -> None:
        """Ask, then make the version active that was so before."""
        target = self.situation.rollback
        if target is None:
            return
        before, after = key_of(self.situation.active), target.version.version_key
        loss = f"{chunks(target.missing)}: not found until its backfill has run" if target.missing else "no chunk"
        question = self._question("Roll back", before, after, ("lacks", loss))

        def flip(answer: Answer, _tell: Tell) -> Flip:
            from revector.core import cutover

            with self.services.connections.writing() as connection:
                return cutover.rollback(connection, confirm=answer.typed, reason=answer.reason, key=after)

        self._ask(question, before, "Flipping …", flip)

    def _waivers_needed(self) -> dict[str, str]:
        return {guard.name: guard.waived for guard in self.board.in_order if guard.waived}

    def _question(self, title: str, before: str | None, after: str, *lines: tuple[str, str]) -> Question:
        from revector.screens.widgets.confirm import Question

        change = ("change", f"{before or 'no version'} → {after}")
        effect = ("effect", f"every search is answered by {after} from the next moment on")
        database, settings = self.services.database, self.services.settings
        return Question(
            title, database, settings, (change, effect, *lines), after, f"{title} now", ask_reason=True
        )

    def _ask(
        self, question: Question, before: str | None, doing: str, flip: Callable[[Answer, Tell], Flip]
    ) -> None:
        from revector.screens.widgets.confirm import Confirm

        def still_so(situation: Situation) -> str:
            now = key_of(situation.active)
            if now != before:
                return f"The active version changed meanwhile to {now}: cancel, and look again."
            return ""

        def answered(answer: Answer | None) -> None:
            if answer is None:
                return
            self.flipping = True
            self._say(Text(printable(doing), FAINT))
            began = time.perf_counter()
            in_background(
                self, "flip", lambda tell: flip(answer, tell),
                lambda done: self._flipped(done, time.perf_counter() - began), self._flip_refused,
            )  # fmt: skip

        self.app.push_screen(Confirm(question, still_so), answered)

    def _passed(self, guard: Guard) -> None:
        if self.flipping:
            self._say(Text(f"Looking at the guards once more: {printable(guard.name)} {guard.verdict} …", FAINT))

    def _flipped(self, flip: Flip, whole: float) -> None:
        word = "Rolled back" if flip.action == "rollback" else "Cut over"
        text = f"✓ {word}: {printable(flip.previous or 'no version')} → {printable(flip.version_key)}"
        text += f" in {milliseconds(flip.seconds)}, at {time_now()}"
        outcome = Text(f"{text}.", f"bold {GOOD}")
        outcome.append(
            f" Locks waited for {milliseconds(flip.waited)}; with all guards {milliseconds(whole)}.", FAINT
        )
        if flip.missing:
            outcome.append(f" Searches do not find {chunks(flip.missing)}: run its backfill (2, r).", CAUTION)
        self._waived.pop(flip.version_key, None)
        self._end(outcome)

    def _flip_refused(self, error: RevectorError) -> None:
        self._end(error_text(error))

    def _end(self, outcome: Text) -> None:
        self.flipping = False
        self.step_done()
        self._say(outcome, database=True)

    def step_done(self) -> None:
        """A flip has come to its end: what follows from it may be shown."""

    def _say(self, outcome: Text, *, database: bool = False) -> None:
        self.outcome = outcome
        self.draw()
        self.post_message(self.Changed(database=database))

    # -- request and approvals ----------------------------------------------------------------------------

    def ask_for_approval(self) -> None:
        """Ask for the reason, then request the cutover."""
        from revector.screens.cutover.dialogs import ReasonDialog

        candidate = self.situation.candidate
        if candidate is None:
            return
        key, waivers = candidate.version.version_key, dict(self._waived.get(candidate.version.version_key, {}))
        lines: list[tuple[str, str | Text]] = [
            ("change", f"{key_of(self.situation.active) or 'no version'} → {key}"),
            ("guards", self.board.count),
            *(("waives", f"{name}: {why}") for name, why in waivers.items()),
        ]
        dialog = ReasonDialog(
            f"Request a cutover to {key}",
            lines,
            "Request it",
            required="A request takes a reason: approvers read it.",
        )

        def make(reason: str, connection: Connection) -> Request:
            from revector.core import cutover

            return cutover.request(connection, key, reason=reason, waivers=waivers)

        def said(made: Request) -> str:
            needed = made.needed - len(made.approvals)
            wait = (
                f"{needed} approval{'' if needed == 1 else 's'} by others to come"
                if needed > 0
                else "none has to approve it"
            )
            return f"✓ Requested the cutover to {key} (request {made.id}): {wait}."

        self._ask_reason(dialog, f"Requesting the cutover to {key} …", make, said)

    def approve(self) -> None:
        """Ask, then approve the request that is shown."""
        from revector.screens.widgets.confirm import Confirm, Question

        request = self.request
        if request is None:
            return
        key = request.version_key
        question = Question(
            "Approve", self.services.database, self.services.settings,
            (("change", f"{key_of(self.situation.active) or 'no version'} → {key}"), *request_figures(request)),
            key, "Approve it", ask_reason=True,
        )  # fmt: skip

        def still_so(_situation: Situation) -> str:
            now = self.request
            if now is None or now.id != request.id:
                return "The request is over: cancel, and look again."
            return f"It is void: {now.void_because}" if now.void_because else ""

        def answered(answer: Answer | None) -> None:
            if answer is None:
                return

            def give(connection: Connection) -> Request:
                from revector.core import cutover

                return cutover.approve(connection, key, comment=answer.reason, request_id=request.id)

            self._change(
                "Approving …",
                give,
                lambda now: f"✓ Approved the cutover to {key}: {len(now.approvals)} of {now.needed}.",
            )

        self.app.push_screen(Confirm(question, still_so), answered)

    def withdraw(self) -> None:
        """Ask for a reason, then end the request that is shown."""
        from revector.screens.cutover.dialogs import ReasonDialog

        request = self.request
        if request is None:
            return
        key = request.version_key

        def end(reason: str, connection: Connection) -> Request:
            from revector.core import cutover

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
        def answered(reason: str | None) -> None:
            if reason is not None:
                self._change(doing, lambda connection: change(reason, connection), said)

        self.app.push_screen(dialog, answered)

    def _change(self, doing: str, change: Callable[[Connection], Request], said: Callable[[Request], str]) -> None:
        self._say(Text(printable(doing), FAINT))

        def work(_tell: Tell) -> Request:
            with self.services.connections.writing() as connection:
                return change(connection)

        def done(request: Request) -> None:
            if self.facts is not None and self.facts.candidate == request.version_key:
                self.show_facts(replace(self.facts, request=None if request.ended else request))
            self._say(Text(printable(said(request)), GOOD), database=True)

        in_background(self, "request", work, done, lambda error: self._say(error_text(error), database=True))

    # -- waivers and the dry run --------------------------------------------------------------------------

    def waive(self) -> None:
        """Ask which guard need not pass, and why."""
        from revector.screens.cutover.dialogs import WaiveDialog

        key = key_of(self.situation.candidate)
        if key is None:
            return
        guards = [guard for guard in self.board.in_order if guard.name in self.waivable]
        waived = self._waived.get(key, {})

        def answered(waiver: Waiver | None) -> None:
            if waiver is None:
                return
            others = {name: why for name, why in self._waived.get(key, {}).items() if name != waiver.guard}
            self._waived[key] = {**others, waiver.guard: waiver.reason} if waiver.reason else others
            self.reconsider_waivers()

        dialog = WaiveDialog(key, guards, waived, approved=self.approvals_needed > 0)
        self.app.push_screen(dialog, answered)

    def plan(self) -> None:
        """The SQL of the flip on a page; nothing is changed."""
        from revector.screens.widgets.page import LivePage

        key = key_of(self.situation.candidate)
        if key is None:
            return
        waivers = dict(self.waivers)

        def work() -> RenderableType:
            from revector.core import cutover

            with self.services.connections.reading() as connection:
                found = cutover.plan(connection, key, waivers=waivers, encoders=self.encoders)
            self.app.call_later(self.show_check, found.check)
            return sql_page(key, found.statements, ready=found.check.ready)

        self.app.push_screen(
            LivePage(f"dry run of the cutover to {key}", Text("Looking at the guards …", FAINT), work)
        )

    # -- the candidate ------------------------------------------------------------------------------------

    def step_candidate(self, step: int) -> None:
        """Another version as candidate: the next one, or the one before."""
        keys = [s.version.version_key for s in self.situation.versions if not s.version.active]
        key = step_through(keys, key_of(self.situation.candidate), step)
        if key is not None:
            self.outcome = Text("")
            self.post_message(self.Select(key))
