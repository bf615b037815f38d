"""The embedded default: the program's own server, and the demo on it from start to end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from revector.core import embedded
from revector.core.database import Connection, Database, require_schema
from revector.core.errors import RefusedError, UnreachableError
from revector.core.registry import chunk_count, versions
from tests.console.cli.program import Revector
from tests.databases import as_of_development
from tests.versions import add, add_chunks

pytestmark = pytest.mark.database


@pytest.fixture(scope="module")
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Revector]:
    """The program without a database, and an empty home."""
    folder = tmp_path_factory.mktemp("own")
    try:
        yield Revector(folder, (), (("REVECTOR_HOME", str(folder / "home")),))
    finally:
        embedded.stop(folder / "home")


def test_the_embedded_server_comes_and_goes(own_home: Revector) -> None:
    asked = own_home.run("db", "status", status=4)
    assert asked.err == "The embedded server is not running.\nStart it: revector db up\n"
    assert not (own_home.folder / "home" / "postgres").exists()  # a query must not start the server
    assert "read-only" in own_home.with_options("--read-only").run("db", "up", status=1).err

    up = own_home.run("db", "up", "--json")
    assert up.document["embedded"] is True
    assert up.document["schema_revision"]
    assert "starting the server" in up.err
    again = own_home.run("db", "up", "--json")
    assert (again.document, again.err) == (up.document, "")
    assert own_home.call("db", "status", "--json").document == up.document
    assert "No embedding version is registered yet." in own_home.call("versions", "list").out

    mistyped = own_home.with_options("--schema", "revektor")
    for command in ("versions list", "ingest .", "doctor"):
        refused = mistyped.call(*command.split(), status=1 if command == "doctor" else 4)
        assert "The schema 'revektor' has not been set up in this database." in refused.out + refused.err
        assert "revector --schema revektor db upgrade" in refused.out + refused.err
        assert "holds a collection (--schema, REVECTOR_SCHEMA): revector\n" in refused.out + refused.err
    assert mistyped.call("db", "status", "--json").document["schema_revision"] is None, "it was not made"
    mistyped.call("db", "up")
    assert "No embedding version is registered yet." in mistyped.call("versions", "list").out

    assert "read-only" in own_home.with_options("--read-only").call("db", "down", status=1).err
    server = embedded.status(own_home.folder / "home")
    assert server is not None
    with Database(server.dsn, "revector").connect("console") as connection:
        pid = connection.info.backend_pid
        down = own_home.call("db", "down", "--json")
    assert down.document == {"stopped": True}
    assert down.err == f"Sessions that have lost the server: revector console (backend {pid}).\n"
    again = own_home.call("db", "down", "--json")
    assert (again.document, again.err) == ({"stopped": False}, "")
    assert own_home.call("db", "status", status=4).out == ""


def test_up_and_down_are_not_for_a_server_of_ones_own(library: Revector) -> None:
    for command in ("up", "down"):
        refused = library.call("db", command, status=2)
        assert "is for the embedded server" in refused.err
        assert "Leave out --dsn" in refused.err


def test_the_demo_tells_the_whole_story_twice(own_home: Revector) -> None:
    result = own_home.run("demo", "--headless", "--json")
    told = result.document
    assert told["chunks"] > 4_000

    overall, *segments = told["evaluation"]
    assert (overall["measure"], overall["segment"]) == ("nDCG@10", "all")
    assert overall["queries"] >= 120
    assert len(segments) >= 6
    assert sum(segment["queries"] for segment in segments) == overall["queries"]
    assert overall["candidate"] > overall["primary"] > 0.2
    assert all(0 < segment["overlap"] <= 1 for segment in segments)

    assert (told["cutover"]["previous"], told["cutover"]["version_key"]) == ("demo-64", "demo-256")
    assert {guard["verdict"] for guard in told["cutover"]["guards"]} == {"pass"}
    assert told["cutover"]["search"]["version_key"] == "demo-256"
    assert (told["rollback"]["version_key"], told["rollback"]["missing"]) == ("demo-64", 0)
    assert told["rollback"]["search"]["version_key"] == "demo-64"
    assert {v["version_key"]: v["missing"] for v in told["versions"]} == {"demo-64": 0, "demo-256": 0}
    assert {"ingest", "backfill demo-256", "compare", "cutover", "rollback"} <= told["seconds"].keys()
    assert not {"━", "embedding", "comparing"} & set(result.err.split())  # no progress bar without a terminal

    again = own_home.run("demo", "--headless")
    assert again.err == ""
    lines = again.out.splitlines()
    assert lines[0] == f"{told['chunks']:,} chunks of the standard library's documentation; demo-64 is active."
    assert sum(line.split()[0] in {s["segment"] for s in segments} for line in lines) == len(segments)
    assert any(line.startswith("Cut over: demo-64 → demo-256") for line in lines)
    assert any(line.startswith("Rolled back to demo-64") and line.endswith("0 chunks missing.") for line in lines)
    assert "✓ complete" in again.out
    assert "␊" not in again.out

    versions = own_home.call("versions", "list", "--json").document["versions"]
    assert [v["version_key"] for v in versions if v["active"]] == ["demo-64"]


@pytest.mark.parametrize("stranger", ["document", "version"])
def test_the_demo_touches_nobody_elses_collection(
    revector: Revector, connection: Connection, stranger: str
) -> None:
    if stranger == "document":
        add_chunks(connection, ["somebody's own"])
    else:
        add(connection, "production")
    before = chunk_count(connection)
    refused = revector.call("demo", "--headless", status=1)
    assert "contains more than the demo" in refused.err
    assert ("document doc-somebody's own" if stranger == "document" else "version production") in refused.err
    assert "revector --schema demo demo" in refused.err
    assert chunk_count(connection) == before
    keys = [v["version_key"] for v in revector.call("versions", "list", "--json").document["versions"]]
    assert keys == ([] if stranger == "document" else ["production"])


def test_the_demo_goes_on_where_it_was_cut_off(
    revector: Revector, database: Database, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ingest that was killed leaves some of the documents; the versions come after the last one."""
    from revector.console.context import Context
    from revector.console.demo import story
    from revector.console.demo.corpus import standard_library

    entries = standard_library()[:40]
    monkeypatch.setattr("revector.console.demo.corpus.standard_library", lambda: entries[:15])
    own = Context(database.dsn, database.schema)
    monkeypatch.setattr(story, "add_version", _killed)
    with pytest.raises(_KilledError):
        story.prepare(own)
    assert 15 <= chunk_count(connection) < 40
    monkeypatch.undo()
    monkeypatch.setattr("revector.console.demo.corpus.standard_library", lambda: entries)
    story.prepare(Context(database.dsn, database.schema))
    assert chunk_count(connection) >= 40
    versions = revector.call("versions", "list", "--json").document["versions"]
    assert [(v["version_key"], v["active"]) for v in versions] == [("demo-64", True), ("demo-256", False)]


