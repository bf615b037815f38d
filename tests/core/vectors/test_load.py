"""Loading vectors made elsewhere: nothing lost, nothing twice, with kills and concurrent writers."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from psycopg import sql

from revector.core.audit import entries
from revector.core.backfill.job.settings import JobSettings
from revector.core.database import Connection, Database
from revector.core.errors import RefusedError, UsageError
from revector.core.registry import (
    Version,
    create_table,
    embedded_count,
    get_version,
    retire_version,
    version_statuses,
)
from revector.core.vectors import slices
from revector.core.vectors.files import open_vectors
from revector.core.vectors.load import load as load_files
from revector.core.vectors.report import LoadReport
from revector.core.vectors.seen import Seen
from revector.core.vectors.slices import VectorFile
from tests.encoders import Stub
from tests.vector_files import DIMENSIONS, expected, new_chunks, new_version, random_vectors, stored, write_npy
from tests.versions import worker_on

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "_SLICE_ROWS", 10)


def counts(report: LoadReport) -> tuple[int, ...]:
    """rows, stored, present, unknown, duplicates, bad; which have to add up."""
    found = (report.rows, report.stored, report.present, report.unknown, report.duplicates, report.bad)
    assert found[0] == sum(found[1:])
    return found


def load(database: Database, version: Version, file: VectorFile, **options: Any) -> LoadReport:
    """A load of one file."""
    return load_files(database, version, [file], **options)


def assert_counted(connection: Connection, version: Version) -> None:
    """The stored count of the version's vectors is right."""
    query = sql.SQL("SELECT count(*) FROM {}").format(version.table)
    assert connection.execute(query).fetchone() == (embedded_count(connection, version),)


def write_parquet(folder: Path, vectors: NDArray[Any], ids: Any, column: str) -> Path:
    path = folder / "vectors.parquet"
    kind = pa.list_(pa.from_numpy_dtype(vectors.dtype))
    pq.write_table(pa.table({column: ids, "embedding": pa.array(list(vectors), kind)}), path, row_group_size=33)
    return path


def write(folder: Path, form: str, vectors: NDArray[Any], ids: NDArray[np.int64], keys: list[str]) -> Path:
    """The vectors as a file of that form."""
    if form == "parquet of ids":
        return write_parquet(folder, vectors, ids, "chunk_id")
    if form == "parquet of keys":
        return write_parquet(folder, vectors, keys, "semantic_key")
    if form == "npy of ids":
        return write_npy(folder, vectors, ids)
    if form == "npy of keys":
        return write_npy(folder, vectors, np.array(keys))
    (folder / "vectors.ids.txt").write_text("\n".join(map(str, ids) if form == "text of ids" else keys))
    return write_npy(folder, vectors)


FORMS = ["npy of ids", "npy of keys", "text of ids", "text of keys", "parquet of ids", "parquet of keys"]


# -- what is stored ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["vector", "halfvec"])
@pytest.mark.parametrize("number", ["f2", "f4", "f8"])
@pytest.mark.parametrize("form", FORMS)
def test_every_chunk_gets_its_vector(
    database: Database, connection: Connection, tmp_path: Path, form: str, number: str, storage: str
) -> None:
    ids, keys = new_chunks(connection, 100)
    version = new_version(connection, storage=storage)
    order = np.random.default_rng(0).permutation(100) if "keys" in form else np.arange(100)
    vectors = random_vectors(100).astype(number)
    path = write(tmp_path, form, vectors[order], ids[order], [keys[row] for row in order])
    report = load(database, version, open_vectors(path))
    assert counts(report) == (100, 100, 0, 0, 0, 0)
    assert (report.missing, report.state, report.resumed_at) == (0, "backfilling", 0)
    assert stored(connection, version) == expected(ids, vectors, storage)
    assert_counted(connection, version)
    again = load(database, version, open_vectors(path))
    assert counts(again) == (100, 0, 100, 0, 0, 0)
    assert stored(connection, version) == expected(ids, vectors, storage)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shuffled", [False, True])
