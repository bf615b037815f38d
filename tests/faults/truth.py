"""What must be true after every fault, counted and encoded again: revector's own figures are not trusted."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from revector.core.backfill.job.status import status as job_status
from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from revector.core.registry import Version, get_version, version_statuses
from tests.console.cli.program import Revector
from tests.faults.watch import Watch, wait_until

_SLICE = 5_000


def assert_whole(database: Database, version_key: str = "v1", *, written: bool = False) -> None:
    """Every live chunk has exactly one vector, of its own text; nothing is left over; every count is right.

    `written` says that applications wrote meanwhile. Where none did, the proof has found nothing that the workers
    had lost: it would have come back through the outbox.
    """
    with database.session("truth") as connection:
        version = get_version(connection, version_key)
        missing = f"""
            SELECT count(*) FROM document_chunks c
            WHERE NOT EXISTS (SELECT FROM {version.table_name} e WHERE e.chunk_id = c.id)
        """  # noqa: S608
        assert number(connection, missing) == 0
        assert_right(connection, version)
        _assert_nothing_left(connection, version)
        _assert_proven(connection, version)
        _assert_counts(database, connection, version)
        if not written:
            assert number(connection, "SELECT outbox_done FROM backfill_jobs") == 0, "chunks were lost on the way"


def assert_counted(database: Database, version_key: str = "v1") -> None:
    """Every count is right, also half-way, as long as no worker or writer is active."""
    with database.session("truth") as connection:
        version = get_version(connection, version_key)
        wait_until("no worker's lock is left", lambda: number(connection, _WORKER_LOCKS) == 0)
        embedded = number(connection, f"SELECT count(*) FROM {version.table_name}")  # noqa: S608
        chunks = number(connection, "SELECT count(*) FROM document_chunks")
        (kept,) = [s for s in version_statuses(connection) if s.version == version]
        assert (kept.embedded, kept.missing, kept.failed) == (embedded, chunks - embedded, 0)
        status = job_status(connection, version)
        assert status is not None
        assert (status.total, status.done, status.failed) == (chunks, embedded, 0)
        assert status.pending == chunks - embedded


def assert_right(connection: Connection, version: Version) -> None:
    """Every vector belongs to a chunk, is its only one, and equals what a new encoder makes of the chunk's text."""
    table = version.table_name
    of_none = (
        f"SELECT count(*) FROM {table} e WHERE NOT EXISTS (SELECT FROM document_chunks c WHERE c.id = e.chunk_id)"  # noqa: S608
    )
    assert number(connection, of_none) == 0, "vectors of no chunk"
    assert number(connection, f"SELECT count(*) - count(DISTINCT chunk_id) FROM {table}") == 0  # noqa: S608
    encoder = open_encoder(version.encoder_spec)
    last = -1
    while rows := connection.execute(
        f"""
        SELECT c.id, c.content, e.embedding::real[] FROM document_chunks c JOIN {table} e ON e.chunk_id = c.id
        WHERE c.id > %s ORDER BY c.id LIMIT {_SLICE}
        """,  # type: ignore[arg-type]  # noqa: S608
        [last],
    ).fetchall():
        stored = np.array([row[2] for row in rows], np.float32)
        fresh = encoder.encode_documents([row[1] for row in rows])
        wrong = ~np.isclose(stored, fresh, rtol=1e-4, atol=1e-5).all(axis=1)
        assert not wrong.any(), (
            f"{wrong.sum()} of {len(rows)} vectors are not their texts': {rows[wrong.argmax()][:2]}"
        )
        last = rows[-1][0]
    encoder.close()


def _assert_nothing_left(connection: Connection, version: Version) -> None:
    assert number(connection, "SELECT count(*) FROM dead_letters") == 0
    assert number(connection, "SELECT count(*) FROM chunk_outbox") == 0
    assert number(connection, "SELECT sum(delta) FROM row_counts WHERE scope = %s", -version.id) == 0
    assert connection.execute("SELECT id, state FROM backfill_ranges WHERE state <> 'done'").fetchall() == []
    # The server may still be busy ending the session of a killed process.
    wait_until("no worker's lock is left", lambda: number(connection, _WORKER_LOCKS) == 0)


_WORKER_LOCKS = """
    SELECT count(*) FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.objsubid = 2
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.classid::bigint = (hashtext('backfill ' || current_schema())::bigint & 4294967295)
"""


def _assert_proven(connection: Connection, version: Version) -> None:
    assert version.state == "loaded"
    assert version.completed_at is not None
    assert version.proven_at is not None
    keys = connection.execute(
        "SELECT convalidated FROM pg_constraint WHERE conrelid = to_regclass(%s) AND contype = 'f'",
        [version.table_name],
    ).fetchall()
    assert keys == [(True,)]


def _assert_counts(database: Database, connection: Connection, version: Version) -> None:
    embedded = number(connection, f"SELECT count(*) FROM {version.table_name}")  # noqa: S608
    stored = embedded + number(connection, "SELECT sum(number) FROM vectors_deleted")
    status = Watch(database, version.version_key).status()
    assert status is not None
    assert (status.state, status.error, status.throttle) == ("done", None, None)
    assert (status.total, status.done, status.failed, status.pending) == (stored, stored, 0, 0)
    assert status.workers == 0
    # The program says the same; nothing of these tests' own settings reaches it.
    with tempfile.TemporaryDirectory() as folder:
        program = Revector(Path(folder), ("--dsn", database.dsn, "--schema", database.schema))
        said = program.call("backfill", "status", version.version_key, "--json").document
        listed = program.call("versions", "list", "--json").document
    expected: dict[str, Any] = {
        "state": "done", "total": stored, "done": stored, "failed": 0, "pending": 0, "workers": 0,
    }  # fmt: skip
    assert {name: said[name] for name in expected} == expected
    (row,) = [row for row in listed["versions"] if row["version_key"] == version.version_key]
    assert (row["embedded"], row["missing"], row["state"]) == (embedded, 0, "loaded")
    chunks = number(connection, "SELECT count(*) FROM document_chunks")
    assert chunks == embedded == number(connection, "SELECT sum(delta) FROM row_counts WHERE scope = 0")


def number(connection: Connection, query: str, *values: object) -> int:
    """The one number of a query; 0 for NULL."""
    row = connection.execute(query, values).fetchone()  # type: ignore[arg-type]
    assert row is not None
    return int(row[0] or 0)
