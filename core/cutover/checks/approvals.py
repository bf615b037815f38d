"""The guard on approvals: whether as many others as the policy requires have approved the cutover."""

from __future__ import annotations

from revector.core.cutover.guard import Found, GuardRule, Subject, fails, passes
from revector.core.cutover.request_store import Request, local_time, open_request


def _approved(subject: Subject) -> Found:
    """A cutover to a formerly active version needs approvals too; a rollback does not."""
    needed = subject.policy.approvals
    key = subject.version.version_key
    found = open_request(subject.connection, subject.version)
    if needed == 0:
        return passes("none required" + (f"; {_approvals(found)}" if found else ""))
    ask = f"revector cutover request {key} --reason TEXT"
    if found is None:
        return fails(f"not requested; {needed} required", ask)
    asked = f"requested by {found.requested_by} on {local_time(found.requested_at)}"
    match found.state:
        case "void":
            return fails(f"void, {asked}: {found.void_because}", ask)
        case "expired":
            return fails(f"expired on {local_time(found.expires_at)}, {asked}", ask)
        case "approved":
            return passes(f"{_approvals(found)}, {asked}, until {local_time(found.expires_at)}")
        case _:
            return fails(
                f"{_approvals(found)}, {asked}",
                f"Another role must approve it: revector cutover approve {key}",
            )


def _approvals(found: Request) -> str:
    names = ", ".join(
        approval.approved_by if approval.counts else f"{approval.approved_by}, who may no longer approve"
        for approval in found.approvals
    )
    given = f"{found.given} of {found.needed} approvals" if found.needed else "approved"
    return f"{given} ({names})" if names else given if found.needed else "requested"


RULES = (
    GuardRule(
        "approvals", "Enough others have approved the cutover as it is now.",
        _approved, in_flip=True, waivable=False, settings=("approvals", "request_hours", "evidence_by"),
        looks_at=("version", "request"),
    ),
)  # fmt: skip