@pytest.mark.parametrize("revision", ["0001", "0005"])
def test_the_demo_replaces_its_own_collection_of_a_development_version(
    database: Database,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    revision: str,
) -> None:
    """Only on the embedded server, and only when nothing else is in it or has been built on it."""
    from revector.console.context import Context
    from revector.console.demo import story
    from revector.console.demo.corpus import standard_library

    entries = standard_library()[:40]
    monkeypatch.setattr("revector.console.demo.corpus.standard_library", lambda: entries)
    own = Context(database.dsn, database.schema)
    story.prepare(own)
    chunks = chunk_count(connection)
    as_of_development(connection, revision)

    with pytest.raises(UnreachableError, match="development version"):
        story.prepare(own)
    own.database = replace(database, embedded=True)
    strangers = [
        ("table mine", "CREATE TABLE mine (n int)", "DROP TABLE mine"),
        ("query set x", "INSERT INTO query_sets (name) VALUES ('x')", "DELETE FROM query_sets WHERE name = 'x'"),
        ("view mine depends", "CREATE VIEW public.mine AS TABLE document_chunks", "DROP VIEW public.mine"),
    ]
    for stranger, make, unmake in strangers:
        connection.execute(make)  # type: ignore[arg-type]
        with pytest.raises(RefusedError, match=rf"more than the demo \({stranger}"):
            story.prepare(own)
        connection.execute(unmake)  # type: ignore[arg-type]
    assert chunk_count(connection) == chunks
    if revision == "0001":  # which had no such table yet
        connection.execute("DROP TABLE query_sets CASCADE")

    capsys.readouterr()
    story.prepare(own)
    assert f"made by a development version ({revision}). It is being made again." in capsys.readouterr().err
    require_schema(connection, database.schema)
    assert chunk_count(connection) == chunks
    assert [(version.version_key, version.active) for version in versions(connection)] == [
        ("demo-64", True),
        ("demo-256", False),
    ]


class _KilledError(Exception):
    pass


def _killed(*_arguments: object, **_options: object) -> None:
    raise _KilledError
