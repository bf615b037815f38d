"""The audit log. The database itself logs flips; everything else is recorded here."""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import psycopg
from psycopg.errors import InsufficientPrivilege, RaiseException
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from revector.core.database import Connection
from revector.core.errors import RefusedError

log = logging.getLogger(__name__)

Outcome = Literal["done", "refused", "failed"]


@dataclass(frozen=True)
class AuditEntry:
    """One line of the log."""

    id: Annotated[int, "its number"]
    at: Annotated[datetime.datetime, "when"]
    actor: Annotated[str, "the role of Postgres, as the database saw it"]
    client: Annotated[str, "user@host, as the program says"]
    application: Annotated[str, "the program, as it says"]
    action: Annotated[str, "what was done"]
    version_key: Annotated[str | None, "with which version"]
    outcome: Annotated[str, "done, refused or failed"]
    reason: Annotated[str, "why, as the person said"]
    detail: Annotated[dict[str, Any], "the figures, by the action"]


def record(
    connection: Connection,
    action: str,
    version_key: str | None,
    outcome: Outcome = "done",
    *,
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Append one entry, in the caller's transaction if there is one."""
    connection.execute(
        "INSERT INTO audit_log (action, version_key, outcome, reason, detail) VALUES (%s, %s, %s, %s, %s)",
        [action, version_key, outcome, reason, Jsonb(dict(detail or {}))],
    )
    what = f"{action} {version_key or ''}".rstrip()
    log.log(logging.INFO if outcome == "done" else logging.WARNING, "%s: %s", what, outcome)
    log.debug("%s: %s %s", what, reason, detail)


def refused(
    connection: Connection,
    action: str,
    version_key: str | None,
    problem: str,
    remedy: str = "",
    *,
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
) -> RefusedError:
    """Log a refusal; returns the error to raise. A role that may not write the log is refused all the same."""
    with contextlib.suppress(psycopg.Error):
        record(connection, action, version_key, "refused", reason=reason, detail=detail or {"problem": problem})
    error = RefusedError(problem, remedy)
    error.recorded = True
    return error


@contextlib.contextmanager
def refusals(connection: Connection, action: str, version_key: str | None, *, reason: str = "") -> Iterator[None]:
    """Log what is refused in here, once, and raise it as RefusedError: by the program, by a trigger or a function
    of the schema, or for want of a privilege."""
    try:
        yield
    except RaiseException as error:
        problem, hint = error.diag.message_primary or str(error), error.diag.message_hint or ""
        raise refused(connection, action, version_key, problem, hint, reason=reason) from None
    except InsufficientPrivilege as error:
        refused(connection, action, version_key, error.diag.message_primary or str(error), reason=reason)
        raise
    except RefusedError as error:
        if not error.recorded:
            refused(connection, action, version_key, error.problem, reason=reason)
            error.recorded = True
        raise


def entries(connection: Connection, *, limit: int = 100, version_key: str | None = None) -> list[AuditEntry]:
    """All entries, newest first; only those of one version when its key is given."""
    with connection.cursor(row_factory=class_row(AuditEntry)) as cursor:
        return cursor.execute(
            """
            SELECT id, at, actor, client, application, action, version_key, outcome, reason, detail
            FROM audit_log
            WHERE %(key)s::text IS NULL OR version_key = %(key)s OR detail ->> 'from' = %(key)s
            ORDER BY id DESC LIMIT %(limit)s
            """,
            {"key": version_key, "limit": limit},
        ).fetchall()
