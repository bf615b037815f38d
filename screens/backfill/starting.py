"""Starting a backfill from tab 2, in this process: its plan, a plain run or one with options, vectors from a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from rich.text import Text

from revector.core.backfill.job.status import JobDetail
from revector.core.errors import RevectorError
from revector.core.registry import Version
from revector.screens.backfill.runs import RunOptions
from revector.screens.pane import Pane
from revector.screens.services import Services
from revector.screens.widgets.background import in_background
from revector.screens.wording.errors import error_text
from revector.screens.wording.text import printable
from revector.screens.wording.theme import CAUTION, FAINT, GOOD

if TYPE_CHECKING:
    from revector.core.backfill.plan.plan import Plan
    from revector.core.backfill.plan.probe import Offer
    from revector.core.database import Connection
    from revector.screens.backfill.plan_page import Agreed

T = TypeVar("T")


class Starting(Pane):
    """A tab that starts the backfill of the selected version, and keeps what came of the last request."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.detail: JobDetail | None = None
        self.message = Text()

    @property
    def version(self) -> Version | None:
        """The selected version."""
        return self.situation.selected.version if self.situation.selected else None

    @property
    def has_job(self) -> bool:
        """Whether the version has a job whose settings the next run goes by."""
        selected = self.situation.selected
        planned_anew = selected is not None and selected.version.state in ("registered", "retired")
        return self.situation.job(selected) is not None and not planned_anew

    # -- run ----------------------------------------------------------------------------------------------

    def run_backfill(self) -> None:
        """Let the process that stays with the job go on with it, or else work on it in this one."""
        version = self.version
        if version is None:
            return

        def resume(connection: Connection) -> bool:
            from revector.core.backfill.job import job

            return job.find_job(connection, version) is not None and job.request_resume(connection, version)

        def resumed(elsewhere: bool) -> None:
            if elsewhere:
                self.done("The process that keeps running continues this backfill.")
            else:
                self._ask_for_money(version, RunOptions())

        self._ask(resume, resumed)

    def run_with_options(self) -> None:
        """Choose where the workers run, how many, and whether the run stays; then work on it in this process."""
        from revector.screens.backfill.run_dialog import RunDialog

        version = self.version
        if version is None or (self.has_job and self.detail is None):
            return  # the detail comes with the next snapshot

        def chosen(options: RunOptions | None) -> None:
            if options is not None:
                self._ask_for_money(version, options)

        if self.has_job and self.detail is not None:
            settings = self.detail.settings
        else:
            settings = self.services.backfills.prepared(version.version_key)
        self.app.push_screen(RunDialog(version.version_key, settings, has_job=self.has_job), chosen)

    def let_go(self) -> None:
        """Stop working on the backfill in this console. It is not paused for others."""
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

        in_background(self, "let-go", lambda _tell: self.services.backfills.let_go(key), ended, self.refuse)

    def _ask_for_money(self, version: Version, options: RunOptions) -> None:
        from revector.screens.backfill.plan_page import read_cost
        from revector.screens.widgets.confirm import Confirm, Question

        key = version.version_key

        def start(agreed: object) -> None:
            if agreed:
                self.say(Text())
                self.services.backfills.start(version, options)
                self.post_message(self.Changed(database=True))

        def priced(cost: str | None) -> None:
            if cost is None:
                start(True)
                return
            question = Question(
                title="Spend money on a backfill",
                database=self.services.database,
                settings=self.services.settings,
                lines=(("version", key), ("encoder", version.encoder_name), ("cost", cost)),
                key=key,
                verb="Run the backfill",
            )
            self.app.push_screen(Confirm(question), start)

        in_background(self, "request", lambda _tell: read_cost(self.services, version), priced, self.refuse)

    # -- plan, load ---------------------------------------------------------------------------------------

    def plan(self) -> None:
        """What the backfill will take, and what would make it fail, on a page; asks before its probe costs money."""
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
                self.app.push_screen(Page(f"plan of the backfill of {key}", plan_page(plan)))
            elif plan.texts:
                offer = plan
                words = f"{offer_words(offer, version.encoder_name)}.\n\nWithout it the plan has no time estimate."
                self.app.push_screen(
                    Ask(words, "Plan without it", "Send the probe"),
                    lambda yes: self._plan(version, offer if yes else False),
                )
            else:
                self._plan(version, False)  # there is nothing to measure with

        in_background(self, "plan", lambda _tell: read_plan(self.services, version, agreed), found, self.refuse)

    def load_vectors(self) -> None:
        """Load a file of vectors made elsewhere, in a dialog."""
        from revector.screens.backfill.load_dialog import LoadDialog

        def closed(loaded: bool | None) -> None:
            if loaded:
                self.post_message(self.Changed(database=True))

        if self.version is not None:
            self.app.push_screen(LoadDialog(self.services.database, self.version), closed)

    # -- what comes of it ---------------------------------------------------------------------------------

    def _ask(self, request: Callable[[Connection], T], done: Callable[[T], None]) -> None:
        def run(_tell: object) -> T:
            with self.services.connections.writing() as connection:
                return request(connection)

        in_background(self, "request", run, done, self.refuse)

    def done(self, words: str) -> None:
        """The request was granted."""
        self.say(Text(f"✓ {words}", GOOD) if words else Text())
        self.post_message(self.Changed(database=True))

    def refuse(self, error: RevectorError) -> None:
        """The request was refused, or could not be made."""
        self.say(error_text(error))

    def say(self, message: Text) -> None:
        """Show this until the next request."""
        self.message = message
        self.draw()
