"""The proof that a version lacks no chunk, and exact counts."""

from __future__ import annotations

import contextlib

from psycopg import IsolationLevel, sql
from psycopg.errors import SerializationFailure

from revector.core.backfill.job.job import Job, worker_lives
from revector.core.database import Connection, fetch_one
from revector.core.index import key_table
from revector.core.registry import Version


def prove(connection: Connection, version: Version) -> int:
    """Find chunks that the version lacks, and queue them; returns how many (0: proven complete).

    When none is missing, the version is marked complete, its table gets its foreign key, and its row count is made
    exact. A chunk with a dead letter does not count as missing: the guards check those. Every proof adds a row to
    backfill_proofs.
    """
    # So that the proof reads the index and not every vector: freshly loaded pages are not marked all-visible.
    # Without the right to do so (before Postgres 17 only the owner has it), Postgres skips it with a warning.
    connection.execute(sql.SQL("VACUUM (TRUNCATE FALSE) {}").format(version.table))
    (missing,) = fetch_one(connection, "SELECT missing FROM prove_version(%s)", [version.id])
    if not missing:
        key_table(connection, version)
        _count_exactly(connection, version)
    return int(missing)


def proven_within(connection: Connection, version: Version, seconds: float) -> bool:
    """Whether the last proof is no older than this and found nothing missing: new chunks come through the
    outbox."""
    row = connection.execute(
        """
        SELECT missing = 0 AND at > now() - %s * interval '1 second' FROM backfill_proofs
        WHERE embedding_version_id = %s ORDER BY id DESC LIMIT 1
        """,
        [seconds, version.id],
    ).fetchone()
    return bool(row and row[0])


def take_over_proof(connection: Connection, job: Job, lease_s: float) -> None:
    """Let the job run again when the proving worker is gone or has no heartbeat."""
    connection.execute(
        sql.SQL(
            """
            UPDATE backfill_jobs j SET state = 'running', proving_worker = NULL
            WHERE id = %s AND state = 'proving' AND NOT EXISTS (
                SELECT FROM backfill_workers w
                WHERE w.id = j.proving_worker AND w.seen_at > now() - %s * interval '1 second' AND {})
            """
        ).format(worker_lives(sql.SQL("w.id"))),
        [job.id, lease_s],
    )


def _count_exactly(connection: Connection, version: Version) -> None:
    # In one snapshot: deltas committed after it are neither counted nor deleted, so none is lost. If another
    # session folds deltas meanwhile, this fails and counts again.
    before = connection.isolation_level
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    try:
        while True:
            with contextlib.suppress(SerializationFailure), connection.transaction():
                (rows,) = fetch_one(connection, sql.SQL("SELECT count(*) FROM {}").format(version.table))
                connection.execute("DELETE FROM row_counts WHERE scope = %s", [version.id])
                connection.execute("INSERT INTO row_counts (scope, delta) VALUES (%s, %s)", [version.id, rows])
                return
    finally:
        connection.isolation_level = before
