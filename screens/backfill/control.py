"""Actions on a backfill: plan, run, stop working, pause, cancel, load, and its dead letters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from rich.text import Text

from revector.core.backfill.job.dead_letters import retry_failures, waive_failure
from revector.core.backfill.job.job import find_job, request_cancel, request_pause, request_resume
from revector.core.errors import RevectorError
from revector.core.registry import Version
from revector.screens.backfill.reader import SelectedJob
from revector.screens.backfill.runs import RunOptions
from revector.screens.pane import Pane
from revector.screens.situation import AT_WORK, Situation
from revector.screens.widgets.background import in_background
from revector.screens.wording.errors import error_text
from revector.screens.wording.text import chunks, printable
from revector.screens.wording.theme import CAUTION, FAINT, GOOD

if TYPE_CHECKING:
    from revector.core.backfill.job.settings import JobSettings
    from revector.core.backfill.plan.plan import Plan
    from revector.core.backfill.plan.probe import Offer
    from revector.core.database import Connection
    from revector.screens.backfill.plan_page import Agreed

T = TypeVar("T")


class BackfillControl:
    """Asks, then acts on the selected version's backfill; `message` is the outcome."""

    def __init__(self, pane: Pane, job: SelectedJob) -> None:
        self.message = Text()
        self._pane, self._services, self._job = pane, pane.services, job

    @property
    def _situation(self) -> Situation:
        return self._pane.situation

    @property
    def version(self) -> Version | None:
        return self._situation.selected.version if self._situation.selected else None

    @property
    def has_job(self) -> bool:
        """Whether the version has a job whose settings the next run uses."""
        selected = self._situation.selected
        planned_anew = selected is not None and selected.version.state in ("registered", "retired")
        return self._situation.job(selected) is not None and not planned_anew

    @property
    def settings(self) -> JobSettings | None:
        """The settings of the job, or else those of a new run; None before they are read."""
        if self.has_job:
            return self._job.detail.settings if self._job.detail is not None else None
        return self._services.backfills.prepared(self.version.version_key) if self.version else None

    # -- run ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Resume the job in the process that stays with it, or else run it in this process."""
        version = self.version
        if version is None:
            return

        def resume(connection: Connection, version: Version) -> bool:
            return find_job(connection, version) is not None and request_resume(connection, version)

        def resumed(elsewhere: bool) -> None:
            if elsewhere:
                self.done("The process that keeps running continues this backfill.")
            else:
                self._ask_for_money(version, RunOptions())

        self.ask(version, resume, resumed)

    def run_with_options(self) -> None:
        from revector.screens.backfill.run_dialog import RunDialog

        version, settings = self.version, self.settings
        if version is None or settings is None:
            return  # they arrive with the next snapshot
        dialog = RunDialog(version.version_key, settings, has_job=self.has_job)
        self._pane.ask(dialog, lambda options: self._ask_for_money(version, options))

    def stop_run(self) -> None:
        version = self.version
        if version is None:
            return
        key = version.version_key
        self.say(Text("Finishing the current batch first …", FAINT))

        def ended(in_time: bool) -> None:
            if in_time:
                self.done("This console has stopped working on it.")
            else:
                self.say(Text("! Stopping takes longer than expected.", CAUTION))

        in_background(
            self._pane, "stop-run", lambda _tell: self._services.backfills.stop_run(key), ended, self.refuse
        )

    def _ask_for_money(self, version: Version, options: RunOptions) -> None:
        from revector.core.backfill.plan.plan import cost_to_begin
        from revector.screens.widgets.confirm import Confirm, Question

        key = version.version_key

        def start(_agreed: object) -> None:
            self._services.backfills.start(version, options)
            self.done("")

        def priced(cost: str | None) -> None:
            if cost is None:
                start(None)
                return
            lines = (("version", key), ("encoder", version.encoder_name), ("cost", cost))
            question = Question("Spend money on a backfill", self._services, lines, key, "Run the backfill")
            self._pane.ask(Confirm(question), start)

        self._pane.read("request", lambda connection: cost_to_begin(connection, version), priced, self.refuse)

    # -- plan, load ---------------------------------------------------------------------------------------

    def plan(self) -> None:
        """Show what the backfill will take, and what would make it fail; asks before its probe costs money."""
        if self.version is not None:
            self._plan(self.version, None)

    def _plan(self, version: Version, agreed: Agreed) -> None:
        from revector.core.backfill.plan.plan import Plan
        from revector.screens.backfill.plan_page import plan_page, read_plan
        from revector.screens.widgets.confirm import Ask
        from revector.screens.widgets.page import Page
        from revector.screens.wording.plan import offer_words

        key = version.version_key
        self.say(Text(f"planning the backfill of {printable(key)} …"))

        def found(plan: Plan | Offer) -> None:
            if isinstance(plan, Plan):
                self.say(Text())
                self._pane.app.push_screen(Page(f"plan of the backfill of {key}", plan_page(plan)))
            elif plan.texts:
                offer = plan
                words = f"{offer_words(offer, version.encoder_name)}.\n\nWithout it the plan has no time estimate."
                self._pane.app.push_screen(
                    Ask(words, "Plan without it", "Send the probe"),
                    lambda yes: self._plan(version, offer if yes else False),
                )
            else:
                self._plan(version, False)  # without an encoder there is nothing to measure

        in_background(
            self._pane, "plan", lambda _tell: read_plan(self._services, version, agreed), found, self.refuse
        )

    def load_vectors(self) -> None:
        from revector.screens.backfill.load_dialog import LoadDialog

        if self.version is not None:
            dialog = LoadDialog(self._services.database, self.version)
            self._pane.ask(dialog, lambda _loaded: self._pane.changed(database=True))

    # -- pause, cancel ------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Ask for a pause; the workers follow within a second or two, wherever they run."""
        self.ask(self.version, request_pause, lambda _nothing: self.done(""))

    def cancel(self) -> None:
        from revector.screens.widgets.confirm import Confirm, Question

        version = self.version
        if version is None:
            return
        key = version.version_key
        effect = (
            "Its workers stop. The vectors made so far stay; the version is not complete, and a new run continues "
            "where this one ends."
        )
        lines = (("version", key), ("effect", effect))
        question = Question("Stop backfill", self._services, lines, key, "Stop backfill")
        self._pane.ask(
            Confirm(question), lambda _yes: self.ask(version, request_cancel, lambda _nothing: self.done(""))
        )

    # -- dead letters -------------------------------------------------------------------------------------

    def retry_failures(self) -> None:
        job = self._situation.job(self._situation.selected)

        def queued(moved: int) -> None:
            if job is not None and job.state in AT_WORK:
                self.done(f"{chunks(moved)} queued again.")
            else:
                self.run()

        self.ask(self.version, retry_failures, queued)

    def waive(self, chunk_id: str | None) -> None:
        from revector.screens.backfill.waive_dialog import WaiveChunk

        version = self.version
        if version is None:
            return

        def waived(waiver: tuple[int, str]) -> None:
            self.ask(
                version,
                lambda connection, version: waive_failure(connection, version, *waiver),
                lambda _nothing: self.done(f"Chunk {waiver[0]} is waived."),
            )

        self._pane.ask(WaiveChunk(version.version_key, int(chunk_id) if chunk_id else None), waived)

    # -- what comes of it ---------------------------------------------------------------------------------

    def ask(
        self, version: Version | None, request: Callable[[Connection, Version], T], done: Callable[[T], None]
    ) -> None:
        """Make a request for a version, off the screen's thread; shows a refusal."""
        if version is not None:
            self._pane.write("request", lambda connection: request(connection, version), done, self.refuse)

    def done(self, words: str) -> None:
        """The request was granted."""
        self.message = Text(f"✓ {words}", GOOD) if words else Text()
        self._pane.changed(database=True)

    def refuse(self, error: RevectorError) -> None:
        """The request was refused, or could not be made."""
        self.say(error_text(error))

    def say(self, message: Text) -> None:
        """Show a message until the next request."""
        self.message = message
        self._pane.draw()
