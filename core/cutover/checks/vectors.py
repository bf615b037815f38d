"""Guards on a version's data: its chunks, the dimensions of its vectors, and the server's pgvector."""

from __future__ import annotations

import random

from psycopg import sql

from revector.core.cutover.guard import Found, GuardRule, Subject, fails, passes, would_see
from revector.core.database import SOUND_PGVECTOR, fetch_one, version_tuple

_COUNTED_CHUNKS = 20_000
"""Up to this many chunks all are looked at, which takes some 10 ms; of more, as many random ids."""


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
                WHERE embedding_version_id = %(id)s),
               to_regclass(%(table)s) IS NOT NULL
        """,
        {"id": version.id, "table": version.table_name},
    )
    chunks, embedded, waiting, failed, waived, there = row
    missing = chunks - embedded - waived
    figures = f"{embedded:,} of {chunks:,} chunks embedded" + (f", {waived} waived" if waived else "")
    run_it = f"revector backfill run {version.version_key}"
    if version.completed_at is None or not there:
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
    seen, lacking = _looked_at(subject, chunks)
    if lacking:
        return fails(f"{figures}, but {lacking:,} of {seen:,} looked at have no vector", run_it)
    proven = f"{version.proven_at:%Y-%m-%d %H:%M}" if version.proven_at else "never"
    return passes(f"{figures}, proven {proven}; {seen:,} looked at: {would_see(seen, chunks)}")


def _looked_at(subject: Subject, chunks: int) -> tuple[int, int]:
    """How many chunks were looked at in the tables themselves, and how many have neither vector nor waiver."""
    first, last = fetch_one(subject.connection, "SELECT min(id), max(id) FROM document_chunks")
    some = chunks > _COUNTED_CHUNKS
    ids = [random.randint(first, last) for _ in range(_COUNTED_CHUNKS if some else 0)]  # noqa: S311
    seen, lacking = fetch_one(
        subject.connection,
        sql.SQL(
            """
            SELECT count(*), count(*) FILTER (WHERE e.chunk_id IS NULL AND d.chunk_id IS NULL)
            FROM document_chunks c LEFT JOIN {} e ON e.chunk_id = c.id
            LEFT JOIN dead_letters d ON d.embedding_version_id = {} AND d.chunk_id = c.id {}
            """
        ).format(
            subject.version.table,
            sql.Literal(subject.version.id),
            sql.SQL("WHERE c.id = ANY({})").format(sql.Literal(ids)) if some else sql.SQL(""),
        ),
    )
    return seen, lacking


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
        "Every chunk has a vector or a waiver, by the counts and in a look at the tables, and nothing waits in the "
        "outbox.",
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
