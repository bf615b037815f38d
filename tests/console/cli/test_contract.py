"""What scripts rely on: one JSON document on stdout, everything else on stderr, and the exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from psycopg import sql
from rich.cells import cell_len

from revector.console.cli import program
from revector.core import cutover
from revector.core.cutover.guard import GuardRule, unsure
from revector.core.database import Connection, Database
from revector.core.keys import document
from tests.console.cli.conftest import TEXTS, on, write_corpus
from tests.console.cli.contract import CONTRACT, paths
from tests.console.cli.program import PROGRAM, Revector, finish, plain_environment
from tests.versions import add_chunks, ready_version


def commands(group: Any, *path: str) -> Iterator[tuple[str, Any]]:
    """Every command of the program, by its name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands(program()))


def test_every_command_answers_with_a_document_but_the_server() -> None:
    assert COMMANDS.keys() - CONTRACT.keys() == {"serve"}
    assert CONTRACT.keys() <= COMMANDS.keys()


@pytest.mark.parametrize("name", CONTRACT)
def test_help_names_the_keys_of_the_contract(library: Revector, name: str) -> None:
    words = COMMANDS[name].keys()
    assert sorted(words) == sorted(set(paths(CONTRACT[name])))
    assert all(words.values())
    listed = library.call(*name.split(), "--help").out.partition("Keys of the JSON document:")[2]
    assert {line.split()[0] for line in listed.splitlines() if line.startswith("  ")} >= words.keys()


def test_a_field_without_words_is_no_key() -> None:
    """Internal fields of an object are not in its document, nor in its parts'."""

    @dataclass(frozen=True)
    class Part:
        shown: Annotated[int, "for scripts"]
        hidden: int

    @dataclass(frozen=True)
    class Whole:
        secret: str
        parts: Annotated[list[Part], "for scripts"]
        limit: Annotated[int, 5]

        @property
        def first(self) -> Annotated[int, "for scripts"]:
            return self.parts[0].shown

    assert document(Whole("sesame", [Part(1, 2)], 9)) == {"parts": [{"shown": 1}], "first": 1}


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("db status", 0),
        ("versions list", 0),
        ("versions show v1", 0),
        ("backfill status v1", 0),
        ("backfill failures v1", 0),
        ("backfill set v1", 0),
        ("index plan v1", 0),
        ("index check v3", 1),
        ("index set v3", 0),
        ("search rotate", 0),
        ("search rotate --version v2", 0),
        ("compare rotate", 0),
        ("serving", 0),
        ("queries list", 0),
        ("evaluations list", 0),
        ("cutover check v2", 0),
        ("cutover check v3", 1),
        ("cutover requests", 0),
        ("cutover history", 0),
        ("log", 0),
        ("doctor", 0),
    ],
)
def test_a_question_is_answered_by_one_document(library: Revector, command: str, status: int) -> None:
    assert library.call(*command.split(), "--json", status=status).document
    shown = library.call(*command.split(), status=status).out
    assert shown.strip()
    assert not shown.startswith("{")


def test_what_is_in_the_documents(library: Revector) -> None:
    def document(*command: str) -> dict[str, Any]:
        return library.call(*command, "--json").document

    versions = {row["version_key"]: row for row in document("versions", "list")["versions"]}
    assert list(versions) == ["v0", "v1", "v2", "v3"]
    assert versions["v1"]["active"] is True
    assert (versions["v1"]["embedded"], versions["v3"]["missing"]) == (len(TEXTS), len(TEXTS))
    assert (versions["v1"]["encoder"], versions["v3"]["encoder"]) == ("static:wordllama-64", "by-hand")

    found = document("search", "how do I rotate an api key", "-k", "3")
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    assert found["hits"][0]["content"] == TEXTS[0]
    assert found["version_key"] == "v1"

    compared = document("compare", "rotate", "-k", "5")
    assert (compared["primary"]["version_key"], compared["candidate"]["version_key"]) == ("v1", "v2")
    ranks = {hit["chunk_id"]: hit["rank"] for hit in compared["primary"]["hits"]}
    for hit in compared["candidate"]["hits"]:
        assert (hit["primary_rank"], hit["candidate_rank"]) == (ranks.get(hit["chunk_id"]), hit["rank"])

    guards = document("cutover", "check", "v2")["guards"]
    assert {guard["verdict"] for guard in guards} == {"pass"}
    assert document("log", "-n", "1", "--version", "v1")["entries"][0]["action"] == "cutover"
    assert document("log", "-n", "2")["entries"][0]["at"] > document("log", "-n", "2")["entries"][1]["at"]