def test_what_is_counted(
    database: Database, connection: Connection, tmp_path: Path, form: str, shuffled: bool
) -> None:
    """Present, unknown, duplicate within a slice and across the file, where the first row of a chunk wins."""
    ids, keys = new_chunks(connection, 60)
    version = new_version(connection)
    before = random_vectors(10, seed=1)
    load(database, version, open_vectors(write_npy(tmp_path, before, ids[:10])))
    (tmp_path / "vectors.ids.npy").unlink()

    rows = [*range(50), 3, 20, 20, 49, *range(12, 20)]  # 0 to 9 are present, 50 to 59 not in the file
    if shuffled:
        np.random.default_rng(3).shuffle(rows)
    vectors = random_vectors(len(rows) + 7)
    file_ids = np.append(ids[rows], np.arange(7) + 10_000_000)
    file_keys = [keys[row] for row in rows] + [f"{n:064x}" for n in range(7)]
    report = load(database, version, open_vectors(write(tmp_path, form, vectors, file_ids, file_keys)))
    assert counts(report) == (69, 40, 10, 7, 12, 0)
    assert report.missing == 10
    first = [rows.index(row) for row in range(10, 50)]
    wanted = expected(ids[:10], before) | expected(ids[10:50], vectors[first])
    assert stored(connection, version) == wanted
    assert_counted(connection, version)


