"""The lists of a backfill: its workers, its dead letters, and the log of its states, as rows and in full."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from revector.core.backfill.job.dead_letters import Failure
from revector.core.backfill.job.status import JobDetail, JobStatus, WorkerState
from revector.screens.widgets.table import Column, Row
from revector.screens.wording.facts import facts
from revector.screens.wording.job import proof_line, settings_line
from revector.screens.wording.text import clock, date_and_time, duration, first_line, printable
from revector.screens.wording.theme import BAD, CAUTION, FAINT, TITLE

WORKERS = (
    Column("worker", 6, right=True),
    Column("who"),
    Column("engine", 6, from_width=100),
    Column("", 5),
    Column("done", 9, right=True),
    Column("batch", 6, right=True, from_width=90),
    Column("seen", 10, right=True),
    Column("does"),
)
FAILURES = (
    Column("chunk", 9, right=True),
    Column("document", 18),
    Column("tries", 5, right=True),
    Column("last", 16, from_width=90),
    Column("error"),
    Column("waived", 20, from_width=110),
)
_LIMITED = 20
"""How many transitions core returns."""


def worker_row(worker: WorkerState, now: datetime.datetime) -> Row:
    """One worker, grey if it has ended."""
    cells = (
        str(worker.id),
        f"{worker.client} {worker.pid or ''}".strip(),
        worker.engine,
        "alive" if worker.alive else "ended",
        f"{worker.done:,}",
        str(worker.batch_size or "—"),
        _ago(now, worker.seen_at),
        _does(worker),
    )
    if worker.alive:
        style = CAUTION if worker.throttle else ""
        return Row(str(worker.id), (*cells[:-1], Text(printable(cells[-1]), style)))
    return Row(str(worker.id), tuple(Text(printable(cell), FAINT) for cell in cells))


def _does(worker: WorkerState) -> str:
    if worker.alive:
        return f"waits: {worker.throttle}" if worker.throttle else "works"
    return first_line(worker.error) if worker.error else "finished normally" if worker.ended_at else "died"


def _ago(now: datetime.datetime, moment: datetime.datetime) -> str:
    return " ".join(duration(max(0.0, (now - moment).total_seconds())).split(" ")[:2]) + " ago"


def worker_page(worker: WorkerState) -> RenderableType:
    """All that is known about a worker."""
    return facts(
        [
            ("worker", str(worker.id)),
            ("who", worker.client),
            ("process", str(worker.pid or "—")),
            ("engine", worker.engine),
            ("state", "alive" if worker.alive else "ended"),
            ("started", _moment(worker.started_at)),
            ("last seen", _moment(worker.seen_at)),
            ("ended", _moment(worker.ended_at)),
            ("chunks done", f"{worker.done:,}"),
            ("batch size", str(worker.batch_size or "—")),
            ("waits for", worker.throttle or "nothing"),
            ("error", Text(printable(worker.error or "none", lines=True))),
        ]
    )


def failure_row(failure: Failure) -> Row:
    """One dead letter."""
    return Row(
        str(failure.chunk_id),
        (
            str(failure.chunk_id),
            f"{failure.source_id} #{failure.chunk_no}",
            str(failure.attempts),
            date_and_time(failure.failed_at),
            first_line(failure.error),
            f"✓ {failure.waived_reason}" if failure.waived_reason else "",
        ),
    )


def failure_page(failures: Iterable[Failure]) -> RenderableType:
    """Dead letters in full, one below the other."""
    parts: list[RenderableType] = []
    for failure in failures:
        lines: list[tuple[str, str | Text]] = [
            ("chunk", str(failure.chunk_id)),
            ("document", f"{failure.source_id} #{failure.chunk_no}"),
            ("attempts", f"{failure.attempts}, the last at {_moment(failure.failed_at)}"),
            ("waived", failure.waived_reason or "no"),
            ("error", Text(printable(failure.error, lines=True), BAD)),
        ]
        parts += [facts(lines), Text()]
    return Group(*parts[:-1])


def log_page(job: JobStatus, detail: JobDetail) -> RenderableType:
    """What holds the job, its settings, proofs and changes of state."""
    lines: list[tuple[str, str | Text]] = []
    if job.throttle:
        lines.append(("held by", f"{job.throttle} (since {_moment(job.throttle_since)})"))
    if job.error:
        lines.append(("error", Text(printable(job.error, lines=True))))
    lines += [
        ("started", _moment(job.run_started_at)),
        ("ended", _moment(job.finished_at)),
        ("settings", settings_line(detail.settings)),
    ]
    proofs: list[RenderableType] = [proof_line(proof) for proof in detail.proofs]
    more = f", the last {_LIMITED}" if len(detail.transitions) >= _LIMITED else ""
    return Group(
        facts(lines),
        Text("\nproofs, newest first", TITLE),
        *(proofs or [Text("none yet", FAINT)]),
        Text(f"\nchanges of state, newest first{more}", TITLE),
        _transitions(detail),
    )


def _transitions(detail: JobDetail) -> RenderableType:
    if not detail.transitions:
        return Text("none", FAINT)
    grid = Grid.grid(padding=(0, 2, 0, 0))
    for _ in range(3):
        grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for change in detail.transitions:
        states = f"{change.from_state} → {change.to_state}" if change.from_state else f"→ {change.to_state}"
        grid.add_row(
            Text(_moment(change.at), FAINT),
            Text(printable(states)),
            Text(printable(change.client)),
            Text(printable(change.reason or "")),
        )
    return grid


def _moment(moment: datetime.datetime | None) -> str:
    return f"{moment.astimezone():%Y-%m-%d} {clock(moment)}" if moment else "—"
