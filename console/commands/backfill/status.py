"""A backfill's status for people, as `revector backfill status` prints it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from revector.console.context import aligned, counted
from revector.screens.wording.text import duration

if TYPE_CHECKING:
    import datetime

    from revector.core.backfill.job.status import JobDetail, JobStatus


def status_lines(status: JobStatus) -> Iterator[str]:
    """State, rate, counts, and the reason that holds the backfill."""
    pace = ""
    if status.state == "running":
        pace = f", {status.rate:,.0f} chunks/s, {counted(status.workers, 'worker')}, {eta(status)}"
    elif status.took_s is not None:
        pace = f", took {duration(status.took_s)}"
    yield f"{status.version_key}: {status.state}{pace}"
    in_this_run = f" ({status.run_done:,} in the last run)" if status.run_done != status.done else ""
    yield (
        f"{status.done:,} of {counted(status.total, 'chunk')} done{in_this_run}, {status.failed:,} failed, "
        f"{status.pending:,} pending" + (f", ${status.spent_usd:,.4f} spent" if status.spent_usd else "")
    )
    if status.throttle:
        since = f" (since {status.throttle_since:%H:%M:%S %Z})" if status.throttle_since else ""
        yield f"held: {status.throttle}{since}"
    if status.error:
        yield status.error


def eta(status: JobStatus) -> str:
    """`ETA 18 min (15 min to 24 min)`."""
    text = f"ETA {duration(status.eta_s)}"
    if status.eta_low_s is not None and status.eta_high_s is not None:
        text += f" ({duration(status.eta_low_s)} to {duration(status.eta_high_s)})"
    return text


def detail_lines(detail: JobDetail) -> Iterator[str]:
    """Workers, proofs and changes of state."""
    workers = [
        (
            worker.id,
            worker.client if worker.pid is None else f"{worker.client} {worker.pid}",
            worker.engine,
            "alive" if worker.alive else "ended",
            f"{worker.done:,}",
            worker.batch_size or "—",
            worker.throttle or worker.error or "",
        )
        for worker in detail.workers
    ]
    proofs = [
        (
            _at(proof.at),
            f"{proof.missing:,}",
            f"{proof.embedded:,}",
            f"{proof.dead_letters:,}",
            f"{proof.seconds:.1f}",
        )
        for proof in detail.proofs
    ]
    changes = [
        (_at(change.at), f"{change.from_state or '—'} → {change.to_state}", change.client, change.reason or "")
        for change in detail.transitions
    ]
    tables: tuple[tuple[Sequence[Sequence[object]], tuple[str, ...]], ...] = (
        (workers, ("worker", "who", "engine", "is", "done", "batch", "")),
        (proofs, ("proof", "missing", "embedded", "dead letters", "seconds")),
        (changes, ("at", "state", "by", "reason")),
    )
    for rows, titles in tables:
        if rows:
            yield ""
            yield from aligned(rows, *titles)


def _at(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"
