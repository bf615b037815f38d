"""Tab 2: the backfill of the selected version, whoever runs it."""

from __future__ import annotations

from rich.console import RenderableType
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from core.backfill.failures import Failure
from core.backfill.status import JobStatus
from core.errors import RevectorError
from core.registry import Version, VersionStatus
from screens.advice import next_step
from screens.background import in_background
from screens.buttons import Buttons
from screens.chart import Chart, Series
from screens.facts import facts
from screens.pane import Pane, step_through
from screens.situation import Situation, key_of
from screens.table import Column, Row, Table
from screens.text import date_and_time, duration, first_line, printable
from screens.theme import BAD, CAUTION, FAINT, GOOD, TITLE

_FAILURES = (
    Column("chunk", 10, right=True),
    Column("document", 20),
    Column("tries", 5, right=True),
    Column("error"),
    Column("waived", 20, from_width=110),
)
_TALL = 32
"""Rows of the terminal below which rate and dead letters have no room beside each other."""


class BackfillPane(Pane):
    """State, progress, figures, rate and dead letters of one backfill."""

    DEFAULT_CSS = """
    BackfillPane #state { height: auto; padding: 0 1; }
    BackfillPane #figures { height: auto; max-height: 10; padding: 0 1; scrollbar-size-vertical: 1; }
    BackfillPane #problem { height: auto; max-height: 4; padding: 0 1; color: $error; display: none; }
    BackfillPane #problem.-shown { display: block; }
    BackfillPane #rate { height: 1fr; }
    BackfillPane #failures { height: auto; max-height: 35%; display: none; border: round $border-blurred;
                             border-title-color: $secondary; }
    BackfillPane #failures.-shown { display: block; }
    BackfillPane.-tight #failures { max-height: 100%; height: 1fr; }
    BackfillPane.-tight #rate { display: none; }
    """

    _failures: tuple[Failure, ...] = ()
    _failures_of: tuple[str | None, int] = (None, 0)
    _request_error: RevectorError | None = None

    def compose(self) -> ComposeResult:
        """From the most important to the least."""
        yield Static(id="state", markup=False)
        yield Static(id="problem", markup=False)
        with VerticalScroll(id="figures", can_focus=False):
            yield Static(markup=False)
        yield Chart("chunks a second, by seconds of work", nothing="No batch has been stored yet.", id="rate")
        yield Table(_FAILURES, id="failures")
        yield Buttons("2")

    def on_mount(self) -> None:
        """Name the list of dead letters."""
        self.query_one("#failures", Table).border_title = Content("chunks that could not be embedded")

    def focus_main(self) -> None:
        """The dead letters, when there are any: nothing else has rows."""
        failures = self.query_one("#failures", Table)
        if failures.display:
            failures.focus()
        else:
            self.screen.set_focus(None)

    def entered(self) -> None:
        """An error of an earlier visit is over."""
        self._request_error = None

    def draw(self) -> None:
        """Draw the selected version's backfill."""
        selected = self.situation.selected
        if selected is None:
            self.query_one("#state", Static).update(Text("No version yet: see 1 Versions."))
            return
        job = self.situation.job(selected)
        self.query_one("#state", Static).update(self._state(selected, job))
        self.query_one("#figures Static", Static).update(self._figures(selected, job))
        rates = (
            self.situation.overview.rates.get(selected.version.version_key, ()) if self.situation.overview else ()
        )
        self.query_one("#rate", Chart).plot([Series(tuple(rates))] if rates else [])
        self._draw_problem(selected.version)
        self._draw_failures(selected)

    def show_actions(self, situation: Situation) -> None:
        """The buttons of this moment."""
        self.query_one(Buttons).show(situation)

    def _state(self, selected: VersionStatus, job: JobStatus | None) -> Text:
        key = selected.version.version_key
        text = Text(printable(key), "bold")
        here = " in this console" if key in self.situation.state.working else ""
        build = self.situation.build(selected)
        if build is not None:
            phase, done, total = build
            text.append(f"  ─  building the index{here}: {phase}\n", TITLE)
            text.append(_bar(done, total, self.size.width - 2))
        elif job is None:
            text.append("  ─  no backfill yet\n")
        else:
            colour = {"done": GOOD, "failed": BAD, "running": TITLE}.get(job.state, CAUTION)
            text.append(f"  ─  {job.state}{here}", colour)
            text.append(f"  {job.throttle}\n" if job.throttle else "\n", CAUTION)
            text.append(_bar(job.done, job.total, self.size.width - 2))
        return text

    def _figures(self, selected: VersionStatus, job: JobStatus | None) -> RenderableType:
        lines: list[tuple[str, str | Text]] = [("next step", Text(next_step(self.situation, selected), "bold"))]
        if job is not None:
            lines += [
                (
                    "chunks",
                    f"{job.done:,} of {job.total:,} done   {job.pending:,} pending   {job.failed:,} failed",
                ),
                ("speed", f"{job.rate:,.0f} chunks/s   {duration(job.eta_s)} left   {job.workers} workers"),
                ("throttle", job.throttle or "none"),
                ("spent", f"${job.spent_usd:,.4f}"),
                ("times", f"started {date_and_time(job.started_at)}   ended {date_and_time(job.finished_at)}"),
            ]
        return facts(lines)

    def _draw_problem(self, version: Version) -> None:
        key = version.version_key
        job = self.situation.job(self.situation.selected)
        error = self._request_error or self.services.backfills.error(key)
        message = f"✗ {error.problem}\n{error.remedy}".strip() if error else ""
        if not message and job is not None and job.error and not job.failed:
            message = f"✗ {job.error}"
        problem = self.query_one("#problem", Static)
        problem.set_class(bool(message), "-shown")
        problem.update(Text(printable(message, lines=True)))

    def _draw_failures(self, selected: VersionStatus) -> None:
        wanted = (key_of(selected), selected.failed)
        table = self.query_one("#failures", Table)
        if wanted != self._failures_of and self.situation.state.live:
            self._failures_of = wanted
            if selected.failed:
                self._read_failures(selected.version)
            else:
                self._failures = ()
        table.set_class(bool(self._failures), "-shown")
        self.set_class(bool(self._failures) and self.app.size.height < _TALL, "-tight")
        table.show([_failure_row(failure) for failure in self._failures])

    def _read_failures(self, version: Version) -> None:
        def read(_tell: object) -> tuple[Failure, ...]:
            from core.backfill.failures import failures

            with self.services.connections.reading() as connection:
                return tuple(failures(connection, version))

        def done(failures: tuple[Failure, ...]) -> None:
            self._failures = failures
            self.draw()

        in_background(self, "failures", read, done, self._refused)

    def on_data_table_row_selected(self, event: Table.RowSelected) -> None:
        """A click on a dead letter."""
        self.post_message(self.Act("failures"))
        event.stop()

    # -- actions ------------------------------------------------------------------------------------------

    def run_backfill(self) -> None:
        """Work on the backfill in this process."""
        selected = self.situation.selected
        if selected is not None:
            self._request_error = None
            self.services.backfills.start(selected.version)
            self.post_message(self.Changed(database=True))

    def pause(self) -> None:
        """Ask for a pause; the workers follow within a second or two, wherever they run."""
        self._request("pause")

    def cancel(self) -> None:
        """End the backfill, after the version key was typed."""
        from screens.confirm import Confirm, Question

        selected = self.situation.selected
        if selected is None:
            return
        key = selected.version.version_key
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
        selected = self.situation.selected
        if selected is None:
            return
        version = selected.version

        def ask(_tell: object) -> None:
            from core.backfill import job

            request = {"pause": job.request_pause, "cancel": job.request_cancel}[what]
            with self.services.connections.writing() as connection:
                request(connection, version)

        in_background(self, "request", ask, lambda _nothing: self._done(), self._refused)

    def retry_failures(self) -> None:
        """Queue the dead letters once more, and run."""
        selected = self.situation.selected
        if selected is None:
            return
        version = selected.version

        def queue(_tell: object) -> int:
            from core.backfill.failures import retry_failures

            with self.services.connections.writing() as connection:
                return retry_failures(connection, version)

        in_background(self, "request", queue, lambda _moved: self.run_backfill(), self._refused)

    def _done(self) -> None:
        self._request_error = None
        self.post_message(self.Changed(database=True))

    def _refused(self, error: RevectorError) -> None:
        self._request_error = error
        self.draw()

    def open_failures(self) -> None:
        """All dead letters, each with its whole error."""
        from screens.reading import Page

        lines = [
            (str(failure.chunk_id), f"{failure.source_id} #{failure.chunk_no}: {failure.error}"
             + (f" (waived: {failure.waived_reason})" if failure.waived_reason else ""))
            for failure in self._failures
        ]  # fmt: skip
        self.app.push_screen(Page("chunks that could not be embedded", facts(lines)))

    def next_version(self) -> None:
        """The backfill of the next version."""
        self._step(1)

    def previous_version(self) -> None:
        """The backfill of the version before."""
        self._step(-1)

    def _step(self, step: int) -> None:
        keys = [status.version.version_key for status in self.situation.versions]
        key = step_through(keys, key_of(self.situation.selected), step)
        if key is not None:
            self._request_error = None
            self.post_message(self.Select(key))


def _failure_row(failure: Failure) -> Row:
    return Row(
        str(failure.chunk_id),
        (
            str(failure.chunk_id),
            f"{failure.source_id} #{failure.chunk_no}",
            str(failure.attempts),
            first_line(failure.error),
            failure.waived_reason or "",
        ),
    )


def _bar(done: int, total: int, width: int) -> Text:
    """`━━━━━━━━╌╌╌╌  62.4 %`: done and to do differ by their sign."""
    share = min(1.0, done / total) if total else 0.0
    cells = max(4, min(100, width - 10))
    filled = int(share * cells)
    text = Text("━" * filled, TITLE)
    text.append("╌" * (cells - filled), FAINT)
    return text.append(f"  {share * 100:5.1f} %" if total else "       —")
