"""Tab 2: the backfill of the selected version, wherever it runs."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Static

from revector.core.errors import RevectorError
from revector.core.registry import VersionStatus
from revector.screens.backfill import lists
from revector.screens.backfill.actions import BackfillState
from revector.screens.backfill.control import BackfillControl
from revector.screens.backfill.range_map import RangeMap
from revector.screens.backfill.reader import MOST_FAILURES, SelectedJob
from revector.screens.backfill.settings_control import SettingsControl
from revector.screens.pane import Pane, step_through
from revector.screens.services import Services
from revector.screens.situation import Situation, key_of
from revector.screens.tabs import BACKFILL
from revector.screens.widgets.buttons import Buttons
from revector.screens.widgets.chart import Chart, Series
from revector.screens.widgets.page import Page
from revector.screens.widgets.parts import Parts
from revector.screens.widgets.table import Table
from revector.screens.widgets.words import Words, titled
from revector.screens.wording import job as wording
from revector.screens.wording.errors import error_text
from revector.screens.wording.text import printable, shorten

_MOST_MESSAGE = 400


class BackfillPane(Pane):
    """State, progress, throttle, figures, rate, map, workers and dead letters of one backfill."""

    DEFAULT_CSS = """
    BackfillPane #state, BackfillPane #bar { height: 1; padding: 0 1; }
    BackfillPane #held, BackfillPane #message { height: auto; max-height: 3; padding: 0 1; }
    BackfillPane #figures { height: auto; max-height: 10; padding: 0 1; scrollbar-size-vertical: 1; }
    BackfillPane.-tight #figures { max-height: 6; }
    BackfillPane Parts { display: none; }
    BackfillPane.-tight Parts { display: block; }
    BackfillPane Buttons Button { padding: 0; }
    BackfillPane #pictures { height: 1fr; min-height: 5; }
    BackfillPane #pictures > * { width: 1fr; height: 1fr; }
    BackfillPane Table { height: auto; max-height: 9; border: round $border-blurred;
                         border-title-color: $secondary; }
    BackfillPane Table:focus { border: round $border; }
    BackfillPane.-tight Table { height: 1fr; max-height: 100%; min-height: 5; }
    """

    ROW_ACTION = "open-row"
    PARTS: ClassVar[tuple[str, ...]] = ("map", "rate", "workers", "failures")

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.job: SelectedJob = SelectedJob(self, lambda: self.query_one(RangeMap).room, self._job_read)
        self.control: BackfillControl = BackfillControl(self, self.job)
        self.settings: SettingsControl = SettingsControl(self, self.control, self.job)
        self._part: str | None = None

    def compose(self) -> ComposeResult:
        yield Words(id="state")
        yield Words(id="bar")
        yield Words(id="held")
        yield Words(id="message")
        with VerticalScroll(id="figures", can_focus=False):
            yield Words()
        yield Parts("m")
        with Horizontal(id="pictures"):
            yield RangeMap(id="map")
            yield Chart("chunks a second, by seconds of work", nothing="No batch has been stored yet.", id="rate")
        yield Table(lists.WORKERS, id="workers")
        yield Table(lists.FAILURES, id="failures")
        yield Buttons(BACKFILL)

    def on_mount(self) -> None:
        self._arrange()

    def on_unmount(self) -> None:
        self.job.close()

    def on_resize(self) -> None:
        self.draw()

    def focus_main(self) -> None:
        """Focus the main list: dead letters before workers."""
        table = self._table
        if table is not None and table.display:
            table.focus()
        else:
            self.screen.set_focus(None)

    def entered(self) -> None:
        """Clear the message of an earlier visit."""
        self.control.message = Text()
        self.job.look_again()

    # -- drawing ------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Draw the selected version's backfill, and read more about it when the snapshot is a new one."""
        if not self.app.is_running or not self.query(RangeMap):
            return  # a background read may arrive while the console ends
        selected, overview = self.situation.selected, self.situation.overview
        if selected is None or overview is None:
            self.query_one("#state", Static).update(Text("No version yet. See 1 Versions."))
            return
        self.job.look()
        self._arrange()
        job, width = self.situation.job(selected), self.app.size.width - 2
        self.query_one("#state", Static).update(wording.state_line(self.situation, selected, self.job.detail))
        self.query_one("#bar", Static).update(wording.progress_bar(self.situation, selected, width))
        self.show_line("#held", wording.held(job, overview.taken_at, width))
        self.show_line("#message", self._what_was_said(selected))
        figures = wording.figures(self.situation, selected, self.job.detail, brief=self.tight)
        self.query_one("#figures Static", Static).update(figures)
        rates = overview.rates.get(selected.version.version_key, ())
        self.query_one("#rate", Chart).plot([Series(tuple(rates))] if rates else [])
        self._draw_detail(selected)

    def _what_was_said(self, selected: VersionStatus) -> Text:
        """The outcome of the last request; else why the run here or the job ended; else the run's note."""
        key = selected.version.version_key
        job = self.situation.job(selected)
        if self.control.message:
            return self.control.message
        if self.job.error is not None:
            return error_text(self.job.error)
        error = self.services.backfills.error(key)
        if error is None and job is not None and job.error and not job.failed:
            error = RevectorError(job.error)
        if error is not None:
            text = error_text(error)
            if len(text) > _MOST_MESSAGE:
                text = Text(shorten(text.plain, _MOST_MESSAGE) + " (l: full text)", text.style)
            return text
        note = self.services.backfills.note(key)
        return Text(f"! {shorten(printable(note), _MOST_MESSAGE)}") if note else Text()

    def _draw_detail(self, selected: VersionStatus) -> None:
        detail, dead_letters = self.job.detail, self.job.failures
        now = self.situation.overview.taken_at if self.situation.overview else None
        workers, failures = self.query_one("#workers", Table), self.query_one("#failures", Table)
        self.query_one(RangeMap).plot(detail.cells if detail else ())
        rows = [lists.worker_row(worker, now) for worker in detail.workers] if detail and now else []
        workers.show(rows)
        alive = sum(worker.alive for worker in detail.workers) if detail else 0
        titled(workers, f" workers: {alive} alive, {len(rows) - alive} ended in the last 10 min ")
        failures.show([lists.failure_row(failure) for failure in dead_letters])
        all_of_them = max(selected.failed, len(dead_letters))
        newest = f" newest {MOST_FAILURES} of {all_of_them:,}" if all_of_them > MOST_FAILURES else ""
        titled(failures, f"{newest} chunks that could not be embedded ")
        items = {
            "map": "map",
            "rate": "rate",
            "workers": f"workers {alive}",
            "failures": f"failures {selected.failed:,}",
        }
        self.query_one(Parts).show([(name, items[name]) for name in self._parts()], self.part)

    # -- what has room ------------------------------------------------------------------------------------

    def state(self, situation: Situation) -> BackfillState:
        return BackfillState(rows=self.is_mounted and self._table is not None)

    @property
    def part(self) -> str:
        """The visible part when there is room for one: the chosen one, or dead letters if there are any."""
        if self._part in self._parts():
            return str(self._part)
        return "failures" if self.job.failures else "map"

    def _parts(self) -> list[str]:
        return [name for name in self.PARTS if name != "failures" or self.job.failures]

    def _arrange(self) -> None:
        tight = self.tight
        self.set_class(tight, "-tight")
        front = {self.part} if tight else set(self._parts())
        for name in self.PARTS:
            self.query_one(f"#{name}").display = name in front
        self.query_one("#pictures").display = bool(front & {"map", "rate"})

    def next_part(self) -> None:
        self._show_part(step_through(self._parts(), self.part, 1) or "map")

    def _show_part(self, part: str) -> None:
        self._part = part
        self.changed()
        self.focus_main()
        self.job.look_again()  # the map may have another size now

    def _job_read(self) -> None:
        self.settings.follow()
        self.changed()

    # -- the lists ----------------------------------------------------------------------------------------

    @property
    def _table(self) -> Table | None:
        """The list that Enter applies to: the one with the focus, else the dead letters, else the workers."""
        tables = [self.query_one(f"#{name}", Table) for name in ("failures", "workers")]
        shown = [table for table in tables if table.display and table.row_key is not None]
        return next((table for table in shown if table.has_focus), shown[0] if shown else None)

    def open_row(self) -> None:
        table = self._table
        if table is None:
            return
        if table.id == "failures":
            failure = next(one for one in self.job.failures if str(one.chunk_id) == table.row_key)
            self.app.push_screen(Page(f"chunk {failure.chunk_id}", lists.failure_page([failure])))
        elif self.job.detail is not None:
            worker = next(one for one in self.job.detail.workers if str(one.id) == table.row_key)
            self.app.push_screen(Page(f"worker {worker.id}", lists.worker_page(worker)))

    def open_failures(self) -> None:
        title, dead_letters = "chunks that could not be embedded", self.job.failures
        if self.situation.selected is not None and self.situation.selected.failed > len(dead_letters):
            title = f"the newest {len(dead_letters)} {title}"
        self.app.push_screen(Page(title, lists.failure_page(dead_letters)))

    def open_log(self) -> None:
        job, detail = self.situation.job(self.situation.selected), self.job.detail
        if job is not None and detail is not None:
            self.app.push_screen(Page(f"log of the backfill of {job.version_key}", lists.log_page(job, detail)))

    def waive_failure(self) -> None:
        self.control.waive(self.query_one("#failures", Table).row_key)

    # -- the version --------------------------------------------------------------------------------------

    def step_candidate(self, step: int) -> None:
        keys = [status.version.version_key for status in self.situation.versions]
        key = step_through(keys, key_of(self.situation.selected), step)
        if key is not None:
            self.control.message = Text()
            self.post_message(self.Select(key))
