"""The whole story on a server that is not the embedded one: Postgres 16, as a role that owns only its own schema."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from revector.core.database import Database
from revector.core.retrieval import Retriever
from tests.console.cli.conftest import TEXTS, write_corpus
from tests.console.cli.program import Revector
from tests.older_server import older_server

pytestmark = pytest.mark.database


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    """The owner of an empty database."""
    with older_server() as superuser:
        with psycopg.connect(superuser, autocommit=True) as connection:
            connection.execute("CREATE ROLE plain LOGIN")
            connection.execute("CREATE DATABASE library OWNER plain")
        with psycopg.connect(superuser.replace("/postgres?", "/library?"), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        yield superuser.replace("postgres@/postgres?", "plain@/library?")


def test_the_whole_story_on_an_older_server(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    revector = Revector(tmp_path, ("--dsn", dsn))
    refused = revector.call("versions", "list", status=4)
    assert "has not been set up" in refused.err
    status = revector.call("db", "upgrade", "--json").document
    assert status["server"].startswith("16.")

    write_corpus(tmp_path / "corpus.jsonl")
    assert "12 inserted" in revector.call("ingest", "corpus.jsonl").out
    for key, encoder in (("v1", "static:wordllama-64"), ("v2", "static:wordllama-256")):
        assert "Registered" in revector.call("versions", "add", key, "--encoder", encoder).out
        assert f"{key}: done" in revector.call("backfill", "run", key).out
    assert "v1 is active (was none)" in revector.call("cutover", "run", "v1", "--confirm", "v1").out
    write_corpus(tmp_path / "corpus.jsonl", [*TEXTS[:-1], "The museum is closed."])
    assert "1 inserted, 11 unchanged, 1 deleted" in revector.call("ingest", "corpus.jsonl").out
    for key in ("v1", "v2"):
        assert f"{key}: done" in revector.call("backfill", "run", key).out

    assert "overlap@10" in revector.call("compare", "closed on Sundays").out
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "rotate an api key"}\n')
    (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tdoc-0\t1\n")
    revector.call("queries", "import", "few", "--queries", "queries.jsonl", "--qrels", "qrels.tsv")
    assert (
        revector.call("evaluate", "few", "--candidate", "v2", "--json").document["primary"]["version_key"] == "v1"
    )

    assert "v2 is ready" in revector.call("cutover", "check", "v2").out
    assert "v2 is active (was v1)" in revector.call("cutover", "run", "v2", "--confirm", "v2").out
    assert "✗" not in revector.call("doctor").out  # its catalogue shows nothing that differs
    with Retriever(Database(dsn), timeout_s=60) as retriever:
        for way in ({}, {"hybrid": True}, {"where": {"a": {"$exists": False}}}):
            found = retriever.search("how do I rotate an api key", 3, **way)  # type: ignore[arg-type]
            assert (found.version_key, found.active) == ("v2", True)
        assert retriever.search("how do I rotate an api key", 3).hits[0].source_id == "doc-0"
    assert "v1 is active (was v2)" in revector.call("rollback", "--confirm", "v1").out
    assert revector.call("search", "museum", "--hybrid", "--json").document["version_key"] == "v1"
    assert "v1: active, 12 chunks" in revector.call("doctor").out
