"""Tab 2: the backfill of the selected version, whoever runs it."""

from __future__ import annotations

import time
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from revector.core.backfill.job.dead_letters import Failure
from revector.core.backfill.job.status import JobDetail
from revector.core.errors import RevectorError
from revector.core.registry import VersionStatus
from revector.screens.backfill import lists
from revector.screens.backfill.actions import BackfillState
from revector.screens.backfill.range_map import RangeMap
from revector.screens.backfill.reader import MOST_FAILURES, Found, JobReader
from revector.screens.backfill.steering import Steering
from revector.screens.pane import step_through
from revector.screens.services import Services
from revector.screens.situation import AT_WORK, Situation, key_of
from revector.screens.tabs import BACKFILL
from revector.screens.widgets.background import in_background
from revector.screens.widgets.buttons import Buttons
from revector.screens.widgets.chart import Chart, Series
from revector.screens.widgets.parts import Parts
from revector.screens.widgets.table import Table
from revector.screens.wording import job as wording
from revector.screens.wording.errors import error_text
from revector.screens.wording.text import printable, shorten

_TALL, _WIDE = 32, 100
"""The terminal below which map, rate, workers and dead letters have no room beside each other."""
_FAILURES_EVERY_S = 10.0
"""Dead letters are read again when their number or the job's state changes, and else as seldom as this."""
_MOST_MESSAGE = 400


