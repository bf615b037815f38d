"""A real standby: what reads works there, and what cannot says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from revector.core.database import Connection, Database
from revector.core.embedded import EmbeddedServer
from revector.core.retrieval import Retriever
from tests.console.cli.conftest import on, write_corpus
from tests.console.cli.program import Revector, timeless
from tests.core.backfill.steps import eventually
from tests.core.retrieval.collections import flip
from tests.standby import streaming_standby
from tests.versions import NUMBERS, add, add_chunks, ready_version

SAME = (
    "versions list", "versions show v1", "log", "search one -k 3", "compare one --candidate v2", "serving", "db roles",
    "backfill status v1", "index plan v1", "cutover history", "cutover policy", "encoders list", "evaluations list",
)  # fmt: skip
REFUSED = (
    "ingest corpus.jsonl", "versions add v4 --encoder static:wordllama-64", "backfill run v3", "index drop v2",
    "shadow start v2", "db upgrade", "cutover policy recall_queries=10", "db grant postgres operator",
)  # fmt: skip


def test_a_standby_is_searched_and_read(
    server: EmbeddedServer, revector: Revector, database: Database, connection: Connection, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    add_chunks(connection, NUMBERS)
    for key in ("v1", "v2"):
        ready_version(database, connection, key)
    add(connection, "v3")
    flip(connection, "v1")
    write_corpus(tmp_path / "corpus.jsonl")
    monkeypatch.chdir(tmp_path)
    with streaming_standby(server) as standby:
        read = replace(database, dsn=standby.dsn(str(conninfo_to_dict(database.dsn)["dbname"])))
        there = on(read, tmp_path)
        for command in SAME:
            direct, found = (one.call(*command.split()) for one in (revector, there))
            assert (timeless(found.out), found.err) == (timeless(direct.out), direct.err)
        assert "; a standby: searches and reads, nothing else" in there.call("doctor").out
        status = there.call("db", "status", "--json").document
        assert (status["standby"], status["read_only"]) == (True, True)
        assert "standby          no" in revector.call("db", "status").out
        assert "this server is itself a standby" in there.call("cutover", "check", "v2", status=3).out
        for command in REFUSED:
            assert f"{read.place} is a standby" in there.call(*command.split(), status=1).err

        with Retriever(read, timeout_s=60) as retriever:
            for key in ("v1", "v2"):
                flip(connection, key)
                eventually(lambda key=key: retriever.version is not None and retriever.version.version_key == key)  # type: ignore[misc]
                for hybrid in (False, True):
                    found_here = retriever.search("one", 3, hybrid=hybrid)
                    assert (found_here.version_key, found_here.hits[0].content) == (key, "one")
