"""Dead letters: the chunks that an encoder could not embed, to be retried or waived."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Annotated

from revector.core import audit
from revector.core.database import Connection, fetch_as
from revector.core.errors import UsageError
from revector.core.registry import Version


@dataclass(frozen=True)
class Failure:
    """A dead letter: a chunk that the encoder could not embed."""

    chunk_id: Annotated[int, "the chunk"]
    source_id: Annotated[str, "its document"]
    chunk_no: Annotated[int, "its place in the document"]
    error: Annotated[str, "what the encoder said"]
    attempts: Annotated[int, "how often it was tried"]
    failed_at: Annotated[datetime.datetime, "when it was last tried"]
    waived_reason: Annotated[str | None, "why it may be missing; null when it may not"]


def failures(connection: Connection, version: Version, *, limit: int = 100) -> list[Failure]:
    """The dead letters of a version, newest first."""
    return fetch_as(
        connection,
        Failure,
        """
        SELECT d.chunk_id, c.source_id, c.chunk_no, d.error, d.attempts, d.failed_at, d.waived_reason
        FROM dead_letters d JOIN document_chunks c ON c.id = d.chunk_id
        WHERE d.embedding_version_id = %s ORDER BY d.failed_at DESC, d.chunk_id LIMIT %s
        """,
        [version.id, limit],
    )


def retry_failures(connection: Connection, version: Version) -> int:
    """Queue all dead letters that are not waived for another try; returns how many. The next backfill run takes
    them."""
    with connection.transaction():
        moved = connection.execute(
            """
            INSERT INTO chunk_outbox (embedding_version_id, chunk_id)
            SELECT embedding_version_id, chunk_id FROM dead_letters
            WHERE embedding_version_id = %s AND waived_reason IS NULL
            ON CONFLICT DO NOTHING
            """,
            [version.id],
        ).rowcount
        if moved:
            audit.record(connection, "backfill retry", version.version_key, detail={"chunks": moved})
    return moved


def waive_failure(connection: Connection, version: Version, chunk_id: int, reason: str) -> None:
    """Accept that a chunk has no vector in this version, with a reason that stays in the log.

    Raises UsageError when the chunk is not a dead letter of the version or the reason is empty.
    """
    if not reason.strip():
        raise UsageError("A waiver needs a reason.", "Say why the chunk may be missing: --reason TEXT")
    with connection.transaction():
        updated = connection.execute(
            """
            UPDATE dead_letters SET waived_by = session_user, waived_reason = %s
            WHERE embedding_version_id = %s AND chunk_id = %s
            """,
            [reason, version.id, chunk_id],
        )
        if updated.rowcount == 0:
            raise UsageError(f"Chunk {chunk_id} is not a dead letter of version {version.version_key}.")
        audit.record(
            connection, "backfill waive", version.version_key, reason=reason, detail={"chunk_id": chunk_id}
        )
