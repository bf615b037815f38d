"""Requests for a cutover, and their approvals by other people.

Requester and approver are the roles that logged in to the database (session_user): triggers write them, whatever
the statement says, and refuse an approval of one's own request (core/migrations/sql/cutover.sql). The `basis` of a
request is what was approved: once any of it differs, the request is void. With `approvals` in the policy, the
database refuses every flip except to an approved version or back to a formerly active one.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
from psycopg.types.json import Jsonb

from revector.core import audit
from revector.core.cutover.guard import Check
from revector.core.cutover.guards import check, checked_waivers
from revector.core.cutover.policy import Policy
from revector.core.cutover.request_store import Request, get_request, local_time, open_request
from revector.core.database import Connection
from revector.core.errors import RefusedError, UsageError
from revector.core.registry import Version, get_version


def request(connection: Connection, key: str, *, reason: str, waivers: Mapping[str, str] | None = None) -> Request:
    """Request a cutover to this version, with the current figures of its guards.

    Ends an earlier request for it that is void or expired. Raises UsageError for an unknown key or waiver and for
    a missing reason; RefusedError when a request is already open, or the version is active or was never complete.
    """
    version = get_version(connection, key)
    if not reason.strip():
        raise UsageError("A request for a cutover needs a reason.", "Approvers read it: --reason TEXT")
    waived = checked_waivers(waivers or {})
    found = check(connection, key, waivers=waived)
    with audit.refusals(connection, "cutover request", key), connection.transaction():
        before = open_request(connection, version)
        if before is not None and before.state in ("open", "approved"):
            raise RefusedError(
                f"{before.requested_by} has already requested a cutover to {key}, "
                f"until {local_time(before.expires_at)}.",
                f"Get it approved (revector cutover approve {key}) or withdraw it (revector cutover withdraw {key}).",
            )
        # Triggers end what is void or expired, fill in who, when, until when and the basis, and write the log.
        connection.execute(
            """
            INSERT INTO cutover_requests (embedding_version_id, reason, expires_at, basis, waivers, guards)
            VALUES (%s, %s, now(), '{}', %s, %s)
            """,
            [version.id, reason.strip(), Jsonb(waived), Jsonb(figures(found))],
        )
        made = open_request(connection, version)
        assert made is not None  # noqa: S101  (inserted above, in this transaction)
    return made


def approve(connection: Connection, key: str, *, comment: str = "", request_id: int | None = None) -> Request:
    """Approve the open request for this version, as the role that has logged in.

    `request_id` is the request that the approver looked at, if it must be that one. Raises RefusedError when there
    is no such request, when it is one's own, void or expired, and when this role has already approved it.
    """
    version = get_version(connection, key)
    found = open_request(connection, version)
    if found is None or request_id not in (None, found.id):
        problem = f"There is no open request for a cutover to {key}."
        if found is not None:
            problem = f"Request {request_id} has ended; {found.requested_by} has made another one, {found.id}."
        raise RefusedError(
            problem, f"See revector cutover requests, or request it: revector cutover request {key}"
        )
    try:
        with audit.refusals(connection, "cutover approve", key), connection.transaction():
            connection.execute(
                "INSERT INTO cutover_approvals (request_id, comment) VALUES (%s, %s)", [found.id, comment.strip()]
            )
    except psycopg.errors.UniqueViolation:
        raise RefusedError(f"This role has already approved the request for {key}.") from None
    return get_request(connection, found.id)


def withdraw(connection: Connection, key: str, *, reason: str = "") -> Request:
    """End the open request for this version, as its requester or as someone who disagrees; the log says who.

    Raises RefusedError when there is none.
    """
    version = get_version(connection, key)
    with connection.transaction():
        found = open_request(connection, version)
        if found is None:
            raise RefusedError(
                f"There is no open request for a cutover to {key}.", "See revector cutover requests."
            )
        connection.execute("SELECT withdraw_request(%s, %s)", [found.id, reason.strip()])
    return get_request(connection, found.id)


def approved_waivers(connection: Connection, version: Version, policy: Policy) -> dict[str, str] | None:
    """The waivers of the open request; None where the policy requires no approval, so any waivers count.

    Raises RefusedError when it waives, by SQL, what is no guard.
    """
    if policy.approvals == 0:
        return None
    found = open_request(connection, version)
    if found is None:
        return {}
    try:
        checked_waivers(found.waivers)
    except UsageError as error:
        raise RefusedError(
            f"Request {found.id} of {found.requested_by} has a waiver that does not count. {error.problem}",
            f"Withdraw it (revector cutover withdraw {version.version_key}) and request it again.",
        ) from None
    return dict(found.waivers)


def figures(found: Check) -> dict[str, str]:
    """The guards' results, one line each, as stored in requests and in the log."""
    lines = {}
    for guard in found.guards:
        text = guard.detail if guard.verdict == "pass" else f"{guard.verdict}: {guard.detail}"
        lines[guard.name] = f"{text} (waived: {guard.waived})" if guard.waived else text
    return lines
