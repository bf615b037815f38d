"""Guards on what a version holds: its chunks, the shape of its vectors, and the server's pgvector."""

from __future__ import annotations

from revector.core.cutover.guard import Guard, Subject
from revector.core.database import SOUND_PGVECTOR, fetch_one, version_tuple


def complete(subject: Subject) -> Guard:
    """No chunk is missing, nothing waits in the outbox, no chunk was given up on without a waiver."""
    connection, version = subject.connection, subject.version
    row = fetch_one(
        connection,
        """
        SELECT (SELECT coalesce(sum(delta), 0)::bigint FROM row_counts WHERE scope = 0),
               (SELECT coalesce(sum(delta), 0)::bigint FROM row_counts WHERE scope = %(id)s),
               (SELECT count(*) FROM chunk_outbox WHERE embedding_version_id = %(id)s),
               (SELECT count(*) FILTER (WHERE waived_reason IS NULL) FROM dead_letters
                WHERE embedding_version_id = %(id)s),
               (SELECT count(*) FILTER (WHERE waived_reason IS NOT NULL) FROM dead_letters
                WHERE embedding_version_id = %(id)s)
        """,
        {"id": version.id},
    )
    chunks, embedded, waiting, failed, waived = row
    missing = chunks - embedded - waived
    figures = f"{embedded:,} of {chunks:,} chunks embedded" + (f", {waived} waived" if waived else "")
    run_it = f"revector backfill run {version.version_key}"
    if version.completed_at is None:
        return Guard("complete", "fail", f"{figures}; no backfill has finished yet", run_it)
    if failed:
        return Guard(
            "complete", "fail", f"chunks that could not be embedded: {failed:,}",
            f"revector backfill failures {version.version_key}",
        )  # fmt: skip
    if missing > 0 or waiting:
        return Guard("complete", "fail", f"{figures}; {max(missing, waiting)} missing", run_it)
    if chunks == 0:
        return Guard("complete", "fail", "the collection has no chunks", "revector ingest PATH")
    proven = f"{version.proven_at:%Y-%m-%d %H:%M}" if version.proven_at else "never"
    return Guard("complete", "pass", f"{figures}, proven {proven}")


def dimensions(subject: Subject) -> Guard:
    """The table's vectors have the version's dimensions and type, and its encoder can be named."""
    connection, version = subject.connection, subject.version
    row = connection.execute(
        """
        SELECT format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = to_regclass(%s) AND attname = 'embedding' AND NOT attisdropped
        """,
        [version.table_name],
    ).fetchone()
    found = row[0].rpartition(".")[2] if row else "no table"
    expected = f"{version.storage}({version.dimensions})"
    if found != expected:
        return Guard(
            "dimensions", "fail", f"the table holds {found}, the version says {expected}",
            "Register the version again under another key.",
        )  # fmt: skip
    if not version.encoder_spec:
        return Guard(
            "dimensions", "fail", "the version names no encoder, so that no query could be encoded",
            f"revector versions adopt {version.version_key} --encoder SPEC",
        )  # fmt: skip
    return Guard("dimensions", "pass", f"{expected}, encoder {version.encoder_spec}")


def pgvector(subject: Subject) -> Guard:
    """The server's pgvector has no known fault in vacuuming HNSW indexes."""

    (found,) = fetch_one(subject.connection, "SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    if version_tuple(found) < SOUND_PGVECTOR:
        sound = ".".join(map(str, SOUND_PGVECTOR))
        return Guard(
            "pgvector", "pass", f"warning: {found}, whose vacuum can damage HNSW indexes; mended in {sound}",
            "Update pgvector: ALTER EXTENSION vector UPDATE",
        )  # fmt: skip
    return Guard("pgvector", "pass", found)