class BackfillPane(Steering):
    """State, progress, what holds it, figures, rate, map, workers and dead letters of one backfill."""

    DEFAULT_CSS = """
    BackfillPane #state, BackfillPane #bar { height: 1; padding: 0 1; }
    BackfillPane #held, BackfillPane #message { height: auto; max-height: 3; padding: 0 1; display: none; }
    BackfillPane #held.-shown, BackfillPane #message.-shown { display: block; }
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

    PARTS: ClassVar[tuple[str, ...]] = ("map", "rate", "workers", "failures")

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self._jobs = JobReader(services.connections)
        self._failures: tuple[Failure, ...] = ()
        self._failures_of: tuple[object, ...] = ()
        self._failures_at = 0.0
        self._detail_of: str | None = None
        self._drawn_at: object = None
        self._reading_since: float | None = None
        self._read_error = Text()
        self._patience_s = services.database.connect_timeout_s + 2 * services.settings.read_timeout_s
        self._part: str | None = None

    def compose(self) -> ComposeResult:
        """From the most important to the least."""
        yield Static(id="state", markup=False)
        yield Static(id="bar", markup=False)
        yield Static(id="held", markup=False)
        yield Static(id="message", markup=False)
        with VerticalScroll(id="figures", can_focus=False):
            yield Static(markup=False)
        yield Parts("m")
        with Horizontal(id="pictures"):
            yield RangeMap(id="map")
            yield Chart("chunks a second, by seconds of work", nothing="No batch has been stored yet.", id="rate")
        yield Table(lists.WORKERS, id="workers")
        yield Table(lists.FAILURES, id="failures")
        yield Buttons(BACKFILL)

    def on_mount(self) -> None:
        """Fit the parts into the room that there is."""
        self._arrange()

    def on_unmount(self) -> None:
        """The connection is not needed any more."""
        self._jobs.close()

    def on_resize(self) -> None:
        """What has room beside each other may be more or less now."""
        self.draw()

    def focus_main(self) -> None:
        """The list in front: dead letters before workers."""
        table = self._table
        if table is not None and table.display:
            table.focus()
        else:
            self.screen.set_focus(None)

    def entered(self) -> None:
        """What was said in an earlier visit is over."""
        self.message = Text()
        self._drawn_at = None

    def show_actions(self, situation: Situation) -> None:
        """The buttons of this moment."""
        self.query_one(Buttons).show(situation)

    # -- drawing ------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Draw the selected version's backfill, and read more about it when the snapshot is a new one."""
        if not self.app.is_running or not self.query(RangeMap):
            return  # what was read in the background may come while the console ends
        selected, overview = self.situation.selected, self.situation.overview
        if selected is None or overview is None:
            self.query_one("#state", Static).update(Text("No version yet. See 1 Versions."))
            return
        if key_of(selected) != self._detail_of:
            self._forget(key_of(selected))
        self._arrange()
        job, width = self.situation.job(selected), self.app.size.width - 2
        self.query_one("#state", Static).update(wording.state_line(self.situation, selected, self.detail))
        self.query_one("#bar", Static).update(wording.progress_bar(self.situation, selected, width))
        self._show_line("#held", wording.held(job, overview.taken_at, width))
        self._show_line("#message", self._what_was_said(selected))
        figures = wording.figures(self.situation, selected, self.detail, brief=self.tight)
        self.query_one("#figures Static", Static).update(figures)
        rates = overview.rates.get(selected.version.version_key, ())
        self.query_one("#rate", Chart).plot([Series(tuple(rates))] if rates else [])
        self._draw_detail(selected)
        if self._drawn_at != overview.taken_at and self.situation.state.live:
            self._read(selected)

    def _show_line(self, place: str, text: Text) -> None:
        line = self.query_one(place, Static)
        line.set_class(bool(text), "-shown")
        line.update(text)

    def _what_was_said(self, selected: VersionStatus) -> Text:
        """What came of the last request; else why the run here ended, or the job; else what the run here notes."""
        key = selected.version.version_key
        job = self.situation.job(selected)
        if self.message or self._read_error:
            return self.message or self._read_error
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
        detail, now = self.detail, self.situation.overview.taken_at if self.situation.overview else None
        workers, failures = self.query_one("#workers", Table), self.query_one("#failures", Table)
        self.query_one(RangeMap).plot(detail.cells if detail else ())
        rows = [lists.worker_row(worker, now) for worker in detail.workers] if detail and now else []
        workers.show(rows)
        alive = sum(worker.alive for worker in detail.workers) if detail else 0
        workers.border_title = Content(f" workers: {alive} alive, {len(rows) - alive} ended in the last 10 min ")
        failures.show([lists.failure_row(failure) for failure in self._failures])
        all_of_them = max(selected.failed, len(self._failures))
        newest = f" newest {MOST_FAILURES} of {all_of_them:,}" if all_of_them > MOST_FAILURES else ""
        failures.border_title = Content(f"{newest} chunks that could not be embedded ")
        items = {
            "map": "map",
            "rate": "rate",
            "workers": f"workers {alive}",
            "failures": f"failures {selected.failed:,}",
        }
        self.query_one(Parts).show([(name, items[name]) for name in self._parts()], self.part)

    # -- what has room ------------------------------------------------------------------------------------

    def state(self, situation: Situation) -> BackfillState:
        """What actions depend on beside the snapshot."""
        return BackfillState(rows=self.is_mounted and self._table is not None)

    @property
    def tight(self) -> bool:
        """Whether one part is shown at a time."""
        return self.app.size.height < _TALL or self.app.size.width < _WIDE

    @property
    def part(self) -> str:
        """The part in front, where there is room for one: chosen, or dead letters if there are any."""
        if self._part in self._parts():
            return str(self._part)
        return "failures" if self._failures else "map"

    @part.setter
    def part(self, name: str) -> None:
        self._part = name

    def _parts(self) -> list[str]:
        return [name for name in self.PARTS if name != "failures" or self._failures]

    def _arrange(self) -> None:
        tight = self.tight
        self.set_class(tight, "-tight")
        front = {self.part} if tight else set(self._parts())
        for name in self.PARTS:
            self.query_one(f"#{name}").display = name in front
        self.query_one("#pictures").display = bool(front & {"map", "rate"})

    def next_part(self) -> None:
        """The next part, where one is shown at a time."""
        parts = self._parts()
        self._show_part(parts[(parts.index(self.part) + 1) % len(parts)])

    def on_parts_chosen(self, event: Parts.Chosen) -> None:
        """A click on the name of a part."""
        event.stop()
        self._show_part(event.name)

    def _show_part(self, name: str) -> None:
        self.part = name
        self.draw()
        self.focus_main()
        self.post_message(self.Changed())
        self._drawn_at = None  # the map may have other room now

    # -- reading ------------------------------------------------------------------------------------------

    def _forget(self, key: str | None) -> None:
        self._detail_of, self.detail, self._failures, self._failures_of = key, None, (), ()
        self._drawn_at = None

    def _read(self, selected: VersionStatus) -> None:
        """Read job and dead letters once for each snapshot, and never twice at a time."""
        now = time.monotonic()
        if self._reading_since is not None:
            if now - self._reading_since > self._patience_s:
                self._jobs.hang_up()  # the snapshots come: this one connection is gone without a word
            return
        if self.situation.overview is None:
            return
        self._reading_since, self._drawn_at = now, self.situation.overview.taken_at
        key, version, room = key_of(selected), selected.version, self.query_one(RangeMap).room
        job = self.situation.job(selected)
        wanted = (key, selected.failed, job.state if job else None)
        at_work = job is not None and job.state in AT_WORK
        stale = at_work and now - self._failures_at > _FAILURES_EVERY_S
        letters = wanted != self._failures_of or stale

        def done(found: Found) -> None:
            self._reading_since = None
            if key != self._detail_of:
                self.draw()
                return
            if found[1] is not None:
                self._failures_of, self._failures_at = wanted, time.monotonic()
            self.show_detail(*found)

        def failed(error: RevectorError) -> None:
            self._reading_since = None
            if self.situation.state.live:  # else the banner says it
                self._read_error = error_text(error)
                self.draw()

        in_background(
            self, "job", lambda _tell: self._jobs.read(version, room, dead_letters=letters), done, failed
        )

    def show_detail(self, detail: JobDetail | None, failures: tuple[Failure, ...] | None = None) -> None:
        """Draw what was read about the selected version; None leaves the dead letters as they were."""
        self._read_error = Text()
        self.detail = detail
        if failures is not None:
            self._failures = failures
        self.draw()
        self.show_settings()
        self.post_message(self.Changed())

    # -- the lists ----------------------------------------------------------------------------------------

    @property
    def _table(self) -> Table | None:
        """The list that Enter goes by: the one with the focus, else the dead letters, else the workers."""
        tables = [self.query_one(f"#{name}", Table) for name in ("failures", "workers")]
        shown = [table for table in tables if table.display and table.row_key is not None]
        return next((table for table in shown if table.has_focus), shown[0] if shown else None)

    def on_data_table_row_selected(self, event: Table.RowSelected) -> None:
        """A click on the row under the cursor."""
        event.stop()
        event.data_table.focus()
        self.post_message(self.Act("open-row"))

    def open_row(self) -> None:
        """The dead letter or the worker under the cursor, in full."""
        from revector.screens.widgets.page import Page

        table = self._table
        if table is None:
            return
        if table.id == "failures":
            failure = next(one for one in self._failures if str(one.chunk_id) == table.row_key)
            self.app.push_screen(Page(f"chunk {failure.chunk_id}", lists.failure_page([failure])))
        elif self.detail is not None:
            worker = next(one for one in self.detail.workers if str(one.id) == table.row_key)
            self.app.push_screen(Page(f"worker {worker.id}", lists.worker_page(worker)))

    def open_failures(self) -> None:
        """All dead letters, each with its whole error."""
        from revector.screens.widgets.page import Page

        title = "chunks that could not be embedded"
        if self.situation.selected is not None and self.situation.selected.failed > len(self._failures):
            title = f"the newest {len(self._failures)} {title}"
        self.app.push_screen(Page(title, lists.failure_page(self._failures)))

    def open_log(self) -> None:
        """What happened to the job: its changes of state, its proofs."""
        from revector.screens.widgets.page import Page

        job = self.situation.job(self.situation.selected)
        if job is not None and self.detail is not None:
            self.app.push_screen(
                Page(f"log of the backfill of {job.version_key}", lists.log_page(job, self.detail))
            )

    def waive_failure(self) -> None:
        """Give up the dead letter under the cursor, with a reason."""
        key = self.query_one("#failures", Table).row_key
        self.waive(int(key) if key is not None else None)

    # -- the version --------------------------------------------------------------------------------------

    def step_candidate(self, step: int) -> None:
        """The backfill of another version."""
        keys = [status.version.version_key for status in self.situation.versions]
        key = step_through(keys, key_of(self.situation.selected), step)
        if key is not None:
            self.message = Text()
            self.post_message(self.Select(key))
