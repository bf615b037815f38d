"""When an action can be done: each condition answers None, or in a few words why not."""

# ruff: noqa: D103 -- the words that it answers say what a condition is about

from __future__ import annotations

from collections.abc import Callable

from revector.screens.situation import AT_WORK, Situation, key_of

Condition = Callable[[Situation], str | None]


def always(_situation: Situation) -> str | None:
    return None


def has_versions(situation: Situation) -> str | None:
    return None if situation.versions else "there is no version yet"


def has_several(situation: Situation) -> str | None:
    return None if len(situation.versions) > 1 else "there is no other version"


def can_compare(situation: Situation) -> str | None:
    enough = sum(status.embedded > 0 for status in situation.versions) > 1
    return None if enough else "fewer than two versions have vectors"


def can_compare_selected(situation: Situation) -> str | None:
    if situation.selected is not None and not situation.selected.embedded:
        return "this version has no vectors yet"
    return can_compare(situation)


def can_propose(situation: Situation) -> str | None:
    if situation.selected is not None and situation.selected.version.active:
        return "this version is the active one"
    return has_versions(situation)


# -- backfill ----------------------------------------------------------------------------------------------


def can_run(situation: Situation) -> str | None:
    selected = situation.selected
    if selected is not None and key_of(selected) in situation.state.staying:
        job = situation.job(selected)  # the run that stays is here: it waits to be told to go on
        return None if job is not None and job.state in ("paused", "failed") else "the backfill runs here already"
    return can_begin(situation)


def can_begin(situation: Situation) -> str | None:
    selected = situation.selected
    if selected is None or not selected.version.encoder_spec:
        return has_encoder(situation)
    if key_of(selected) in situation.state.working:
        return "the backfill runs here already"
    job = situation.job(selected)
    return f"the backfill is {job.state}" if job is not None and job.state in ("pausing", "proving") else None


def runs_here(situation: Situation) -> str | None:
    here = key_of(situation.selected) in situation.state.working
    return None if here else "no backfill of this version runs here"


def can_pause(situation: Situation) -> str | None:
    job = situation.job(situation.selected)
    if job is not None and job.state in ("running", "proving", "interrupted"):
        return None
    return "no backfill is running"


def can_cancel(situation: Situation) -> str | None:
    job = situation.job(situation.selected)
    if job is not None and job.state in (*AT_WORK, "paused", "interrupted", "failed"):
        return None
    return "there is no backfill to cancel"


def has_failures(situation: Situation) -> str | None:
    failed = situation.selected is not None and situation.selected.failed > 0
    return None if failed else "no chunk has failed"


def can_retry(situation: Situation) -> str | None:
    return has_failures(situation) or has_encoder(situation)


def has_encoder(situation: Situation) -> str | None:
    if situation.selected is not None and not situation.selected.version.encoder_spec:
        return "this version has no encoder that can be opened"
    return has_versions(situation)


def has_job(situation: Situation) -> str | None:
    return None if situation.job(situation.selected) is not None else "this version has no backfill yet"


def has_rows(situation: Situation) -> str | None:
    return None if situation.state.rows else "there is no row to open"


def is_tight(situation: Situation) -> str | None:
    return None if situation.state.tight else "all parts are on the screen"


# -- compare and evaluate ----------------------------------------------------------------------------------


def compared(situation: Situation) -> str | None:
    return None if situation.state.compared else "there are no results yet: / to search"


def browsing(situation: Situation) -> str | None:
    return can_compare(situation) if situation.state.browsing else "no query set is open: o chooses one"


def can_evaluate(situation: Situation) -> str | None:
    return "an evaluation is running" if situation.state.evaluating else has_several(situation)


def is_evaluating(situation: Situation) -> str | None:
    return None if situation.state.evaluating else "no evaluation is running here"


def evaluated(situation: Situation) -> str | None:
    return None if situation.state.evaluated else "no evaluation is shown"


def can_compare_runs(situation: Situation) -> str | None:
    if not situation.state.listing_runs:
        return "the runs are not shown: l lists them"
    return "an evaluation is running" if situation.state.evaluating else None


def can_show_parts(situation: Situation) -> str | None:
    return is_tight(situation) or evaluated(situation)


# -- cutover -----------------------------------------------------------------------------------------------


def has_candidate(situation: Situation) -> str | None:
    return None if situation.candidate is not None else "there is no candidate"


def not_flipping(situation: Situation) -> str | None:
    return "the active version is being changed" if situation.state.flipping else None


def can_cut_over(situation: Situation) -> str | None:
    if (reason := has_candidate(situation) or not_flipping(situation)) is not None:
        return reason
    cleared = situation.state.cleared == key_of(situation.candidate)
    return None if cleared else situation.state.blocked or "the guards are not checked yet"


def has_request(situation: Situation) -> str | None:
    return None if situation.state.request is not None else "there is no request"


def can_request(situation: Situation) -> str | None:
    request = situation.state.request
    if request is not None and request.state not in ("void", "expired"):
        return f"there is a request already, and it is {request.state}"
    return has_candidate(situation) or not_flipping(situation)


def can_approve(situation: Situation) -> str | None:
    """Nobody approves their own, and nobody twice: the database refuses it, so it is not offered."""
    request, role = situation.state.request, situation.rights.role
    if request is None:
        return has_request(situation)
    if request.state != "open":
        return f"the request is {request.state}"
    if role == request.requested_by:
        return "you made this request: others approve it"
    return "you have approved it already" if role in (one.approved_by for one in request.approvals) else None


def can_refuse(situation: Situation) -> str | None:
    return "an operator withdraws it" if situation.rights.operate else has_request(situation)


def can_waive_guard(situation: Situation) -> str | None:
    return not_flipping(situation) if situation.state.waivable else "no guard can be waived now"


def has_evidence(situation: Situation) -> str | None:
    return None if situation.state.evidence else "there is no evaluation of these versions"


def can_roll_back(situation: Situation) -> str | None:
    return not_flipping(situation) if situation.rollback is not None else "there is no version to go back to"


# -- the rest ----------------------------------------------------------------------------------------------


def has_log(situation: Situation) -> str | None:
    return None if situation.overview and situation.overview.log else "the log is empty"


def shadowing(situation: Situation) -> str | None:
    return None if situation.state.shadowing else "no shadow is running"


def not_shadowing(situation: Situation) -> str | None:
    if situation.state.shadowing is None:
        return "the shadow has not been read yet"
    return "a shadow is running" if situation.state.shadowing else None


def can_shadow(situation: Situation) -> str | None:
    candidate = situation.candidate
    if situation.active is None or candidate is None:
        return "no version is active" if situation.active is None else has_candidate(situation)
    if not candidate.embedded:
        return "the candidate has no vectors yet"
    if not candidate.version.encoder_spec:
        return "the candidate has no encoder that can be opened"
    return not_shadowing(situation)


def can_choose_shadow(situation: Situation) -> str | None:
    return has_several(situation) or not_shadowing(situation)


def disagreeing(situation: Situation) -> str | None:
    return None if situation.state.disagreeing else "there is no disagreement to open"


def judgeable(situation: Situation) -> str | None:
    return None if situation.state.judgeable else "no disagreement has its text stored"


def lost(situation: Situation) -> str | None:
    return "the database is connected" if situation.state.live else None
