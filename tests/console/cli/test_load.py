"""`revector load`, as a person or a script calls it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg import sql

from revector.core.database import Connection, Database
from revector.core.registry import get_version
from tests.console.cli.program import Revector, finish
from tests.vector_files import expected, new_chunks, new_version, random_vectors, stored, write_npy


def test_a_load_and_what_it_answers(
    revector: Revector, database: Database, connection: Connection, tmp_path: Path
) -> None:
    ids, keys = new_chunks(connection, 20)
    version = new_version(connection)
    vectors = random_vectors(20)
    path = write_npy(tmp_path, vectors[:10], np.append(ids[:9], 999_999))
    found = revector.run("load", "v1", "vectors.npy", "--json")
    one = {
        "version_key": "v1", "source": "vectors.npy", "rows": 10, "stored": 9, "present": 0, "unknown": 1,
        "duplicates": 0, "bad": 0, "compared": 0, "missing": 11, "state": "backfilling",
    }  # fmt: skip
    why = "the version has no encoder that revector can open"
    assert found.document == one | {"not_compared": why, "without": [], "files": [one]}
    assert found.err == (
        "Next: embed the 11 chunks missing, prove that the version is complete, and build the index: "
        "revector backfill run v1\n"
    )
    shown = revector.call("load", "v1", str(path)).out
    assert (
        f"v1: 10 rows of {path}: 0 stored, 9 had a vector already, 1 for unknown chunks, 0 duplicate, 0 bad.\n"
        in shown
    )
    assert "v1 is backfilling, 11 chunks missing.\n" in shown

    table = pa.table({"key": keys, "v": pa.array(list(vectors), pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "rest.parquet")
    arguments = ("load", "v1", "rest.parquet", "--id-column", "key", "--vector-column", "v", "--json")
    assert revector.call(*arguments).document.items() >= {"stored": 11, "present": 9, "missing": 0}.items()
    assert stored(connection, version) == expected(ids, vectors)
    assert "prove that the version is complete" in revector.call(*arguments).err
    log = revector.call("log", "--json", "--version", "v1").document["entries"]
    assert [entry["action"] for entry in log[:2]] == ["load", "load start"]


def test_a_bad_row(revector: Revector, connection: Connection, tmp_path: Path) -> None:
    ids, _ = new_chunks(connection, 20)
    new_version(connection)
    vectors = random_vectors(20)
    vectors[7, 2] = np.inf
    write_npy(tmp_path, vectors)
    (tmp_path / "ids").write_text("\n".join(map(str, ids)))
    refused = revector.call("load", "v1", "vectors.npy", "--ids", "ids", status=1)
    assert refused.out == ""
    assert f"row 7 (counted from 0), chunk id {ids[7]}, has inf at position 2.\n" in refused.err
    assert "--skip-bad" in refused.err
    skipped = revector.call("load", "v1", "vectors.npy", "--ids", "ids", "--skip-bad", "--json").document
    assert skipped.items() >= {"stored": 19, "bad": 1, "missing": 1}.items()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("v1 no.npy", 2, "There is no file 'no.npy'."),
        ("v1 .", 2, "text.npy is no file of vectors"),
        ("v1 text.npy", 2, "text.npy is no file of vectors"),
        ("v1 vectors.npy --ids no", 2, "There is no file 'no'."),
        ("v1 vectors.npy --id-column a", 2, "has no columns"),
        ("v1 wide.npy --ids vectors.ids.npy", 2, "has vectors of 9 dimensions; version v1 has 8"),
        ("v11 vectors.npy", 2, "Did you mean v1"),
        ("v2 vectors.npy", 1, "Version v2 is retired"),
        ("v1", 2, "Missing argument"),
        ("v1 vectors.npy --no-such-option", 2, "No such option"),
    ],
)
def test_what_is_refused(
    revector: Revector, connection: Connection, tmp_path: Path, arguments: str, status: int, message: str
) -> None:
    ids, _ = new_chunks(connection, 3)
    new_version(connection)
    new_version(connection, "v2")
    connection.execute("UPDATE embedding_versions SET state = 'retired' WHERE version_key = 'v2'")
    write_npy(tmp_path, random_vectors(3), ids)
    np.save(tmp_path / "wide.npy", random_vectors(3, 9))
    (tmp_path / "text.npy").write_text("no vectors")
    refused = revector.call("load", *arguments.split(), "--json", status=status)
    assert refused.error["problem"] in refused.err
    assert message in refused.err
    assert get_version(connection, "v1").state == "registered"
    assert connection.execute("SELECT count(*) FROM vector_loads").fetchone() == (0,)


def test_a_read_only_session_loads_nothing(revector: Revector, connection: Connection, tmp_path: Path) -> None:
    ids, _ = new_chunks(connection, 3)
    version = new_version(connection)
    write_npy(tmp_path, random_vectors(3), ids)
    refused = revector.with_options("--read-only").call("load", "v1", "vectors.npy", status=1)
    assert refused.err.startswith("This session is read-only: nothing was changed.\n")
    assert stored(connection, version) == {}


def test_ctrl_c_and_the_same_command_again(
    revector: Revector, database: Database, connection: Connection, tmp_path: Path
) -> None:
    ids, _ = new_chunks(connection, 20_000)
    version = new_version(connection)
    vectors = random_vectors(20_000)
    write_npy(tmp_path, vectors, ids)
    assert (
        revector.call("load", "v1", "vectors.npy", "--ids", "vectors.ids.npy", "--json").document["rows"] == 20_000
    )
    connection.execute("TRUNCATE vector_loads")
    connection.execute(
        sql.SQL("ALTER TABLE {} DISABLE TRIGGER vectors_never_change_truncate").format(version.table)
    )
    connection.execute(sql.SQL("TRUNCATE {}").format(version.table))
    with database.session("test") as other, other.transaction(force_rollback=True):
        # In the third of three slices, where the load then waits.
        other.execute(
            sql.SQL("INSERT INTO {} VALUES (%s, %s)").format(version.table),
            [int(ids[19_000]), str([1.0] * 8)],
        )
        process = revector.start("load", "v1", "vectors.npy", "--json")
        while not connection.execute(
            "SELECT FROM pg_stat_activity WHERE application_name = 'revector load' AND wait_event_type = 'Lock'"
        ).rowcount:
            assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        stopped = finish(process, 130)
    assert "Interrupted; nothing is lost." in stopped.err
    again = revector.run("load", "v1", "vectors.npy", "--json")
    assert again.document.items() >= {"stored": 20_000, "present": 0, "missing": 0}.items()
    assert again.err.startswith("Resumed at row 16,384.\n")
    assert stored(connection, version) == expected(ids, vectors)
