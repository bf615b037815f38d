"""Steering a backfill from tab 2: everything that the command line can ask of a job, off the screen's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from revector.core.backfill.job.settings import JobSettings, shown
from revector.core.errors import RevectorError, UsageError
from revector.screens.backfill.starting import Starting
from revector.screens.services import Services
from revector.screens.situation import AT_WORK
from revector.screens.widgets.background import in_background
from revector.screens.wording.text import chunks, printable

if TYPE_CHECKING:
    from revector.core.database import Connection
    from revector.screens.backfill.settings_dialog import SettingsDialog


class Steering(Starting):
    """A tab that starts and steers the backfill of the selected version."""

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.dialog: SettingsDialog | None = None

    # -- pause, cancel ------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Ask for a pause; the workers follow within a second or two, wherever they run."""
        self._request("pause")

    def cancel(self) -> None:
        """End the backfill, after the version key was typed."""
        from revector.screens.widgets.confirm import Confirm, Question

        version = self.version
        if version is None:
            return
        key = version.version_key
        question = Question(
            title="Stop backfill",
            database=self.services.database,
            settings=self.services.settings,
            lines=(
                ("version", key),
                ("effect", "Its workers stop. The vectors made so far stay; the version is not complete, and "
                 "a new run continues where this one ends."),
            ),
            key=key,
            verb="Stop backfill",
        )  # fmt: skip
        self.app.push_screen(Confirm(question), lambda answer: self._request("cancel") if answer else None)

    def _request(self, what: str) -> None:
        version = self.version
        if version is None:
            return

        def ask(connection: Connection) -> None:
            from revector.core.backfill.job import job

            {"pause": job.request_pause, "cancel": job.request_cancel}[what](connection, version)

        self._ask(ask, lambda _nothing: self.done(""))

    # -- settings -----------------------------------------------------------------------------------------

    def step_workers(self, step: int) -> None:
        """So many more workers for each run."""
        version = self.version
        if version is None:
            return

        def change(connection: Connection) -> tuple[int, int]:
            from revector.core.backfill.job import job

            with connection.transaction():  # two keys, one after the other, are two steps
                before = job.job_settings(connection, job.require_job(connection, version, lock=True)).workers
                if before + step < 1:
                    raise UsageError(
                        "At least one worker is needed.", "To stop them all, pause the backfill: press p."
                    )
                job.change_settings(connection, version, {"workers": before + step})
            return before, before + step

        self._ask(change, lambda found: self.done(f"workers {found[0]} → {found[1]}: within two seconds."))

    def open_settings(self) -> None:
        """All settings in a dialog, to be changed there."""
        from revector.screens.backfill.settings_dialog import SettingsDialog

        version = self.version
        if version is None:
            return
        if self.has_job:
            if self.detail is None:
                return  # it comes with the next snapshot
            settings, effect = (
                self.detail.settings,
                "It takes effect within two seconds on every worker.",
            )
        else:
            settings = self.services.backfills.prepared(version.version_key)
            effect = "It applies when the backfill is run from here (r)."
        self.dialog = SettingsDialog(version.version_key, settings, self._measured, effect, self._set)
        self.app.push_screen(self.dialog, self._settings_closed)

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
            from revector.core.backfill.job.job import change_settings

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
            from revector.core.backfill.job.dead_letters import retry_failures

            return retry_failures(connection, version)

        def queued(moved: int) -> None:
            if job is not None and job.state in AT_WORK:
                self.done(f"{chunks(moved)} queued again.")
            else:
                self.run_backfill()

        self._ask(queue, queued)

    def waive(self, chunk_id: int | None) -> None:
        """Ask for the reason, then accept that a chunk has no vector."""
        from revector.screens.backfill.waive_dialog import ChunkWaiver, WaiveChunk

        version = self.version
        if version is None:
            return

        def answered(waiver: ChunkWaiver | None) -> None:
            if waiver is None:
                return

            def accept(connection: Connection) -> None:
                from revector.core.backfill.job.dead_letters import waive_failure

                waive_failure(connection, version, waiver.chunk_id, waiver.reason)

            self._ask(accept, lambda _nothing: self.done(f"Chunk {waiver.chunk_id} is waived."))

        self.app.push_screen(WaiveChunk(version.version_key, chunk_id), answered)
