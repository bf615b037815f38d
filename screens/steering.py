"""Steering a backfill from tab 2: everything that the command line can ask of a job, off the screen's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from rich.text import Text

from core.backfill.settings import JobSettings, shown
from core.backfill.status import JobDetail
from core.errors import RevectorError, UsageError
from core.registry import Version
from screens.background import in_background
from screens.pane import Pane, Services
from screens.situation import AT_WORK
from screens.text import chunks, printable
from screens.theme import BAD, GOOD

if TYPE_CHECKING:
    from core.backfill.plan import Plan
    from core.database import Connection
    from screens.jobsettings import SettingsDialog

T = TypeVar("T")


class Steering(Pane):
    """A tab that steers the backfill of the selected version, and keeps what came of the last request."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.detail: JobDetail | None = None
        self.message = Text()
        self.dialog: SettingsDialog | None = None

    @property
    def version(self) -> Version | None:
        """The selected version."""
        return self.situation.selected.version if self.situation.selected else None

    # -- run, pause, cancel -------------------------------------------------------------------------------

    def run_backfill(self) -> None:
        """Let the process that stays with the job go on with it, or else work on it in this one."""
        version = self.version
        if version is None:
            return

        def resume(connection: Connection) -> bool:
            from core.backfill import job

            return job.find_job(connection, version) is not None and job.request_resume(connection, version)

        def resumed(elsewhere: bool) -> None:
            if elsewhere:
                self.done("The process that stays with this backfill goes on with it.")
            else:
                self._ask_for_money(version)

        self._ask(resume, resumed)

    def _ask_for_money(self, version: Version) -> None:
        from screens.confirm import Confirm, Question
        from screens.planning import read_cost

        key = version.version_key

        def start(agreed: object) -> None:
            if agreed:
                self.say(Text())
                self.services.backfills.start(version)
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

    def plan(self) -> None:
        """What the backfill will take, and what would make it fail, on a page."""
        from screens.planning import plan_page, read_plan
        from screens.reading import Page

        version = self.version
        if version is None:
            return
        key = version.version_key
        self.say(Text(f"planning the backfill of {printable(key)} …"))

        def shown(plan: Plan) -> None:
            self.say(Text())
            self.app.push_screen(Page(f"plan of the backfill of {key}", plan_page(plan)))

        in_background(self, "plan", lambda _tell: read_plan(self.services, version), shown, self.refuse)

    def pause(self) -> None:
        """Ask for a pause; the workers follow within a second or two, wherever they run."""
        self._request("pause")

    def cancel(self) -> None:
        """End the backfill, after the version key was typed."""
        from screens.confirm import Confirm, Question

        version = self.version
        if version is None:
            return
        key = version.version_key
        question = Question(
            title="Cancel the backfill",
            database=self.services.database,
            settings=self.services.settings,
            lines=(
                ("version", key),
                ("effect", "Its workers stop. The vectors made so far stay; the version is not complete, and "
                 "a new run goes on where this one ends."),
            ),
            key=key,
            verb="Cancel the backfill",
        )  # fmt: skip
        self.app.push_screen(Confirm(question), lambda answer: self._request("cancel") if answer else None)

    def _request(self, what: str) -> None:
        version = self.version
        if version is None:
            return

        def ask(connection: Connection) -> None:
            from core.backfill import job

            {"pause": job.request_pause, "cancel": job.request_cancel}[what](connection, version)

        self._ask(ask, lambda _nothing: self.done(""))

    # -- settings -----------------------------------------------------------------------------------------

    def more_workers(self) -> None:
        """One more worker for each run."""
        self._step_workers(1)

    def fewer_workers(self) -> None:
        """One worker less for each run."""
        self._step_workers(-1)

    def _step_workers(self, step: int) -> None:
        version = self.version
        if version is None:
            return

        def change(connection: Connection) -> tuple[int, int]:
            from core.backfill import job

            with connection.transaction():  # two keys, one after the other, are two steps
                before = job.job_settings(connection, job.require_job(connection, version, lock=True)).workers
                if before + step < 1:
                    raise UsageError("One worker is the least.", "To stop them all, pause the backfill: p")
                job.change_settings(connection, version, {"workers": before + step})
            return before, before + step

        self._ask(change, lambda found: self.done(f"workers {found[0]} → {found[1]}: within two seconds."))

    def open_settings(self) -> None:
        """All settings in a dialog, to be changed there."""
        from screens.jobsettings import SettingsDialog

        version = self.version
        if version is None:
            return
        if self.has_job:
            if self.detail is None:
                return  # it comes with the next snapshot
            settings, effect = (
                self.detail.settings,
                "It takes effect within two seconds, wherever its workers run.",
            )
        else:
            settings = self.services.backfills.prepared(version.version_key)
            effect = "The backfill begins with it when it is run from here: r."
        self.dialog = SettingsDialog(version.version_key, settings, self._measured, effect, self._set)
        self.app.push_screen(self.dialog, self._settings_closed)

    @property
    def has_job(self) -> bool:
        """Whether the version has a job whose settings the next run goes by."""
        selected = self.situation.selected
        planned_anew = selected is not None and selected.version.state in ("registered", "retired")
        return self.situation.job(selected) is not None and not planned_anew

    @property
    def _measured(self) -> dict[str, object]:
        return self.detail.measured if self.detail is not None and self.has_job else {}

    def show_settings(self) -> None:
        """Let the open dialog follow what others change, and what is measured now."""
        if self.dialog is not None and self.detail is not None and self.has_job:
            self.dialog.follow(self.detail.settings, self._measured)

    def _settings_closed(self, _nothing: None) -> None:
        self.dialog = None

    def _set(self, name: str, value: str) -> None:
        version = self.version
        if version is None:
            return
        if not self.has_job:
            try:
                self._now_set(name, self.services.backfills.prepare(version.version_key, {name: value}))
            except RevectorError as error:
                self._not_set(error)
            return

        def change(_tell: object) -> JobSettings:
            from core.backfill.job import change_settings

            with self.services.connections.writing() as connection:
                return change_settings(connection, version, {name: value})

        in_background(self, "set", change, lambda settings: self._now_set(name, settings), self._not_set)

    def _now_set(self, name: str, settings: JobSettings) -> None:
        if self.dialog is not None:
            self.dialog.applied(name, settings)
        self.done(f"{name} is {printable(shown(settings, name))} now.")

    def _not_set(self, error: RevectorError) -> None:
        if self.dialog is not None:
            self.dialog.refused(error)
        else:
            self.refuse(error)

    # -- dead letters -------------------------------------------------------------------------------------

    def retry_failures(self) -> None:
        """Queue the dead letters once more; whoever works on the job takes them, and else a run here."""
        version = self.version
        job = self.situation.job(self.situation.selected)
        if version is None:
            return

        def queue(connection: Connection) -> int:
            from core.backfill.failures import retry_failures

            return retry_failures(connection, version)

        def queued(moved: int) -> None:
            if job is not None and job.state in AT_WORK:
                self.done(f"{chunks(moved)} queued once more.")
            else:
                self.run_backfill()

        self._ask(queue, queued)

    def waive(self, chunk_id: int | None) -> None:
        """Ask for the reason, then accept that a chunk has no vector."""
        from screens.waive import Waive, Waiver

        version = self.version
        if version is None:
            return

        def answered(waiver: Waiver | None) -> None:
            if waiver is None:
                return

            def accept(connection: Connection) -> None:
                from core.backfill.failures import waive_failure

                waive_failure(connection, version, waiver.chunk_id, waiver.reason)

            self._ask(accept, lambda _nothing: self.done(f"Chunk {waiver.chunk_id} is waived."))

        self.app.push_screen(Waive(version.version_key, chunk_id), answered)

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


def error_text(error: RevectorError) -> Text:
    """What is wrong, and what to do."""
    return Text(f"✗ {printable(error.problem, lines=True)}\n{printable(error.remedy, lines=True)}".strip(), BAD)
