"""Guards on a version's data: its chunks, the dimensions of its vectors, and the server's pgvector."""

from __future__ import annotations

from revector.core.cutover.guard import Found, GuardRule, Subject, fails, passes
from revector.core.database import SOUND_PGVECTOR, fetch_one, version_tuple


def _complete(subject: Subject) -> Found:
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
        return fails(f"{figures}; no backfill has finished yet", run_it)
    if failed:
        return fails(
            f"chunks that could not be embedded: {failed:,}",
            f"revector backfill failures {version.version_key}",
        )
    if missing > 0 or waiting:
        return fails(f"{figures}; {max(missing, waiting)} missing", run_it)
    if chunks == 0:
        return fails("the collection has no chunks", "revector ingest PATH")
    proven = f"{version.proven_at:%Y-%m-%d %H:%M}" if version.proven_at else "never"
    return passes(f"{figures}, proven {proven}")


def _dimensions(subject: Subject) -> Found:
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
        return fails(
            f"the table has {found}, the version is registered as {expected}",
            "Register the version again under another key.",
        )
    if not version.encoder_spec:
        return fails(
            "the version has no encoder, so queries cannot be encoded",
            f"revector versions adopt {version.version_key} --encoder SPEC",
        )
    return passes(f"{expected}, encoder {version.encoder_spec}")


def _pgvector(subject: Subject) -> Found:
    (found,) = fetch_one(subject.connection, "SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    if version_tuple(found) < SOUND_PGVECTOR:
        sound = ".".join(map(str, SOUND_PGVECTOR))
        return passes(
            f"warning: {found}, whose vacuum can damage HNSW indexes; fixed in {sound}",
            "Update pgvector: ALTER EXTENSION vector UPDATE",
        )
    return passes(found)


RULES = (
    GuardRule(
        "complete",
        "Every chunk has a vector or a waiver, and nothing waits in the outbox.",
        _complete, in_flip=True, waivable=False, looks_at=("version", "counts"),
    ),
    GuardRule(
        "dimensions",
        "The table's vectors have the version's type and dimensions, and the version has an encoder.",
        _dimensions, in_flip=True, waivable=False, looks_at=("version",),
    ),
    GuardRule(
        "pgvector", "The server's pgvector, with a warning where vacuum can damage HNSW indexes.",
        _pgvector, looks_at=("server",),
    ),
)  # fmt: skip
