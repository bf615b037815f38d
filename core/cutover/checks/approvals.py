"""The guard over the requests for a cutover: whether as many others as the policy asks for have approved it."""

from __future__ import annotations

from revector.core.cutover.guard import Guard, Subject
from revector.core.cutover.request_store import Request, local_time, open_request


def approved(subject: Subject) -> Guard:
    """As many others as the policy asks for have approved this cutover, as it stands now.

    A cutover back to a version that was active before needs them too; a rollback does not.
    """
    needed = subject.policy.approvals
    key = subject.version.version_key
    found = open_request(subject.connection, subject.version)
    if needed == 0:
        return Guard("approvals", "pass", "none required" + (f"; {_approvals(found)}" if found else ""))
    ask = f"revector cutover request {key} --reason TEXT"
    if found is None:
        return Guard("approvals", "fail", f"nobody has requested it; {needed} required", ask)
    asked = f"asked for by {found.requested_by} on {local_time(found.requested_at)}"
    match found.state:
        case "void":
            return Guard("approvals", "fail", f"void, {asked}: {found.void_because}", ask)
        case "expired":
            return Guard("approvals", "fail", f"expired on {local_time(found.expires_at)}, {asked}", ask)
        case "approved":
            return Guard(
                "approvals", "pass", f"{_approvals(found)}, {asked}, until {local_time(found.expires_at)}"
            )
        case _:
            return Guard(
                "approvals", "fail", f"{_approvals(found)}, {asked}",
                f"Another role has to approve it: revector cutover approve {key}",
            )  # fmt: skip


def _approvals(found: Request) -> str:
    names = ", ".join(approval.approved_by for approval in found.approvals)
    given = f"{len(found.approvals)} of {found.needed} approvals" if found.needed else "approved"
    return f"{given} ({names})" if names else given if found.needed else "requested"
