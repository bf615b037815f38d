"""The next step for a version, as one sentence: what an engineer who was just woken does now."""

from __future__ import annotations

from revector.core.backfill.job.status import JobStatus
from revector.core.registry import VersionStatus
from revector.screens.situation import AT_WORK, Situation
from revector.screens.tabs import BACKFILL
from revector.screens.wording.text import chunks, printable


def next_step(situation: Situation, status: VersionStatus) -> str:
    """What to do with a version now, with the keys that do it."""
    version = status.version
    job = situation.job(status)
    there = situation.state.tab == BACKFILL.key
    run = "press r" if there else "press 2, then r"
    if situation.looks_only:
        run = "not in this console, which is read-only" if situation.state.read_only else "it takes an operator"
    key = printable(version.version_key)
    if not version.encoder_spec:
        return f"It names no encoder: revector versions adopt {key} --encoder SPEC"
    if situation.build(status) is not None:
        return "Wait until its index is built." if there else "Its index is being built: press 2 to watch."
    if job is not None and job.state in AT_WORK:
        return _meanwhile(situation, job) if there else f"Its backfill is {job.state}: press 2 to watch."
    if status.failed:
        read = "f shows why" if there else "press 2, then f"
        further = "" if situation.looks_only or not there else "; t tries again, w gives one up"
        return f"{chunks(status.failed)} could not be embedded: {read}{further}."
    if version.state == "retired":
        return f"It is retired. To use it again, backfill it: {run}."
    if job is not None and job.state in ("paused", "interrupted", "failed", "cancelled"):
        return f"Its backfill is {job.state}. Go on with it: {run}."
    if version.completed_at is None:
        return f"Backfill it: {run}."
    if status.missing:
        return f"{chunks(status.missing)} came since its backfill. Take them up: {run}."
    index = situation.index(status)
    if index is None or not index.valid:
        return f"Its index is missing: a run of the backfill builds it: {run}."
    if version.active:
        return "It answers users, and lacks nothing."
    if situation.overview and situation.overview.rollback_to == version.version_key:
        return "It was active before: press 6, then R to roll back to it."
    return "Compare it with the active one: press 3. Then cut over: press 6."


def _meanwhile(situation: Situation, job: JobStatus) -> str:
    """What there is to do while somebody works on it."""
    if situation.looks_only:
        return "None: it goes on by itself."
    if job.state == "pausing":
        return "Wait until the batches in hand are stored."
    if job.throttle:
        return "None: it goes on by itself when that is over. s changes its limits."
    return "None: it runs. s changes its pace and its limits, p pauses it."