def test_what_changes_something_says_what_in_one_document(
    revector: Revector, database: Database, connection: Connection, tmp_path: Path
) -> None:
    def document(*command: str, status: int = 0) -> dict[str, Any]:
        return revector.call(*command, "--json", status=status).document

    assert document("db", "upgrade")["schema_revision"]
    report = document("ingest", str(write_corpus(tmp_path / "corpus.jsonl")))
    assert report.items() >= {
        "documents": 12, "chunks": 12, "inserted": 12, "unchanged": 0, "deleted": 0, "rejected": 0,
    }.items()  # fmt: skip
    added = document("versions", "add", "v1", "--encoder", "static:wordllama-64", "--metric", "l2")
    assert added.items() >= {"version_key": "v1", "dimensions": 64, "metric": "l2", "state": "registered"}.items()
    ran = document("backfill", "run", "v1", "--no-index")
    assert (ran["state"], ran["done"], ran["pending"]) == ("done", 12, 0)
    assert document("index", "build", "v1").items() >= {"exists": True, "valid": True}.items()
    flip = document("cutover", "run", "v1", "--confirm", "v1")
    assert (flip["version_key"], flip["previous"]) == ("v1", None)
    ready_version(database, connection, "v2")
    assert document("cutover", "run", "v2", "--confirm", "v2")["previous"] == "v1"
    back = document("rollback", "--confirm", "v1")
    assert (back["version_key"], back["previous"], back["missing"]) == ("v1", "v2", 0)
    again = document("rollback", "--confirm", "v1")
    assert (again["changed"], again["at"], again["made_by"]) == (False, back["at"], "postgres")
    assert document("versions", "retire", "v2", "--confirm", "v2")["state"] == "retired"
    assert document("versions", "drop", "v2", "--confirm", "v2") == {"version_key": "v2", "dropped": True}
    assert document("backfill", "resume", "v1")["state"] == "done"
    assert document("index", "check", "v1", status=1)["used"] is False  # twelve rows: a scan is cheaper
    refused = revector.call("backfill", "cancel", "v1", "--json", status=1)
    assert refused.error["kind"] == "refused"
    assert refused.err.strip() == "{problem}\n{remedy}".format(**refused.error).strip()


def test_progress_and_advice_go_to_stderr(revector: Revector, tmp_path: Path) -> None:
    """As a process, with real pipes."""
    result = revector.run("ingest", str(write_corpus(tmp_path / "corpus.jsonl")), "--json")
    assert result.document["inserted"] == 12
    assert result.err == ""
    result = revector.run("versions", "add", "v1", "--encoder", "static:wordllama-64", "--json")
    assert result.document["version_key"] == "v1"
    assert result.err == "Next: revector backfill run v1\n"
    result = revector.run("backfill", "run", "v1", "--json")
    assert result.document["state"] == "done"
    assert result.err == "building the index of v1\n"
    assert "No embedding version is active yet." in revector.run("search", "key", status=1).err


# -- exit statuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "no-such-command",
        "versions",
        "versions add v9",
        "search",
        "search x -k 0",
        "search x -k 1001",
        "log -n many",
        "cutover run",
        "versions list --no-such-option",
    ],
)
def test_usage_is_2(library: Revector, command: str) -> None:
    result = library.call(*command.split(), status=2)
    assert result.out == ""
    assert "revector" in result.err
    asked = library.call(*command.split(), "--json", status=2)
    error = asked.error
    assert error["kind"] == "usage"
    assert error["problem"] in asked.err
    assert error["remedy"].startswith("See revector ")


def test_an_error_is_a_document_only_where_it_was_asked_for(library: Revector) -> None:
    assert library.call("versions", "show", "v9", status=2).out == ""
    found = library.call("versions", "show", "v9", "--json", status=2)
    assert found.error == {
        "problem": "There is no embedding version 'v9'.",
        "remedy": "Did you mean v3 or v2 or v1?",
        "kind": "usage",
    }
    assert library.call("versions", "show", "--", "--json", status=2).out == ""  # a key


