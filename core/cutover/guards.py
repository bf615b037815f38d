"""The guards before a flip, in one table: each looks at one thing, and says its figure and what to do."""

from __future__ import annotations

from collections.abc import Callable

from core import index
from core.cutover.guard import Check, Guard
from core.database import SOUND_PGVECTOR, Connection, fetch_one, version_tuple
from core.registry import Version, embedded_count, get_version

_SMALL_TABLE_ROWS = 10_000
"""Below this a scan of the table takes milliseconds and is exact, so that the planner may rightly prefer it."""


def check(connection: Connection, key: str) -> Check:
    """Run every guard for a version. Raises UsageError for a key nobody has."""
    version = get_version(connection, key)
    return Check(key, tuple(guard(connection, version) for guard in GUARDS))


def _complete(connection: Connection, version: Version) -> Guard:
    """No chunk is missing, nothing waits in the outbox, no chunk was given up on without a waiver."""
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


def _dimensions(connection: Connection, version: Version) -> Guard:
    """The table's vectors have the version's dimensions and type, and its encoder can be named."""
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


def _index_valid(connection: Connection, version: Version) -> Guard:
    """The index is there and its build was not cut off."""
    state = index.inspect(connection, version)
    remedy = f"revector index build {version.version_key}"
    if not state.exists:
        return Guard("index valid", "fail", "there is no index", remedy)
    if not state.valid:
        return Guard("index valid", "fail", f"{state.name} is invalid: its build was cut off", remedy)
    return Guard("index valid", "pass", f"{state.name}, {state.bytes / 1e6:,.1f} MB")


def _index_used(connection: Connection, version: Version) -> Guard:
    """The planner answers a top-10 search from the index."""
    if not index.inspect(connection, version).exists:
        return Guard("index used", "fail", "there is no index", f"revector index build {version.version_key}")
    found = index.use(connection, version)
    if found.used:
        return Guard("index used", "pass", found.node)
    rows = embedded_count(connection, version)
    if rows <= _SMALL_TABLE_ROWS:
        return Guard(
            "index used", "pass", f"{found.node}: with {rows:,} rows the planner prefers to scan them all"
        )
    return Guard(
        "index used", "fail", f"the planner takes a {found.node} over {rows:,} rows",
        f"ANALYZE {version.table_name}, and look at random_page_cost and effective_cache_size.",
    )  # fmt: skip


def _pgvector_sound(connection: Connection, _version: Version) -> Guard:
    """The server's pgvector has no known fault in vacuuming HNSW indexes."""
    (found,) = fetch_one(connection, "SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    if version_tuple(found) < SOUND_PGVECTOR:
        sound = ".".join(map(str, SOUND_PGVECTOR))
        return Guard(
            "pgvector", "pass", f"warning: {found}, whose vacuum can damage HNSW indexes; mended in {sound}",
            "Update pgvector: ALTER EXTENSION vector UPDATE",
        )  # fmt: skip
    return Guard("pgvector", "pass", found)


GUARDS: tuple[Callable[[Connection, Version], Guard], ...] = (
    _complete,
    _dimensions,
    _index_valid,
    _index_used,
    _pgvector_sound,
)

CHANGING_GUARDS = (_complete, _index_valid)
"""Cheap, and liable to change between the check and the flip."""
