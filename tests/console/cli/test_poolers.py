"""The command line behind pgbouncer: what works as without it, and what says that it needs a session of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from revector.core.database import Connection, Database
from revector.core.encoders import open_encoder
from tests.console.cli.conftest import on, write_corpus
from tests.console.cli.program import Revector, timeless
from tests.pooler import left_behind, pgbouncer
from tests.versions import NUMBERS, SPEC, add, add_chunks, backfill, ready_version

SAME = (
    "versions list", "cutover check v2", "cutover history", "cutover requests", "log", "serving", "search one -k 3",
    "backfill status v1", "index plan v1", "compare one --candidate v2", "encoders list", "versions show v1",
    "db roles", "queries list",
)  # fmt: skip
READ = (
    "doctor", "--read-only doctor", "cutover run v2 --dry-run", "db status", "search one --hybrid", "backfill plan v3",
    "index prewarm v1", "cutover watch --once",
)  # fmt: skip
CHANGES = (
    "versions add v4 --encoder static:wordllama-64", "shadow start v2", "shadow stop", "encoders allow example.org",
    "cutover policy recall_queries=100", "cutover run v2 --confirm v2", "rollback --confirm v1", "versions retire v2",
    "db grant postgres operator", "queries import more --queries queries.jsonl", "versions drop v2 --confirm v2",
)  # fmt: skip
NEED_A_SESSION = (
    "ingest corpus.jsonl", "load v3 v3.npy --ids ids.npy", "backfill run v3", "index build v5", "index drop v2",
    "evaluate numbers --candidate v5", "db upgrade",
)  # fmt: skip


@pytest.fixture
def numbers(database: Database, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """v1 active, v2 ready, v3 empty, v5 without its index, and files to read."""
    ids = add_chunks(connection, NUMBERS)
    for key in ("v1", "v2"):
        ready_version(database, connection, key)
    add(connection, "v3")
    backfill(database, add(connection, "v5"))
    connection.execute("UPDATE embedding_versions SET active = true WHERE version_key = 'v1'")
    write_corpus(tmp_path / "corpus.jsonl")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "one"}\n')
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tdoc-one\t1\n")
    np.save(tmp_path / "v3.npy", open_encoder(SPEC).encode_documents(list(NUMBERS)))
    np.save(tmp_path / "ids.npy", np.array(ids))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("numbers")
def test_what_reads_and_what_changes_rows_works_and_leaves_nothing(
    revector: Revector, database: Database, tmp_path: Path
) -> None:
    with pgbouncer(database, "transaction") as pooled:
        behind = on(pooled, tmp_path)
        for command in SAME:
            direct, found = (one.call(*command.split()) for one in (revector, behind))
            assert (timeless(found.out), found.err) == (timeless(direct.out), direct.err)
        for command in (*READ, *CHANGES):
            behind.call(*command.split())
        assert left_behind(pooled) == []


@pytest.mark.usefixtures("numbers")
def test_what_needs_a_session_says_so_and_changes_nothing(
    revector: Revector, database: Database, connection: Connection, tmp_path: Path
) -> None:
    revector.call("queries", "import", "numbers", "--queries", "queries.jsonl", "--qrels", "qrels.tsv")
    rows = "SELECT (SELECT count(*) FROM document_chunks), (SELECT count(*) FROM backfill_jobs)"
    before = connection.execute(rows).fetchone()
    with pgbouncer(database, "transaction") as pooled:
        place = pooled.place
        for command in NEED_A_SESSION:
            err = on(pooled, tmp_path).call(*command.split(), status=1).err
            assert f"needs a session of its own, and {place} is a pooler in transaction mode" in err
            assert "listens on port 5432" in err
        assert left_behind(pooled) == []
    assert connection.execute(rows).fetchone() == before


@pytest.mark.usefixtures("numbers")
def test_a_pooler_in_session_mode_gives_one(revector: Revector, database: Database, tmp_path: Path) -> None:
    revector.call("queries", "import", "numbers", "--queries", "queries.jsonl", "--qrels", "qrels.tsv")
    with pgbouncer(database, "session", sessions=20) as pooled:
        for command in NEED_A_SESSION:
            on(pooled, tmp_path).call(*command.split())
        assert left_behind(pooled, sessions=20) == []
