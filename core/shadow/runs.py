"""Starting and stopping a shadow of users' traffic. One runs at a time; every process with a Mirror follows its row."""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, LiteralString, get_args

import psycopg
from psycopg import sql

from revector.core import audit
from revector.core.database import Connection, fetch_as
from revector.core.errors import RefusedError, UsageError
from revector.core.registry import embedded_count, get_version, require_active
from revector.core.retrieval.statements import no_vectors
from revector.core.shadow.store import forget_expired

QueryText = Literal["stored", "hashed", "omitted"]
"""What is stored of a query: its text and a keyed SHA-256, only that, or neither."""
QUERY_TEXTS: tuple[QueryText, ...] = get_args(QueryText)

MAX_RETENTION_DAYS = 3_650.0


@dataclass(frozen=True)
class ShadowRun:
    """A shadow: some of users' queries are searched by the candidate too."""

    id: int
    candidate: Annotated[str, "the version that searches too"]
    version_id: int
    sample: Annotated[float, "the share of queries that it gets"]
    query_text: Annotated[QueryText, "what is kept of a query: stored, hashed or omitted"]
    retention_days: Annotated[float, "days after which its queries are deleted"]
    started_at: Annotated[datetime.datetime, "when it began"]
    started_by: Annotated[str, "who began it"]
    reason: Annotated[str, "why"]
    stopped_at: Annotated[datetime.datetime | None, "null while it runs"]

    @property
    def shadow(self) -> Annotated[int, "its number"]:
        """`id`, as documents call it."""
        return self.id


_SELECT = sql.SQL(
    """
    SELECT s.id, v.version_key AS candidate, v.id AS version_id, s.sample, s.query_text, s.retention_days,
           s.started_at, s.started_by, s.reason, s.stopped_at
    FROM shadows s JOIN embedding_versions v ON v.id = s.embedding_version_id
    """
)


def running(connection: Connection) -> ShadowRun | None:
    """The running shadow, or None."""
    return _one(connection, "WHERE s.stopped_at IS NULL")


def latest(connection: Connection) -> ShadowRun | None:
    """The running shadow, or else the last one."""
    return running(connection) or _one(connection, "ORDER BY s.stopped_at DESC, s.id DESC LIMIT 1")


def get_run(connection: Connection, shadow_id: int) -> ShadowRun:
    """A shadow by its number. Raises UsageError when there is none."""
    found = _one(connection, "WHERE s.id = %s", [shadow_id])
    if found is None:
        raise UsageError(f"There is no shadow {shadow_id}.", "It goes with its version. revector shadow report")
    return found


def _one(connection: Connection, which: LiteralString, params: Any = None) -> ShadowRun | None:
    query = sql.SQL("{} {}").format(_SELECT, sql.SQL(which))
    return next(iter(fetch_as(connection, ShadowRun, query, params)), None)


def start(
    connection: Connection,
    candidate_key: str,
    *,
    sample: float = 0.1,
    query_text: str = "hashed",
    retention_days: float = 14.0,
    reason: str = "",
) -> ShadowRun:
    """Make every process with a Mirror send a sample of its queries to the candidate too.

    Raises UsageError for an unknown key or a setting out of range, RefusedError when a shadow is already running,
    no version is active, or the candidate is active, has no encoder or has no vectors.
    """
    check_settings(sample, query_text, retention_days)
    version = get_version(connection, candidate_key)
    active = require_active(connection)
    key = version.version_key
    if version.id == active.id:
        raise RefusedError(
            f"Version {key} is active: it answers users already.", "Shadow another version: revector versions list"
        )
    if not version.encoder_spec:
        raise RefusedError(
            f"Version {key} has no encoder that revector can open.",
            f"Give it one: revector versions adopt {key} --encoder SPEC",
        )
    if not embedded_count(connection, version):
        raise no_vectors(version)
    try:
        with connection.transaction():
            connection.execute(
                """
                INSERT INTO shadows (embedding_version_id, sample, query_text, retention_days, reason)
                VALUES (%s, %s, %s, %s, %s)
                """,
                [version.id, sample, query_text, retention_days, reason],
            )
            detail = {"sample": sample, "query_text": query_text, "retention_days": retention_days}
            audit.record(connection, "shadow start", key, reason=reason, detail=detail)
            started = running(connection)
            forget_expired(connection)
    except psycopg.errors.UniqueViolation:
        other = running(connection)
        name = f"of {other.candidate} " if other else ""
        raise RefusedError(f"A shadow {name}runs already.", "Stop it first: revector shadow stop") from None
    assert started is not None  # noqa: S101  (it was made in this transaction)
    return started


def stop(connection: Connection, *, reason: str = "") -> ShadowRun:
    """Stop the running shadow; its results are kept for the retention time.

    Raises RefusedError when none runs.
    """
    with connection.transaction():
        row = connection.execute(
            "UPDATE shadows SET stopped_at = clock_timestamp() WHERE stopped_at IS NULL RETURNING id"
        ).fetchone()
        if row is None:
            raise RefusedError("No shadow runs.", "Start one: revector shadow start KEY")
        found = get_run(connection, row[0])
        audit.record(connection, "shadow stop", found.candidate, reason=reason, detail={"shadow": found.id})
        forget_expired(connection)
    return found


def check_settings(sample: float, query_text: str, retention_days: float) -> None:
    """Raise UsageError for a setting out of range."""
    if not (math.isfinite(sample) and 0 < sample <= 1):
        raise UsageError(f"The sample is {sample:g}; expected a share above 0 and up to 1, such as 0.1.")
    if query_text not in QUERY_TEXTS:
        raise UsageError(f"Query text {query_text!r} is not known.", f"Expected one of {', '.join(QUERY_TEXTS)}.")
    if not (math.isfinite(retention_days) and 0 < retention_days <= MAX_RETENTION_DAYS):
        raise UsageError(f"The retention is {retention_days:g} days; expected above 0 and up to 3,650.")