def test_no_console_without_a_terminal(library: Revector) -> None:
    assert "needs a terminal" in library.run(status=2).err
    assert "needs a terminal" in library.run("demo", status=2).err


def test_a_check_that_cannot_tell_is_3(library: Revector, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = GuardRule("unsure", "whether it is sure", lambda _subject: unsure("too few queries", "ask more"))
    monkeypatch.setattr("revector.core.cutover.guards.GUARDS", (*cutover.GUARDS, rule))
    result = library.call("cutover", "check", "v2", status=3)
    assert "?  unsure" in result.out
    assert "v2 is not ready." in result.out
    assert library.call("cutover", "check", "v3", "--json", status=1).document["ready"] is False  # others fail


CHANGING = [
    "db upgrade", "ingest .", "versions add v9 --encoder static:wordllama-64",
    "versions adopt v3 --encoder static:wordllama-64", "versions retire v2 --confirm v2",
    "versions drop v3 --confirm v3", "backfill run v2",
    "backfill resume v2", "backfill pause v2", "backfill cancel v2", "backfill failures v2 --retry",
    "backfill failures v2 --waive 1 --reason x", "index build v2", "index drop v2", "index set v2 --m 8",
    "cutover run v2 --confirm v2", "rollback --confirm v0", "demo --headless",
]  # fmt: skip


@pytest.mark.parametrize("command", CHANGING)
def test_read_only_refuses_what_changes_anything(library: Revector, command: str) -> None:
    before = library.call("versions", "list", "--json").out + library.call("log", "--json").out
    result = library.with_options("--read-only").call(*command.split(), "--json", status=1)
    assert result.error["kind"] == "refused"
    assert result.err.startswith("This session is read-only: nothing was changed.\n")
    assert "leave out --read-only" in result.err
    assert library.call("versions", "list", "--json").out + library.call("log", "--json").out == before


def test_read_only_is_kept_by_the_database_too(library: Revector, monkeypatch: pytest.MonkeyPatch) -> None:
    """In case a command forgets to declare that it changes something."""
    monkeypatch.setattr("revector.console.context.Context.require_writable", lambda _self: None)
    reading = library.with_options(REVECTOR_READ_ONLY="true")
    for command in CHANGING[:-1]:  # the demo would not touch this collection anyway
        assert "read-only" in reading.call(*command.split(), status=1).err


def test_read_only_answers_questions(library: Revector) -> None:
    reading = library.with_options("--read-only")
    assert reading.call("db", "status", "--json").document["read_only"] is True
    for command in ("versions list", "search key", "compare key", "cutover check v2", "log", "doctor"):
        assert reading.call(*command.split()).out


# -- start ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_version() -> None:
    result = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.split()[0] == "revector"
    assert result.stdout.split()[1][0].isdigit()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["", "db", "versions add", "load", "backfill run", "search", "serve", "demo"])
def test_help_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    code = """if True:
        import sys
        from revector.console.program import main
        try:
            main()
        except SystemExit as end:
            print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
            raise
    """
    result = subprocess.run(
        [sys.executable, "-c", code, *command.split(), "--help"],
        capture_output=True, text=True, check=True, cwd=tmp_path, env=plain_environment(tmp_path),
    )  # fmt: skip
    heavy = {"numpy", "sqlalchemy", "textual", "psycopg", "rich", "openai", "alembic", "tokenizers", "fastapi"}
    if not command:  # a group's name is enough for Typer to load it
        heavy |= {"pydantic"}
    assert heavy & set(result.stderr.split()) == set()
    assert result.stdout.startswith(f"Usage: revector {command}".rstrip())


def test_help_names_every_command(library: Revector) -> None:
    text = library.call("--help").out
    listed = [line.split()[0] for line in text.partition("Commands:")[2].splitlines() if line.startswith("  ")]
    assert listed == [
        "demo", "db", "ingest", "versions", "encoders", "load", "export", "backfill", "index", "search", "compare",
        "serve", "serving", "queries", "judge", "evaluate", "evaluations", "thresholds", "shadow", "cutover",
        "rollback", "log", "doctor", "info",
    ]  # fmt: skip
    assert max(map(len, text.splitlines())) <= 80


