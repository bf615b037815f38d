"""The proof that a version lacks no chunk: one anti-join each way, exact counts, and the foreign key."""

from __future__ import annotations

import contextlib
import time

from psycopg import IsolationLevel, sql
from psycopg.errors import ForeignKeyViolation, SerializationFailure

from revector.core.backfill.job.job import Job, worker_lives
from revector.core.database import Connection, fetch_one
from revector.core.registry import Version, embedded_count


def prove(connection: Connection, version: Version) -> int:
    """Find chunks that the version lacks, and queue them; returns how many (0: proven complete).

    When none is missing, the version's table gets its foreign key, its row count is made exact, and the version is
    marked complete. A chunk with a dead letter does not count as missing: the guards check those. Every proof adds
    a row to backfill_proofs.
    """
    began = time.monotonic()
    # So that the passes below read the index and not every vector: freshly loaded pages are not marked
    # all-visible.
    connection.execute(sql.SQL("VACUUM (TRUNCATE FALSE) {}").format(version.table))
    missing = connection.execute(
        sql.SQL(
            """
            INSERT INTO chunk_outbox (embedding_version_id, chunk_id)
            SELECT {id}, c.id FROM document_chunks c
            WHERE NOT EXISTS (SELECT FROM {table} e WHERE e.chunk_id = c.id)
              AND NOT EXISTS (SELECT FROM dead_letters d
                              WHERE d.embedding_version_id = {id} AND d.chunk_id = c.id)
            ON CONFLICT DO NOTHING
            """
        ).format(id=sql.Literal(version.id), table=version.table)
    ).rowcount
    if missing:
        _record(connection, version, missing, embedded_count(connection, version), began)
        return missing
    _add_foreign_key(connection, version)
    embedded = _count_exactly(connection, version)
    _record(connection, version, 0, embedded, began)
    connection.execute(
        """
        UPDATE embedding_versions
        SET proven_at = clock_timestamp(), completed_at = coalesce(completed_at, clock_timestamp()),
            state = CASE WHEN state IN ('registered', 'backfilling') THEN 'loaded' ELSE state END
        WHERE id = %s
        """,
        [version.id],
    )
    return 0


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


def _record(connection: Connection, version: Version, missing: int, embedded: int, began: float) -> None:
    connection.execute(
        """
        INSERT INTO backfill_proofs (embedding_version_id, missing, embedded, dead_letters, seconds)
        VALUES (%(version)s, %(missing)s, %(embedded)s,
                (SELECT count(*) FROM dead_letters WHERE embedding_version_id = %(version)s), %(seconds)s)
        """,
        {
            "version": version.id,
            "missing": missing,
            "embedded": embedded,
            "seconds": time.monotonic() - began,
        },
    )


def _add_foreign_key(connection: Connection, version: Version) -> None:
    """Added after the load, since a COPY into a table with this key takes twice as long.

    NOT VALID first, which needs its lock only for an instant; VALIDATE then runs beside writes.
    """
    name = f"{version.table_name}_chunk_id_fkey"
    found = connection.execute(
        "SELECT convalidated FROM pg_constraint WHERE conname = %s AND conrelid = to_regclass(%s)",
        [name, version.table_name],
    ).fetchone()
    constraint = sql.Identifier(name)
    if found is None:
        with connection.transaction():
            connection.execute("SET LOCAL lock_timeout = '10s'")
            connection.execute(
                sql.SQL(
                    "ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY (chunk_id) "
                    "REFERENCES document_chunks (id) ON DELETE CASCADE NOT VALID"
                ).format(version.table, constraint)
            )
    if found is not None and found[0]:
        return
    validate = sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(version.table, constraint)
    try:
        connection.execute(validate)
    except ForeignKeyViolation:
        # A batch written while its chunk was deleted leaves a vector without a chunk.
        connection.execute(
            sql.SQL(
                "DELETE FROM {} e WHERE NOT EXISTS (SELECT FROM document_chunks c WHERE c.id = e.chunk_id)"
            ).format(version.table)
        )
        connection.execute(validate)


def _count_exactly(connection: Connection, version: Version) -> int:
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
                return int(rows)
    finally:
        connection.isolation_level = before
