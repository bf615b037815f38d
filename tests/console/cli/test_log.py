"""Every command that changes something leaves its entry in the log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from revector.core import audit, shadow
from revector.core.backfill.job.job import find_job, open_job
from revector.core.database import Connection, Database, fetch_one
from revector.core.encoders import open_encoder
from revector.core.evaluation.judging import cross_encoder
from revector.core.evaluation.judging.cross_encoder import Labels
from revector.core.registry import get_version
from revector.core.roles import granting
from tests.console.cli.conftest import on, write_corpus
from tests.console.cli.program import Revector
from tests.console.cli.test_contract import COMMANDS
from tests.login_roles import login_role
from tests.vector_files import write_npy

READING = {
    "backfill plan", "backfill status", "compare", "encoders list", "cutover check", "cutover guards",
    "cutover history",
    "cutover requests", "db roles", "db status", "doctor", "evaluations list", "export", "evaluations runs",
    "evaluations show", "index check", "index plan", "index prewarm", "info", "log", "queries agreement",
    "queries export", "queries list", "queries show", "search", "serve", "serving", "shadow report",
    "shadow status", "thresholds", "versions list", "versions show",
}  # fmt: skip
"""Commands that change nothing in a collection."""
OUTSIDE = {"db up", "db down", "db upgrade", "demo"}
"""Those that concern the server, or make the collection that the log is in."""


Left = tuple[str, str | None] | tuple[str, str | None, str]
"""An entry: its action, its version, and its outcome unless that is `done`."""


class Story:
    """Commands in order, and the log entries of each."""

    def __init__(self, revector: Revector, connection: Connection) -> None:
        self.typed: set[str] = set()
        self._revector, self._connection = revector, connection

    def leaves(self, command: str, *expected: Left, status: int = 0, by: Revector | None = None) -> None:
        """The command leaves these entries and no others."""
        (before,) = fetch_one(self._connection, "SELECT coalesce(max(id), 0) FROM audit_log")
        words = command.split(" ")
        (by or self._revector).call(*words, status=status)
        self.typed |= {name for name in (" ".join(words[:2]), words[0]) if name in COMMANDS}
        entries = [one for one in audit.entries(self._connection)[::-1] if one.id > before]
        found = [
            (one.action, one.version_key, *([] if one.outcome == "done" else [one.outcome])) for one in entries
        ]
        assert found == list(expected), command


def test_every_command_that_changes_something_leaves_its_entry(
    revector: Revector, database: Database, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_encoder, "CrossEncoderJudge", Lenient)
    story = Story(revector, connection)
    _versions_and_backfills(story, connection, tmp_path)
    _evidence(story, connection, tmp_path)
    _cutovers(story, database, connection, tmp_path)
    assert story.typed == COMMANDS.keys() - READING - OUTSIDE


def _versions_and_backfills(story: Story, connection: Connection, folder: Path) -> None:
    story.leaves(f"ingest {write_corpus(folder / 'corpus.jsonl')}", ("ingest", None))
    story.leaves("versions add v1 --encoder static:wordllama-64", ("versions add", "v1"))
    story.leaves("backfill run v1", ("backfill start", "v1"), ("backfill", "v1"), ("index build", "v1"))
    story.leaves("backfill set v1 --max-rate 50000", ("backfill set", "v1"))
    story.leaves("backfill set v1 --max-rate 50000")  # which it is already
    story.leaves("index set v1 --ef-search 120 --m 8", ("index set", "v1"))
    story.leaves("index set v1")  # which only shows them
    story.leaves("index drop v1", ("index drop", "v1"))
    story.leaves("index build v1", ("index build", "v1"))
    story.leaves("backfill cancel v1", ("backfill cancel", "v1", "refused"), status=1)  # it is done
    connection.execute(
        """
        INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, distance_metric)
        VALUES ('by-sql', 'by-hand', '1', 64, 'cosine')
        """
    )
    story.leaves("versions adopt by-sql --encoder static:wordllama-64", ("versions adopt", "by-sql"))
    changed = "versions change by-sql --encoder static:wordllama-256"
    story.leaves(changed, ("versions change", "by-sql", "refused"), status=1)
    story.leaves("encoders allow e.example", ("encoders allow", None))
    story.leaves("encoders deny e.example", ("encoders deny", None))
    job = open_job(connection, get_version(connection, "by-sql"))
    assert job.state == "running"
    story.leaves("backfill pause by-sql", ("backfill pause", "by-sql"))
    story.leaves(
        "backfill resume by-sql", ("backfill resume", "by-sql"), ("backfill", "by-sql"), ("index build", "by-sql")
    )
    story.leaves("versions retire by-sql --confirm by-sql", ("versions retire", "by-sql"))
    story.leaves("versions drop by-sql --confirm by-sql", ("versions drop", "by-sql"))

    story.leaves("versions add v2 --encoder static:wordllama-256", ("versions add", "v2"))
    open_job(connection, get_version(connection, "v2"))
    story.leaves("backfill cancel v2", ("backfill cancel", "v2"))
    rows = connection.execute("SELECT id, content FROM document_chunks ORDER BY id LIMIT 4").fetchall()
    chunks = [row[0] for row in rows]
    vectors = open_encoder("static:wordllama-256").encode_documents([row[1] for row in rows[:2]])
    story.leaves(
        f"load v2 {write_npy(folder, vectors, np.array(chunks[:2]))}", ("load start", "v2"), ("load", "v2")
    )
    for chunk in chunks[2:4]:
        connection.execute(
            "INSERT INTO dead_letters (embedding_version_id, chunk_id, error) VALUES (%s, %s, 'no')",
            [get_version(connection, "v2").id, chunk],
        )
    story.leaves(f"backfill failures v2 --waive {chunks[2]} --reason known", ("backfill waive", "v2"))
    story.leaves("backfill failures v2 --retry", ("backfill retry", "v2"))
    connection.execute("DELETE FROM dead_letters")  # a request takes 95% of the vectors
    story.leaves("backfill run v2", ("backfill resume", "v2"), ("backfill", "v2"), ("index build", "v2"))


def _evidence(story: Story, connection: Connection, folder: Path) -> None:
    story.leaves("cutover run v1 --confirm v1", ("cutover", "v1"))
    (folder / "queries.jsonl").write_text('{"_id": "1", "text": "rotate a key"}\n{"_id": "2", "text": "bread"}\n')
    (folder / "qrels.txt").write_text("1 0 doc-0 1\n2 0 doc-10 1\n")
    story.leaves(
        f"queries import set --queries {folder / 'queries.jsonl'} --qrels {folder / 'qrels.txt'}",
        ("queries import", None), ("judgements import", None),
    )  # fmt: skip
    story.leaves("evaluate set --candidate v2", ("evaluate run", "v1"), ("evaluate run", "v2"), ("evaluate", "v2"))
    story.leaves("evaluations compare 1 2", ("evaluate", "v2"))
    story.leaves("judge set --judge cross-encoder:x --candidate v2", ("judge", None))
    story.leaves("shadow start v2 --confirm v2 --sample 1 --query-text stored", ("shadow start", "v2"))
    _shadowed(connection, "v1", 1)
    story.leaves("shadow judge look", ("queries import", None), ("shadow judge", None))
    story.leaves("shadow stop", ("shadow stop", "v2"))


def _cutovers(story: Story, database: Database, connection: Connection, folder: Path) -> None:
    story.leaves("cutover policy approvals=1 evaluation=off", ("cutover policy", None))
    story.leaves("cutover request v2 --reason better", ("cutover request", "v2"))
    story.leaves("cutover approve v2", ("cutover approve", "v2", "refused"), status=1)  # one's own
    story.leaves("cutover withdraw v2 --reason later", ("cutover withdraw", "v2"))
    story.leaves("cutover request v2 --reason better", ("cutover request", "v2"))
    story.leaves("cutover run v2 --confirm v2", ("cutover", "v2", "refused"), status=1)
    with login_role(connection, database, "bob") as bob:
        story.leaves("cutover approve v2", ("cutover approve", "v2"), by=on(bob, folder))
        story.leaves("cutover run v2 --confirm v2", ("cutover", "v2"))  # while bob may approve
    story.leaves("rollback --confirm v1", ("rollback", "v1"))
    story.leaves("cutover policy approvals=0 min_overlap=0.5 auto_rollback=true", ("cutover policy", None))
    shadow.start(connection, "v2")
    story.leaves("cutover run v2 --confirm v2", ("cutover", "v2"))  # in whose shadow v1 runs now
    _shadowed(connection, "v2", 20)
    story.leaves("cutover watch --once", ("rollback", "v1"), status=1)
    story.leaves("versions retire v2 --confirm v2 --reason old", ("versions retire", "v2"))
    story.leaves("queries drop set --confirm set", ("queries drop", None))
    connection.execute("CREATE ROLE somebody")
    try:
        story.leaves("db grant somebody viewer", ("db grant", None))
        story.leaves("db grant somebody viewer --revoke", ("db revoke", None))
    finally:
        connection.execute("DROP ROLE somebody")


def test_what_is_refused_leaves_its_entry(
    revector: Revector, database: Database, connection: Connection, tmp_path: Path
) -> None:
    with login_role(connection, database, "ann") as ann:
        granting.grant(connection, f"ann of {database.schema}", "operator")
        story, by = Story(revector, connection), on(ann, tmp_path)
        story.leaves("versions add v1 --encoder static:wordllama-64", ("versions add", "v1"), by=by)
        for command, action, key in (
            ("cutover run v1 --confirm v", "cutover", "v1"),
            ("versions drop v1 --confirm v", "versions drop", "v1"),
            ("versions add v2 --encoder openai:x?base_url=https://e.example", "versions add", "v2"),
            ("cutover policy approvals=0", "cutover policy", None),
            ("encoders allow e.example", "encoders allow", None),
            ("encoders deny e.example", "encoders deny", None),
            ("db grant nobody approver", "db grant", None),
        ):
            story.leaves(command, (action, key, "refused"), status=1, by=by)
        connection.execute(
            "INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, encoder_spec, dimensions, "
            "distance_metric) VALUES ('far', 'far', '1', 'openai:x?base_url=https://e.example', 64, 'cosine')"
        )
        story.leaves("backfill run far", ("backfill start", "far", "refused"), status=1, by=by)
        assert find_job(connection, get_version(connection, "far")) is None


def _shadowed(connection: Connection, primary: str, queries: int) -> None:
    """Queries of whose answers the two versions share nothing."""
    connection.execute(
        """
        INSERT INTO shadow_queries (shadow_id, primary_version, query, k, primary_keys, candidate_keys, overlap, rbo,
                                    primary_ms)
        SELECT id, %s, 'a query', 10, '{a}', '{b}', 0, 0, 1
        FROM shadows, generate_series(1, %s) WHERE stopped_at IS NULL
        """,
        [primary, queries],
    )


class Lenient:
    """Stands for a cross-encoder that finds every text relevant."""

    name, revision, batch_size = "lenient", "1", 8

    def __init__(self, spec: str) -> None:
        self.spec = spec

    def label(self, pairs: Sequence[tuple[str, str]]) -> Labels:
        return Labels(np.ones(len(pairs), np.int64), np.ones(len(pairs)))

    def close(self) -> None: ...
