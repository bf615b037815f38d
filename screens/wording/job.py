"""A backfill in words: who works on it, what holds it, and when it will be done."""

from __future__ import annotations

import datetime

from rich.console import RenderableType
from rich.text import Text

from revector.core.backfill.job.settings import HELP, JobSettings, shown
from revector.core.backfill.job.status import JobDetail, JobStatus, Proof
from revector.core.database import client_name
from revector.core.registry import VersionStatus
from revector.screens.situation import AT_WORK, Situation
from revector.screens.wording.facts import facts
from revector.screens.wording.next_step import next_step
from revector.screens.wording.text import chunks, date_and_time, duration, printable, shorten
from revector.screens.wording.theme import BAD, CAUTION, FAINT, GOOD, TITLE

_MOST_CLIENTS = 3


def state_line(situation: Situation, selected: VersionStatus, detail: JobDetail | None) -> Text:
    """`embed-v2026-03  ─  running in this console and on bob@ops-2`, or the next step."""
    key = selected.version.version_key
    job, build = situation.job(selected), situation.build(selected)
    here = key in situation.state.working
    text = Text(printable(key), "bold", no_wrap=True, overflow="ellipsis")
    if build is not None:
        return text.append(f"  ─  building the index{' in this console' if here else ''}: {build[0]}", TITLE)
    if job is None:
        return text.append(f"  ─  starting{_here(situation, key)}" if here else "  ─  no backfill yet")
    colour = {"done": GOOD, "failed": BAD, "running": TITLE}.get(job.state, CAUTION)
    return text.append(f"  ─  {job.state}{_where(situation, key, detail)}", colour)


def _where(situation: Situation, key: str, detail: JobDetail | None) -> str:
    """Where the live workers run. Another terminal of the same person and machine counts as this one."""
    here = key in situation.state.working
    clients = sorted({worker.client for worker in detail.workers if worker.alive} if detail else ())
    others = [client for client in clients if not (here and client == client_name())]
    shown_ones = ", ".join(printable(client) for client in others[:_MOST_CLIENTS])
    if len(others) > _MOST_CLIENTS:
        shown_ones += f" and {len(others) - _MOST_CLIENTS} more"
    if here:
        return _here(situation, key) + (f", and elsewhere by {shown_ones}" if others else "")
    return f" elsewhere, by {shown_ones}" if others else ""


def _here(situation: Situation, key: str) -> str:
    """` in this console, on Ray`: what runs here, and how."""
    ray = ", on Ray" if key in situation.state.on_ray else ""
    return f" in this console{ray}{', which keeps running' if key in situation.state.staying else ''}"


def progress_bar(situation: Situation, selected: VersionStatus, width: int) -> Text:
    """The bar of the backfill, or of the index build."""
    build, job = situation.build(selected), situation.job(selected)
    if build is not None:
        return bar(build[1], build[2], width)
    return bar(job.done, job.total, width) if job is not None else Text()


def bar(done: int, total: int, width: int) -> Text:
    """`━━━━━━━━╌╌╌╌  62.4 %`: done and remaining parts differ by sign."""
    share = min(1.0, done / total) if total else 0.0
    cells = max(4, min(100, width - 10))
    filled = int(share * cells)
    text = Text("━" * filled, TITLE)
    text.append("╌" * (cells - filled), FAINT)
    return text.append(f"  {share * 100:5.1f} %" if total else "       —")


def held(job: JobStatus | None, now: datetime.datetime, width: int) -> Text:
    """`HELD 4 min: standby b is 12 s behind, limit 5 s`, on two lines at most; empty when nothing holds it."""
    if job is None or not job.throttle:
        return Text()
    since = f" {duration(max(0.0, (now - job.throttle_since).total_seconds()))}" if job.throttle_since else ""
    text = Text(f" HELD{since} ", f"bold reverse {CAUTION}")
    reason = shorten(printable(job.throttle), max(20, 2 * width - len(text) - 20))
    return text.append(" ").append(reason, f"not reverse bold {CAUTION}")


def eta(job: JobStatus) -> str:
    """`18 min left (15 min – 24 min)`: the spread is that of the rate over the last minutes."""
    if job.eta_s is None:
        return "time left unknown yet"
    text = f"{duration(job.eta_s)} left"
    if not job.pending or job.eta_low_s is None:
        return text
    if job.eta_high_s is None:
        return f"{text} ({duration(job.eta_low_s)} at best)"
    return f"{text} ({duration(job.eta_low_s)} – {duration(job.eta_high_s)})"


def figures(
    situation: Situation, selected: VersionStatus, detail: JobDetail | None, *, brief: bool
) -> RenderableType:
    """Names and values below the bar; `brief` leaves out what the job's log shows too."""
    lines: list[tuple[str, str | Text]] = [("next step", Text(next_step(situation, selected), "bold"))]
    job = situation.job(selected)
    if job is None:
        return facts(lines)
    left = f"{job.done:,} of {job.total:,} done   {job.pending:,} pending   "
    lines.append(("chunks", Text(left).append(f"{job.failed:,} failed", BAD if job.failed else "")))
    people = f"{job.workers} worker" + ("" if job.workers == 1 else "s")
    if detail is not None and job.state in AT_WORK and detail.settings.workers != job.workers:
        people += f" ({detail.settings.workers} wanted of each run)"
    if job.state in AT_WORK:
        lines.append(("speed", f"{job.rate:,.0f} chunks/s   {eta(job)}   {people}"))
    cap = detail.settings.max_spend_usd if detail else None
    lines.append(("spent", f"${job.spent_usd:,.4f}" + (f" of at most ${cap:,.2f}" if cap is not None else "")))
    if detail is not None:
        lines.append(("proof", proof_line(detail.proofs[0]) if detail.proofs else "none yet"))
    if not brief:
        lines.append(
            ("times", f"started {date_and_time(job.run_started_at)}   ended {date_and_time(job.finished_at)}")
        )
        if detail is not None:
            lines.append(("settings", settings_line(detail.settings)))
    return facts(lines)


def proof_line(proof: Proof) -> Text:
    """`2026-03-01 14:02  nothing missing, 3 dead letters (took 1.2 s)`."""
    text = Text(f"{date_and_time(proof.at)}   ")
    text.append(
        f"{chunks(proof.missing)} missing" if proof.missing else "nothing missing", BAD if proof.missing else ""
    )
    letters = f", {proof.dead_letters:,} dead letter{'' if proof.dead_letters == 1 else 's'}"
    return text.append(f"{letters if proof.dead_letters else ''} (took {proof.seconds:,.1f} s)")


def settings_line(settings: JobSettings) -> str:
    """The settings that differ from the defaults, or that none do."""
    defaults = JobSettings()
    return ", ".join(
        f"{name} {shorten(shown(settings, name), 60)}"
        for name in HELP
        if getattr(settings, name) != getattr(defaults, name)
    ) or "the defaults"  # fmt: skip
