"""The dialog for a run with options: where its workers run, how many, and whether it stays."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult

from revector.core.backfill.job.settings import JobSettings, changed
from revector.core.errors import RevectorError, UsageError
from revector.screens.backfill.runs import RunOptions
from revector.screens.widgets.form import Form, wrong
from revector.screens.wording.text import printable


class RunDialog(Form[RunOptions | None]):
    """Returns the options, or None. Errors are shown while typing."""

    def __init__(self, key: str, settings: JobSettings, *, has_job: bool) -> None:
        super().__init__()
        self._key, self._settings, self._has_job = key, settings, has_job
        self._no_ray = _why_no_ray()

    def compose(self) -> ComposeResult:
        """The fields; those for Ray only if it is installed."""
        effect = "Starts a backfill. Press s for its other settings."
        if self._has_job:
            effect = "Resumes the backfill. The number of workers is a setting, for each run."
        with self.frame(f"Run the backfill of {printable(self._key)}"):
            yield self.about(effect)
            yield self.field("workers", "workers", str(self._settings.workers))
            yield self.choice("index", "afterwards", "build the index", on=True)
            yield self.choice("stay", "stay", "keep running: wait through pauses, embed new chunks")
            words = self._no_ray or "actors on Ray instead of processes here"
            yield self.choice("ray", "engine", words, disabled=bool(self._no_ray))
            if not self._no_ray:
                hint = "empty starts one; or auto, host:port, ray://…"
                yield self.field("address", "  Ray's address", hint=hint)
                yield self.field("cpus", "  CPUs a worker", "1")
                yield self.field("gpus", "  GPUs a worker", "0")
            yield from self.end_of_form("Run")

    def objection(self) -> Text:
        try:
            self._options()
        except RevectorError as error:
            return wrong(error.problem, error.remedy)
        return Text()

    def go(self) -> None:
        self.dismiss(self._options())

    def _options(self) -> RunOptions:
        """The options as entered. Raises UsageError for invalid ones."""
        workers = self.text("workers")
        if not (workers.isascii() and workers.isdigit()):
            raise UsageError(f"{workers!r} is not a number of workers.", "Expected a number of 1 or more.")
        changes = {"workers": workers}
        if changed(self._settings, changes).workers == self._settings.workers:
            changes = {}
        stay, index = self.chosen("stay"), self.chosen("index")
        if self._no_ray or not self.chosen("ray"):
            if not self._no_ray and self.text("address"):
                raise UsageError("The address is for Ray.", "Choose Ray as the engine, or empty the box.")
            return RunOptions(stay=stay, index=index, changes=changes)
        from revector.core.backfill.engines.ray.engine import RaySettings

        if stay:
            raise UsageError("A run on Ray cannot keep running.", "Choose one of the two.")
        ray = RaySettings(
            address=self.text("address") or None,
            cpus_per_worker=_amount(self.text("cpus"), "CPUs"),
            gpus_per_worker=_amount(self.text("gpus"), "GPUs"),
        )
        return RunOptions(index=index, ray=ray, changes=changes)


def _amount(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a number of {what}.", "Expected a number, such as 1 or 0.25.") from None


def _why_no_ray() -> str:
    """Why Ray cannot be chosen; empty when it is installed. Does not import it."""
    from revector.core.backfill.engines.ray.engine import require_ray

    try:
        require_ray()
    except RevectorError as error:
        return f"Ray is missing: {error.remedy}"
    return ""
