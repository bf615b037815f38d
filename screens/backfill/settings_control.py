"""Changes settings of the selected version's backfill: one worker more or less, or any in the dialog."""

from __future__ import annotations

from typing import TYPE_CHECKING

from revector.core.backfill.job.job import change_settings, job_settings, require_job
from revector.core.backfill.job.settings import JobSettings, shown
from revector.core.errors import RevectorError, UsageError
from revector.screens.backfill.control import BackfillControl
from revector.screens.backfill.reader import SelectedJob
from revector.screens.pane import Pane
from revector.screens.wording.text import printable

if TYPE_CHECKING:
    from revector.core.database import Connection
    from revector.core.registry import Version
    from revector.screens.backfill.settings_dialog import SettingsDialog


class SettingsControl:
    """Changes the job's settings, or, before there is a job, those of a new run here."""

    def __init__(self, pane: Pane, control: BackfillControl, job: SelectedJob) -> None:
        self._pane, self._control, self._job = pane, control, job
        self._dialog: SettingsDialog | None = None
        """The open dialog."""

    def step_workers(self, step: int) -> None:

        def change(connection: Connection, version: Version) -> int:
            with connection.transaction():  # two keys, one after the other, are two steps
                before = job_settings(connection, require_job(connection, version, lock=True)).workers
                if before + step < 1:
                    raise UsageError(
                        "At least one worker is needed.", "To stop them all, pause the backfill: press p."
                    )
                change_settings(connection, version, {"workers": before + step})
            return before

        def changed(before: int) -> None:
            self._control.done(f"workers {before} → {before + step}: within two seconds.")

        self._control.ask(self._control.version, change, changed)

    def open(self) -> None:
        from revector.screens.backfill.settings_dialog import SettingsDialog

        version, settings = self._control.version, self._control.settings
        if version is None or settings is None:
            return  # they arrive with the next snapshot
        effect = "It takes effect within two seconds on every worker."
        if not self._control.has_job:
            effect = "It applies when the backfill is run from here (r)."
        self._dialog = SettingsDialog(version.version_key, settings, self._measured, effect, self._set)
        self._pane.app.push_screen(self._dialog, self._closed)

    @property
    def _measured(self) -> dict[str, object]:
        return self._job.detail.measured if self._job.detail is not None and self._control.has_job else {}

    def follow(self) -> None:
        """Update the open dialog with changes by others and new measurements."""
        if self._dialog is not None and self._job.detail is not None and self._control.has_job:
            self._dialog.follow(self._job.detail.settings, self._measured)

    def _closed(self, _nothing: None) -> None:
        self._dialog = None

    def _set(self, name: str, value: str) -> None:
        version, changes = self._control.version, {name: value}
        if version is None:
            return
        if self._control.has_job:
            self._pane.write(
                "set",
                lambda connection: change_settings(connection, version, changes),
                lambda settings: self._now_set(name, settings),
                self._not_set,
            )
            return
        try:
            self._now_set(name, self._pane.services.backfills.prepare(version.version_key, changes))
        except RevectorError as error:
            self._not_set(error)

    def _now_set(self, name: str, settings: JobSettings) -> None:
        if self._dialog is not None:
            self._dialog.applied(name, settings)
        self._control.done(f"{name} is {printable(shown(settings, name))} now.")

    def _not_set(self, error: RevectorError) -> None:
        if self._dialog is not None:
            self._dialog.refused(error)
        else:
            self._control.refuse(error)