def test_a_version_without_chunks_and_a_file_without_rows(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    version = new_version(connection)
    assert counts(load(database, version, open_vectors(write_npy(tmp_path, random_vectors(3), np.arange(3))))) == (
        3, 0, 0, 3, 0, 0,
    )  # fmt: skip
    empty = open_vectors(write_npy(tmp_path, random_vectors(0), np.arange(0)))
    assert counts(load(database, version, empty)) == (0, 0, 0, 0, 0, 0)


def test_odd_chunk_ids(database: Database, connection: Connection, tmp_path: Path) -> None:
    """Far apart, as large as they get, and not in the database."""
    ids, _ = new_chunks(connection, 4)
    far = np.array([-(2**63), -5, 0, 2**40, 2**63 - 1], dtype=np.int64)
    connection.execute(
        """
        INSERT INTO document_chunks (id, semantic_key, document_id, chunk_no, content, content_sha256)
        SELECT n, 'key ' || n, gen_random_uuid(), 0, 'x' || n, '' FROM unnest(%s::bigint[]) AS n
        """,
        [far.tolist()],
    )
    version = new_version(connection)
    all_ids = np.concatenate([far, ids, far[::-1], [77, -(2**62)]])
    vectors = random_vectors(len(all_ids))
    report = load(database, version, open_vectors(write_npy(tmp_path, vectors, all_ids)))
    assert counts(report)[:2] == (16, 9)
    assert (report.unknown, report.present + report.duplicates) == (2, 5)
    assert stored(connection, version) == expected(np.concatenate([far, ids]), vectors[:9])


# -- states --------------------------------------------------------------------------------------------------


def test_new_chunks_reach_the_version_from_the_first_slice_on(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    ids, _ = new_chunks(connection, 30)
    version = new_version(connection)
    late: list[int] = []

    def progress(_step: str, _done: int, _total: int) -> None:
        late.extend(new_chunks(connection, 1, 1_000 + len(late))[0].tolist())

    report = load(
        database, version, open_vectors(write_npy(tmp_path, random_vectors(30), ids)), on_progress=progress
    )
    waiting = connection.execute("SELECT chunk_id FROM chunk_outbox WHERE embedding_version_id = %s", [version.id])
    assert [row[0] for row in waiting] == late
    assert len(late) == report.missing == 3


def test_what_is_stored_leaves_the_outbox_and_the_dead_letters(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    ids, _ = new_chunks(connection, 30)
    version, other = new_version(connection), new_version(connection, "v2")
    for one in (version, other):
        connection.execute("UPDATE embedding_versions SET state = 'backfilling' WHERE id = %s", [one.id])
    new, _ = new_chunks(connection, 5, 1_000)  # queued for both
    connection.execute(
        """
        INSERT INTO dead_letters (embedding_version_id, chunk_id, error)
        SELECT v.id, c.id, 'too long' FROM embedding_versions v, document_chunks c WHERE c.id = ANY(%s)
        """,
        [ids[:4].tolist()],
    )
    file = np.concatenate([ids[2:], new[1:]])
    load(database, version, open_vectors(write_npy(tmp_path, random_vectors(len(file)), file)))
    left = {}
    for queue in ("chunk_outbox", "dead_letters"):
        for one in (version, other):
            rows = connection.execute(
                sql.SQL("SELECT chunk_id FROM {} WHERE embedding_version_id = %s ORDER BY 1").format(
                    sql.Identifier(queue)
                ),
                [one.id],
            )
            left[queue, one.version_key] = [row[0] for row in rows]
    assert left == {
        ("chunk_outbox", "v1"): new[:1].tolist(), ("chunk_outbox", "v2"): new.tolist(),
        ("dead_letters", "v1"): ids[:2].tolist(), ("dead_letters", "v2"): ids[:4].tolist(),
    }  # fmt: skip
    assert version_statuses(connection)[0].failed == 2


def test_a_retired_version_takes_nothing(database: Database, connection: Connection, tmp_path: Path) -> None:
    ids, _ = new_chunks(connection, 30)
    version = new_version(connection)
    file = open_vectors(write_npy(tmp_path, random_vectors(30), ids))

    def retire(_step: str, _done: int, _total: int) -> None:
        retire_version(connection, "v1")

    with pytest.raises(RefusedError, match="v1 was retired"):
        load(database, version, file, on_progress=retire)
    assert len(stored(connection, version)) == 10
    with pytest.raises(RefusedError, match="is retired"):
        load(database, version, file)
    assert_counted(connection, version)


def test_an_active_version_takes_only_what_it_lacks(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    ids, _ = new_chunks(connection, 30)
    version = new_version(connection)
    vectors = random_vectors(30)
    load(database, version, open_vectors(write_npy(tmp_path, vectors, ids)))
    connection.execute("UPDATE embedding_versions SET completed_at = now()")
    connection.execute("UPDATE embedding_versions SET active = true")
    file = open_vectors(write_npy(tmp_path, random_vectors(30, seed=1), ids))
    with pytest.raises(RefusedError, match="v1 is active and complete"):
        load(database, version, file)
    new, _ = new_chunks(connection, 5, 1_000)
    every = np.append(ids, new)
    others = random_vectors(35, seed=2)
    report = load(database, version, open_vectors(write_npy(tmp_path, others, every)))
    assert counts(report) == (35, 5, 30, 0, 0, 0)
    assert (report.state, report.missing) == ("active", 0)
    assert stored(connection, version) == expected(ids, vectors) | expected(new, others[30:])


def test_a_version_dropped_meanwhile(database: Database, connection: Connection, tmp_path: Path) -> None:
    ids, _ = new_chunks(connection, 30)
    version = new_version(connection)
    create_table(connection, version)

    def drop(_step: str, _done: int, _total: int) -> None:
        connection.execute(sql.SQL("DROP TABLE {} CASCADE").format(version.table))

    with pytest.raises(RefusedError, match="was dropped while"):
        load(database, version, open_vectors(write_npy(tmp_path, random_vectors(30), ids)), on_progress=drop)


def test_a_load_is_in_the_log(database: Database, connection: Connection, tmp_path: Path) -> None:
    ids, _ = new_chunks(connection, 30)
    version = new_version(connection)
    vectors = random_vectors(30)
    vectors[25] = 0
    path = write_npy(tmp_path, vectors, ids)
    with pytest.raises(RefusedError):
        load(database, version, open_vectors(path))
    load(database, version, open_vectors(path), skip_bad=True)
    done, resumed, failed, started = entries(connection, limit=4)
    assert [e.action for e in (started, failed, resumed, done)] == ["load start", "load", "load start", "load"]
    assert started.detail == {"source": str(path), "rows": 30, "first": 0}
    assert (failed.outcome, failed.detail["stored"]) == ("failed", 20)
    assert "row 25" in failed.reason
    assert resumed.detail["first"] == 20
    assert (done.outcome, done.version_key) == ("done", "v1")
    assert done.detail.items() >= {"stored": 29, "bad": 1, "missing": 1, "rows": 30}.items()


# -- what is refused -----------------------------------------------------------------------------------------


def test_other_dimensions(database: Database, connection: Connection, tmp_path: Path) -> None:
    ids, _ = new_chunks(connection, 3)
    version = new_version(connection)
    vectors = random_vectors(3, 9)
    for path in (write_npy(tmp_path, vectors, ids), write_parquet(tmp_path, vectors, ids, "chunk_id")):
        with pytest.raises(UsageError, match="has vectors of 9 dimensions; version v1 has 8"):
            load(database, version, open_vectors(path))
    assert get_version(connection, "v1").state == "registered"
    assert connection.execute("SELECT count(*) FROM vector_loads").fetchone() == (0,)


@pytest.mark.parametrize(
    ("storage", "number", "why"),
    [("vector", np.nan, "has nan at position 3"), ("vector", 0, "is all zeros"), ("halfvec", 1e6, "beyond")],
)
def test_a_bad_row_stops_the_load_with_its_number(
    database: Database, connection: Connection, tmp_path: Path, storage: str, number: float, why: str
) -> None:
    ids, _ = new_chunks(connection, 30)
    version = new_version(connection, storage=storage)
    vectors = random_vectors(30)
    vectors[25] = 0
    vectors[25, 3] = number
    path = write_npy(tmp_path, vectors, ids)
    with pytest.raises(RefusedError, match=rf"row 25 \(counted from 0\), chunk id {ids[25]}, .*{why}") as caught:
        load(database, version, open_vectors(path))
    assert "The rows before 20 are loaded" in caught.value.remedy
    assert stored(connection, version) == expected(ids[:20], vectors[:20], storage)
    good = np.arange(30) != 25
    report = load(database, version, open_vectors(path), skip_bad=True)
    assert counts(report) == (30, 29, 0, 0, 0, 1)
    assert (report.resumed_at, report.missing) == (20, 1)
    assert stored(connection, version) == expected(ids[good], vectors[good], storage)


def test_a_bad_row_is_named_by_its_semantic_key_and_a_later_good_one_stored(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    ids, keys = new_chunks(connection, 30)
    version = new_version(connection)
    vectors = random_vectors(31)
    vectors[4] = np.nan
    path = write_npy(tmp_path, vectors, np.array([*keys, keys[4]]))
    with pytest.raises(RefusedError, match=f"row 4 .*semantic key {keys[4]}"):
        load(database, version, open_vectors(path))
    assert counts(load(database, version, open_vectors(path), skip_bad=True)) == (31, 30, 0, 0, 0, 1)
    assert stored(connection, version)[int(ids[4])] == expected(ids[4:5], vectors[30:])[int(ids[4])]


# -- killed --------------------------------------------------------------------------------------------------

# A load process that reports each stored slice and then waits for permission to continue.
STEPPING_LOAD = """
import sys
from pathlib import Path
from revector.core.database import Database
from revector.core.registry import get_version
from revector.core.vectors import slices
from revector.core.vectors.files import open_vectors
from revector.core.vectors.load import load

slices._SLICE_ROWS = 10
database = Database(sys.argv[1], sys.argv[2])
with database.session("test") as connection:
    version = get_version(connection, "v1")

def progress(step, done, total):
    if step.startswith("loading"):
        print(done, flush=True)
        sys.stdin.readline()

load(database, version, [open_vectors(Path(sys.argv[3]))], skip_bad=True, on_progress=progress)
"""


class SteppingLoad:
    """That process."""

    def __init__(self, database: Database, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", STEPPING_LOAD, database.dsn, database.schema, str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip

    def stored(self) -> int:
        """The row that it has come to after its next slice."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.mark.parametrize("form", ["npy of ids", "npy of keys", "text of ids", "parquet of keys"])
def test_a_load_killed_after_any_slice_loses_and_repeats_nothing(
    database: Database, connection: Connection, tmp_path: Path, form: str
) -> None:
    ids, keys = new_chunks(connection, 120)
    version = new_version(connection)
    rows = np.random.default_rng(0).permutation(np.concatenate([np.arange(120), np.arange(30)]))
    vectors = random_vectors(150)
    bad = [17, 60, 149]
    vectors[bad] = np.nan
    path = write(tmp_path, form, vectors, ids[rows], [keys[row] for row in rows])
    cursor = 0
    for steps in (1, 2, 3):
        run = SteppingLoad(database, path)
        for step in range(1, steps + 1):
            cursor += 10
            assert run.stored() == cursor
            if step < steps:
                run.go_on()
        run.kill()
        assert connection.execute("SELECT cursor, state FROM vector_loads").fetchone() == (cursor, "running")
        assert_counted(connection, version)
    report = load(database, version, open_vectors(path), skip_bad=True)
    assert report.resumed_at == 60
    first = {int(row): place for place, row in reversed([*enumerate(rows)]) if place not in bad}
    wanted = expected(ids[[*first]], vectors[[*first.values()]])
    assert stored(connection, version) == wanted
    assert counts(report) == (150, len(first), 0, 0, 150 - 3 - len(first), 3)
    assert_counted(connection, version)
    assert connection.execute("SELECT cursor, state FROM vector_loads").fetchone() == (150, "done")


def wait_until_blocked(connection: Connection) -> None:
    """Until a load's session waits for another one's lock."""
    tries = 0
    while not connection.execute(
        "SELECT FROM pg_stat_activity WHERE application_name = 'revector load' AND wait_event_type = 'Lock'"
    ).rowcount:
        tries += 1
        assert tries < 100_000


def test_a_load_killed_within_a_slice_stores_nothing_of_it(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    ids, _ = new_chunks(connection, 30)
    version = new_version(connection)
    create_table(connection, version)
    vectors = random_vectors(30)
    path = write_npy(tmp_path, vectors, ids)
    with database.session("test") as other, other.transaction(force_rollback=True):
        insert_vector(other, version, int(ids[17]))  # in the middle of the second slice's COPY
        run = SteppingLoad(database, path)
        assert run.stored() == 10
        run.go_on()
        wait_until_blocked(connection)
        run.kill()
    assert stored(connection, version) == expected(ids[:10], vectors[:10])
    report = load(database, version, open_vectors(path))
    assert (report.resumed_at, counts(report)) == (10, (30, 30, 0, 0, 0, 0))
    assert stored(connection, version) == expected(ids, vectors)


def test_another_file_is_another_load(database: Database, connection: Connection, tmp_path: Path) -> None:
    ids, _ = new_chunks(connection, 60)
    version = new_version(connection)
    first, second = (tmp_path / name for name in ("a", "b"))
    for folder, part in ((first, slice(0, 40)), (second, slice(30, 60))):
        folder.mkdir()
        write_npy(folder, random_vectors(60)[part], ids[part])
    run = SteppingLoad(database, first / "vectors.npy")
    run.stored()
    run.kill()
    assert counts(load(database, version, open_vectors(second / "vectors.npy"))) == (30, 30, 0, 0, 0, 0)
    report = load(database, version, open_vectors(first / "vectors.npy"))
    assert (report.resumed_at, counts(report)) == (10, (40, 30, 10, 0, 0, 0))
    assert stored(connection, version) == expected(ids, random_vectors(60))


# -- beside others -------------------------------------------------------------------------------------------


def insert_vector(connection: Connection, version: Version, chunk_id: int) -> None:
    """A vector as a backfill would store it, counted."""
    connection.execute(
        sql.SQL("INSERT INTO {} (chunk_id, embedding) VALUES (%s, %s)").format(version.table),
        [chunk_id, str([1.0] * DIMENSIONS)],
    )
    connection.execute("INSERT INTO row_counts (scope, delta) VALUES (%s, 1)", [version.id])


def in_thread(action: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """The running action, and its future result."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(action())
        except Exception as error:  # noqa: BLE001  (the test looks at it)
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def test_two_loads_of_one_file(database: Database, connection: Connection, tmp_path: Path) -> None:
    ids, _ = new_chunks(connection, 30)
    version = new_version(connection)
    file = open_vectors(write_npy(tmp_path, random_vectors(30), ids))
    refused: list[str] = []

    def second(_step: str, _done: int, _total: int) -> None:
        if not refused:
            with pytest.raises(RefusedError) as caught:
                load(database, version, file)
            refused.append(caught.value.problem)

    assert counts(load(database, version, file, on_progress=second)) == (30, 30, 0, 0, 0, 0)
    assert "is being loaded into v1 by another session" in refused[0]


def test_a_cursor_that_another_moved_stops_the_load(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    """If the lock is lost, as behind some poolers, the current slice is not stored."""
    ids, _ = new_chunks(connection, 30)
    version = new_version(connection)

    def move(_step: str, _done: int, _total: int) -> None:
        connection.execute("UPDATE vector_loads SET cursor = cursor + 10")

    with pytest.raises(RefusedError, match="another session went on"):
        load(database, version, open_vectors(write_npy(tmp_path, random_vectors(30), ids)), on_progress=move)
    assert len(stored(connection, version)) == 10
    assert_counted(connection, version)


def test_a_chunk_that_is_being_stored_by_another(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    ids, _ = new_chunks(connection, 30)
    version = new_version(connection)
    create_table(connection, version)
    vectors = random_vectors(30)
    file = open_vectors(write_npy(tmp_path, vectors, ids))
    with database.session("test") as other:
        with other.transaction():
            insert_vector(other, version, int(ids[17]))
            thread, results = in_thread(lambda: load(database, version, file))
            wait_until_blocked(connection)
        thread.join()
    assert counts(results[0]) == (30, 29, 1, 0, 0, 0)
    others = np.arange(30) != 17
    ones = np.ones((1, DIMENSIONS))
    assert stored(connection, version) == expected(ids[others], vectors[others]) | expected(ids[17:18], ones)
    assert_counted(connection, version)


def test_a_chunk_that_is_being_deleted_by_another(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    """In a version that is proven already: its foreign key would refuse the vector."""
    ids, _ = new_chunks(connection, 30)
    version = new_version(connection)
    create_table(connection, version)
    connection.execute(
        sql.SQL("ALTER TABLE {} ADD FOREIGN KEY (chunk_id) REFERENCES document_chunks ON DELETE CASCADE").format(
            version.table
        )
    )
    vectors = random_vectors(30)
    file = open_vectors(write_npy(tmp_path, vectors, ids))
    with database.session("test") as other:
        with other.transaction():
            other.execute("DELETE FROM document_chunks WHERE id = %s", [int(ids[17])])
            thread, results = in_thread(lambda: load(database, version, file))
            wait_until_blocked(connection)
        thread.join()
    assert counts(results[0]) == (30, 29, 0, 1, 0, 0)
    others = np.arange(30) != 17
    assert stored(connection, version) == expected(ids[others], vectors[others])


def test_a_load_beside_a_backfill(database: Database, connection: Connection, tmp_path: Path) -> None:
    """Both write the same chunks, from opposite ends: each chunk has one vector, and all are counted."""
    ids, _ = new_chunks(connection, 3_000)
    version = new_version(connection)
    vectors = random_vectors(3_000)
    file = open_vectors(write_npy(tmp_path, vectors[::-1], ids[::-1]))
    begun = threading.Barrier(2)

    def backfill() -> Any:
        begun.wait()
        return worker_on(database, version, Stub(DIMENSIONS), JobSettings(batch_size=20)).join()

    thread, backfilled = in_thread(backfill)
    begun.wait()
    report = load(database, version, file)
    thread.join()
    assert getattr(backfilled[0], "state", backfilled[0]) == "done"
    assert counts(report)[0] == 3_000
    found = stored(connection, version)
    ours, ones = expected(ids, vectors), expected(ids, np.ones((3_000, DIMENSIONS)))
    assert found.keys() == ours.keys()
    from_file = [chunk for chunk in found if found[chunk] == ours[chunk]]
    assert len(from_file) == report.stored
    assert all(found[chunk] == ones[chunk] for chunk in found.keys() - set(from_file))
    assert_counted(connection, version)


def test_a_backfill_completes_and_proves_what_the_file_left(
    database: Database, connection: Connection, tmp_path: Path
) -> None:
    ids, _ = new_chunks(connection, 50)
    version = new_version(connection)
    vectors = random_vectors(30)
    load(database, version, open_vectors(write_npy(tmp_path, vectors, ids[:30])))
    status = worker_on(database, get_version(connection, "v1"), Stub(DIMENSIONS), JobSettings()).join()
    assert (status.state, status.done) == ("done", 20)
    assert get_version(connection, "v1").state == "loaded"
    wanted = expected(ids[:30], vectors) | expected(ids[30:], np.ones((20, DIMENSIONS)))
    assert stored(connection, version) == wanted
    assert [(s.embedded, s.missing) for s in version_statuses(connection)] == [(50, 0)]


# -- memory --------------------------------------------------------------------------------------------------

# The peak is read from /proc: that of getrusage begins with what the process that started this one had.
MEASURED_LOAD = """
import re, sys
from pathlib import Path
from revector.core.database import Database
from revector.core.registry import get_version
from revector.core.vectors.files import open_vectors
from revector.core.vectors.load import load

def peak_kb():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

database = Database(sys.argv[1], sys.argv[2])
with database.session("test") as connection:
    version = get_version(connection, "v1")
if sys.argv[3].endswith("parquet"):
    import pyarrow.compute, pyarrow.parquet
before = peak_kb()
report = load(database, version, [open_vectors(Path(sys.argv[3]))])
print(report.rows, report.stored, peak_kb() - before)
"""


@pytest.mark.parametrize("form", ["npy", "parquet"])
def test_memory_does_not_grow_with_the_file(
    database: Database, connection: Connection, tmp_path: Path, form: str
) -> None:
    """200 MB, in one row group, of which a part only is of chunks: the reading is what is measured."""
    rows, dimensions = 50_000, 1_024
    ids, _ = new_chunks(connection, 5_000)
    new_version(connection, dimensions=dimensions)
    vectors = random_vectors(rows, dimensions)
    all_ids = np.concatenate([ids, np.arange(rows - len(ids)) + 10_000_000])
    path = write_npy(tmp_path, vectors, all_ids)
    if form == "parquet":
        path = tmp_path / "vectors.parquet"
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimensions)
        pq.write_table(pa.table({"chunk_id": all_ids, "embedding": column}), path, row_group_size=rows)
    assert path.stat().st_size > 200_000_000
    result = subprocess.run(
        [sys.executable, "-c", MEASURED_LOAD, database.dsn, database.schema, str(path)],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    found, loaded, grown = map(int, result.stdout.split())
    assert grown < 100_000, grown
    assert (found, loaded) == (rows, 5_000)


def test_seen_is_a_bit_a_chunk() -> None:
    seen = Seen(-5, 1_000)
    ids = np.array([-5, 0, 7, 8, 1_000], dtype=np.int64)
    seen.add(ids, 9)
    every = np.arange(-10, 1_010)
    assert every[seen.has(every)].tolist() == ids.tolist()
    assert seen.rows == 9
    huge = Seen(-(2**63), 2**63 - 1)
    huge.add(np.array([-(2**63), 2**63 - 1], dtype=np.int64), 2)
    assert huge.has(np.array([-(2**63), -1, 2**63 - 1], dtype=np.int64)).tolist() == [True, False, False]
