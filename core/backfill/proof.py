"""The proof that a version lacks no chunk: one anti-join each way, exact counts, and the foreign key."""

from __future__ import annotations

from psycopg import IsolationLevel, sql

from core.database import Connection, fetch_one
from core.registry import Version


def prove(connection: Connection, version: Version) -> int:
    """Look for chunks that the version lacks, and queue them; returns how many were found (0: it is proven).

    With none missing the version's table gets its foreign key, its row count is made exact, and the version is
    marked as complete. A chunk with a dead letter does not count as missing: the guards look at those.
    """
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
        return missing
    _add_foreign_key(connection, version)
    _count_exactly(connection, version)
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


def _add_foreign_key(connection: Connection, version: Version) -> None:
    """After the load, since a COPY into a table with this key takes twice as long.

    NOT VALID first: that needs its lock for an instant only; VALIDATE then reads beside all writes.
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
    if found is None or not found[0]:
        # A batch that was being written while its chunk was deleted leaves a vector without a chunk.
        connection.execute(
            sql.SQL(
                "DELETE FROM {} e WHERE NOT EXISTS (SELECT FROM document_chunks c WHERE c.id = e.chunk_id)"
            ).format(version.table)
        )
        connection.execute(sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(version.table, constraint))


def _count_exactly(connection: Connection, version: Version) -> None:
    # In one snapshot: deltas committed after it are neither in the count nor deleted, so none is lost.
    before = connection.isolation_level
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    try:
        with connection.transaction():
            (rows,) = fetch_one(connection, sql.SQL("SELECT count(*) FROM {}").format(version.table))
            connection.execute("DELETE FROM row_counts WHERE scope = %s", [version.id])
            connection.execute("INSERT INTO row_counts (scope, delta) VALUES (%s, %s)", [version.id, rows])
    finally:
        connection.isolation_level = before