# -- terminals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize(
    "command",
    ["versions list", "search key -k 5", "compare key", "cutover check v2", "cutover check v3", "doctor"],
)
def test_tables_fit_the_terminal(library: Revector, command: str, columns: int) -> None:
    status = 1 if command.endswith("v3") else 0
    shown = library.call(*command.split(), status=status, columns=columns).out
    assert max(map(cell_len, shown.splitlines())) <= columns
    piped = library.call(*command.split(), status=status).out
    assert "…" not in piped
    if command.startswith(("search", "compare")):
        assert "…" in shown  # one line a hit, cut at its end


def test_tables_are_aligned_whatever_is_in_them(
    revector: Revector, database: Database, connection: Connection
) -> None:
    add_chunks(connection, ["日本語のテキスト", "ascii", "a\nb\tc"])
    ready_version(database, connection, "v1")
    lines = revector.call("search", "text", "--version", "v1").out.splitlines()[1:]
    assert len(lines) == 3
    ends = ("日本語のテキスト", "ascii", "a b c")
    starts = {cell_len(line.removesuffix(end)) for line in lines for end in ends if line.endswith(f"  {end}")}
    assert starts == {5 + cell_len("doc-日本語のテキスト") + 2}
    assert "doc-a␊b␉c" in "".join(lines)


# -- pipes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def nobody_reads() -> Iterator[int]:
    """The writing end of a pipe whose reader is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("command", ["log", "log --json", "--version", "versions list"])
def test_a_closed_pipe_ends_quietly(library: Revector, nobody_reads: int, command: str) -> None:
    """As in `revector log | head -1`."""
    result = finish(library.start(*command.split(), stdout=nobody_reads))
    assert result.err == ""


def test_a_closed_pipe_in_the_middle_of_a_long_answer(revector: Revector, connection: Connection) -> None:
    connection.execute(
        "INSERT INTO audit_log (action, outcome) SELECT 'test ' || n, 'done' FROM generate_series(1, 5000) n"
    )
    process = revector.start("log", "-n", "5000", "--json")
    assert process.stdout is not None
    assert process.stdout.read(10) == '{"entries"'
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait() == 0


@pytest.mark.parametrize("command", ["log", "log --json", "--help", "versions list --help", "--version"])
@pytest.mark.parametrize("buffer", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
def test_an_answer_that_cannot_be_written(library: Revector, command: str, buffer: dict[str, str]) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        result = finish(library.with_options(**buffer).start(*command.split(), stdout=full), status=1)
    assert result.err == "The answer cannot be written: No space left on device.\n"


def test_output_that_the_locale_cannot_show(library: Revector) -> None:
    """Escapes in place of an error; JSON stays JSON, and says the same."""
    ascii_only = library.with_options(PYTHONIOENCODING="ascii")
    assert "\\u25cf" in ascii_only.run("versions", "list").out
    odd = "naïve 日本 😄"
    found = ascii_only.run("search", odd, "--json")
    assert found.out.isascii()
    assert found.document["query"] == odd
    assert odd in library.call("search", odd, "--json").out


def test_one_schema_is_one_collection(
    revector: Revector, database: Database, connection: Connection, tmp_path: Path
) -> None:
    def keys(collection: Revector) -> list[str]:
        return [v["version_key"] for v in collection.call("versions", "list", "--json").document["versions"]]

    other = on(Database(database.dsn, f"{database.schema}_other"), tmp_path)
    try:
        other.call("db", "upgrade")
        add_chunks(connection, ["only here"])
        ready_version(database, connection, "v1")
        revector.call("cutover", "run", "v1", "--confirm", "v1")
        assert (keys(revector), keys(other)) == (["v1"], [])
        assert "only here" in revector.call("search", "here").out
        assert "No embedding version is active yet." in other.call("search", "here", status=1).err
        assert other.call("db", "status", "--json").document["schema"] == f"{database.schema}_other"
    finally:
        connection.execute(
            sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(f"{database.schema}_other"))
        )
