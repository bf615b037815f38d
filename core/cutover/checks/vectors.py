"""Guards on a version's data: its chunks, the dimensions of its vectors, and the server's pgvector."""

from __future__ import annotations

import contextlib
import math
import random

import psycopg
from psycopg import sql

from revector.core.cutover.guard import Found, GuardRule, Subject, fails, passes, unsure, would_see
from revector.core.database import SOUND_PGVECTOR, fetch_one, version_tuple
from revector.core.index.warming import page_sample
from revector.core.registry import chunk_count, embedded_count

_LOOK_S = 2.0
"""Within this all chunks are looked at, up to a few millions; of more, those on random pages."""
_LOOK_PAGES = 20_000
_LOOK_PAGES_IN_FLIP = 2_000
_CHUNKS_ON_A_PAGE = 100
"""The most that fit on one: a chunk takes at least 80 bytes."""
_NEEDED = 299
"""Random rows that show damage to 1 %."""


def _complete(subject: Subject) -> Found:
    connection, version = subject.connection, subject.version
    run_it = f"revector backfill run {version.version_key}"
    waiting, failed, waived, there = fetch_one(
        connection,
        """
        SELECT (SELECT count(*) FROM chunk_outbox WHERE embedding_version_id = %(id)s),
               (SELECT count(*) FILTER (WHERE waived_reason IS NULL) FROM dead_letters
                WHERE embedding_version_id = %(id)s),
               (SELECT count(*) FILTER (WHERE waived_reason IS NOT NULL) FROM dead_letters
                WHERE embedding_version_id = %(id)s),
               to_regclass(%(table)s) IS NOT NULL
        """,
        {"id": version.id, "table": version.table_name},
    )
    if not there:
        return fails("no table of vectors; no backfill has finished yet", run_it)
    share, seen, lacking = _looked_at(subject)
    chunks, missing, about = round(seen / share), lacking, ""
    if share < 1:  # the stored counts, which may be wrong, can only make it fail
        missing = max(lacking, chunk_count(connection) - embedded_count(connection, version) - waived)
        about = "about "
    figures = f"{about}{max(0, chunks - missing - waived):,} of {chunks:,} chunks embedded"
    figures += f", {waived} waived" if waived else ""
    if version.completed_at is None:
        return fails(f"{figures}; no backfill has finished yet", run_it)
    if failed:
        return fails(
            f"chunks that could not be embedded: {failed:,}",
            f"revector backfill failures {version.version_key}",
        )
    if missing or waiting:
        return fails(f"{figures}; {max(missing, waiting)} missing; {seen:,} looked at", run_it)
    if share == 1 and chunks == 0:
        return fails("the collection has no chunks", "revector ingest PATH")
    # What is missing may lie on few full pages: a full page counts as one row, and one with few as a part of it.
    looked = seen if share == 1 else seen // _CHUNKS_ON_A_PAGE
    if share < 1 and looked < _NEEDED and not subject.in_flip:
        return unsure(
            f"{figures}, but only {seen:,} on {share:.2%} of the pages could be looked at",
            "Try again when the server is less busy; VACUUM document_chunks.",
        )
    proven = f"{version.proven_at:%Y-%m-%d %H:%M}" if version.proven_at else "never"
    return passes(f"{figures}, proven {proven}; {seen:,} looked at: {would_see(looked, chunks)}")


def _looked_at(subject: Subject) -> tuple[float, int, int]:
    """The share of the pages of chunks that was looked at, the chunks on them, and how many of these have neither
    vector nor dead letter."""
    connection = subject.connection
    draw = random.Random()  # noqa: S311
    if subject.in_flip:
        return _look(subject, *page_sample(connection, "document_chunks", _LOOK_PAGES_IN_FLIP, draw))
    with contextlib.suppress(psycopg.errors.QueryCanceled), connection.transaction(force_rollback=True):
        (session,) = fetch_one(connection, "SELECT setting::int FROM pg_settings WHERE name = 'statement_timeout'")
        limit = min(session or math.inf, round(_LOOK_S * 1000))
        connection.execute("SELECT set_config('statement_timeout', %s, true)", [f"{limit}ms"])
        return _look(subject, sql.SQL(""), 1.0)
    return _look(subject, *page_sample(connection, "document_chunks", _LOOK_PAGES, draw))


def _look(subject: Subject, sample: sql.Composable, share: float) -> tuple[float, int, int]:
    query = sql.SQL(
        """
        SELECT count(*), count(*) FILTER (WHERE e.chunk_id IS NULL AND d.chunk_id IS NULL)
        FROM document_chunks c {} LEFT JOIN {} e ON e.chunk_id = c.id
        LEFT JOIN dead_letters d ON d.embedding_version_id = {} AND d.chunk_id = c.id
        """
    ).format(sample, subject.version.table, sql.Literal(subject.version.id))
    seen, lacking = fetch_one(subject.connection, query)
    return share, seen, lacking


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
        "Every chunk has a vector or a waiver, by a look at the tables themselves, and nothing waits in the outbox.",
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
