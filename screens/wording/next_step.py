"""The next step for a version, in one sentence: what an on-call engineer should do now."""

from __future__ import annotations

from revector.core.backfill.job.status import JobStatus
from revector.core.registry import VersionStatus
from revector.screens.situation import AT_WORK, Situation
from revector.screens.tabs import BACKFILL
from revector.screens.wording.text import chunks, printable

_STOPPED = {
    "paused": "is paused",
    "interrupted": "was interrupted",
    "failed": "failed",
    "cancelled": "was stopped",
}
"""What happened to a backfill without workers, as a verb."""


def next_step(situation: Situation, status: VersionStatus) -> str:
    """What to do with a version now, with the keys that do it."""
    version = status.version
    job = situation.job(status)
    there = situation.state.tab == BACKFILL.key
    run = "press r" if there else "press 2, then r"
    if situation.looks_only:
        run = "not in this read-only console" if situation.state.read_only else "ask an operator"
    key = printable(version.version_key)
    if not version.encoder_spec:
        return f"It has no encoder. Name one: revector versions adopt {key} --encoder SPEC"
    if situation.build(status) is not None:
        return "Wait until the index is built." if there else "The index is being built. Press 2 to watch."
    if job is not None and job.state in AT_WORK:
        return _meanwhile(situation, job) if there else f"The backfill is {job.state}. Press 2 to watch."
    if status.failed:
        read = "f shows why" if there else "press 2, then f"
        further = "" if situation.looks_only or not there else "; t retries, w waives one"
        return f"{chunks(status.failed)} could not be embedded: {read}{further}."
    if version.state == "retired":
        return f"Retired. To use it again, backfill it: {run}."
    if job is not None and job.state in _STOPPED:
        return f"The backfill {_STOPPED[job.state]}. To resume it, {run}."
    if version.completed_at is None:
        return f"Backfill it: {run}."
    if status.missing:
        return f"{chunks(status.missing)} added since the backfill. To embed, {run}."
    index = situation.index(status)
    if index is None or not index.valid:
        return f"The index is missing. A backfill run builds it: {run}."
    if version.active:
        return "Active and complete. Nothing to do."
    if situation.overview and situation.overview.rollback_to == version.version_key:
        return "It was active before. Press 6, then R to roll back to it."
    return "Compare it: press 3. Then cut over: press 6."


def _meanwhile(situation: Situation, job: JobStatus) -> str:
    """What to do while the backfill runs."""
    if situation.looks_only:
        return "Nothing: it continues by itself."
    if job.state == "pausing":
        return "Wait until the current batches are stored."
    if job.throttle:
        return "Nothing: it continues when that is over. s changes the limits."
    return "Nothing: it is running. s changes pace and limits, p pauses it."
