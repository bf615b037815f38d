"""The program's log file, crash reports, and `revector info`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from revector.core.database import Database
from tests.console.cli.conftest import TEXTS, write_corpus
from tests.console.cli.program import SECRET, Revector, plain_environment
from tests.protocol_server import ProtocolServer, RequestRefusedError, embed

PASSWORD_URL = f"postgresql://me:{SECRET}@127.0.0.1:1/there"
KEY = "sk-hush-hush"
QUERIES = ("restarting routers gently",)
WAIVED = ("--waive", "evaluation=a test", "--waive", "shadow=a test")
LEVELS = "debug, info, warning, error"

CRASHING = """
import sys
from revector.core import database
def failing(self, purpose, **_):
    words = self.dsn
    raise ValueError(f"{self.dsn} and 'words of a document'\\nmore words")
database.Database.connect = failing
from revector.console.program import main
main()
"""


def refusing(text: str, *rest: Any) -> Any:
    """The embeddings of all texts but one, which the provider quotes in its error."""
    if "museum" in text:
        raise RequestRefusedError(400, f"{KEY}: cannot embed {text}")
    return embed(text, *rest)


def crash(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CRASHING, *arguments], cwd=folder, capture_output=True, text=True, check=False,
        env=plain_environment(folder) | {"REVECTOR_HOME": str(folder)},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("json_too", [False, True])
def test_the_last_line_of_a_crash_names_the_report(tmp_path: Path, json_too: bool) -> None:
    arguments = ["--dsn", PASSWORD_URL, "--log-level", "debug", "search", "words of a query"]
    ended = crash(tmp_path, *arguments, *(["--json"] if json_too else []))
    assert ended.returncode == 1
    first, last = ended.stderr.splitlines()
    assert first == "An unexpected error ended revector: ValueError."
    path = Path(last.removeprefix("The report is in "))
    report, log = path.read_text(), (path.parent / "cli.log").read_text()
    assert path.parent == tmp_path / "logs"
    assert "cli: revector search\n" in report
    assert "in failing\n" in report
    assert "ValueError: postgresql://me:[secret]@127.0.0.1:1/there and …\n" in report
    assert "started: search\n" in log
    assert path.name in log
    for text in (ended.stdout + ended.stderr, report, log):
        assert SECRET not in text
        assert "words of" not in text
    if json_too:
        assert json.loads(ended.stdout)["error"] == {"problem": first, "remedy": last, "kind": "failed"}
    assert Revector(tmp_path, (), (("REVECTOR_HOME", str(tmp_path)),)).call("info", "--json").document[
        "crashes"
    ] == [str(path)]


@pytest.mark.slow
def test_a_crash_whose_report_cannot_be_written_is_shown(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    ended = crash(tmp_path, "--dsn", PASSWORD_URL, "search", "words of a query")
    assert ended.stderr.splitlines()[-1] == "ValueError: postgresql://me:[secret]@127.0.0.1:1/there and …"
    assert "in failing\n" in ended.stderr


@pytest.mark.parametrize("way", ["option", "variable"])
def test_a_wrong_level_is_refused_with_the_levels(tmp_path: Path, way: str) -> None:
    revector = Revector(tmp_path)
    if way == "option":
        revector = revector.with_options("--log-level", "loud")
    else:
        revector = revector.with_options(REVECTOR_LOG_LEVEL="loud")
    assert f"expected one of {LEVELS}." in revector.call("versions", "list", status=2).err
    assert revector.call("info", "--json", status=2).error["kind"] == "usage"


def test_info_needs_no_database_and_says_where_settings_come_from(tmp_path: Path) -> None:
    (tmp_path / "revector.toml").write_text('label = "here"\nlog_level = "error"\nrefresh_s = 2\n')
    revector = Revector(tmp_path).with_options(
        "--dsn", PASSWORD_URL, "--log-level", "DEBUG", REVECTOR_HOME=str(tmp_path / "home"), REVECTOR_REFRESH_S="3"
    )
    found = revector.call("info", "--json").document
    assert (found["database"], found["dsn"]) == ("127.0.0.1/there", "postgresql://me@127.0.0.1:1/there")
    assert (found["data"], found["logs"]) == (str(tmp_path / "home"), str(tmp_path / "home" / "logs"))
    settings = {one["name"]: (one["value"], one["source"]) for one in found["settings"]}
    assert settings["dsn"] == (found["dsn"], "command line")
    assert settings["log_level"] == ("debug", "command line")
    assert settings["label"] == ("here", "revector.toml")
    assert settings["refresh_s"] == (3.0, "REVECTOR_REFRESH_S")
    assert settings["read_only"] == (False, "default")
    assert {"python", "revector", "psycopg"} <= found["packages"].keys()
    shown = revector.call("info").out
    for text in (found["logs"], found["dsn"], "last crash", "REVECTOR_REFRESH_S"):
        assert text in shown


def test_info_starts_no_server(tmp_path: Path) -> None:
    revector = Revector(tmp_path).with_options(REVECTOR_HOME=str(tmp_path / "home"))
    found = revector.call("info", "--json").document
    assert (found["database"], found["dsn"]) == ("embedded/postgres", None)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["logs"]
    elsewhere = revector.with_options(DATABASE_URL=PASSWORD_URL).call("info", "--json").document
    assert {one["name"]: one["source"] for one in elsewhere["settings"]}["dsn"] == "DATABASE_URL"


def test_a_log_that_cannot_be_written_stops_no_command(tmp_path: Path, database: Database) -> None:
    (tmp_path / "logs").write_text("in the way")
    revector = Revector(tmp_path, ("--dsn", database.dsn, "--schema", database.schema))
    result = revector.with_options(REVECTOR_HOME=str(tmp_path)).run("versions", "list", "--json")
    assert (result.document, result.err) == ({"versions": []}, "")


def test_no_password_in_the_log_of_a_database_that_is_there(tmp_path: Path, database: Database) -> None:
    known = replace(database, dsn=f"{database.dsn}&password={SECRET}")
    revector = Revector(tmp_path, ("--dsn", known.dsn, "--schema", database.schema, "--log-level", "debug"))
    revector.with_options(REVECTOR_HOME=str(tmp_path)).run("versions", "list")
    assert SECRET not in (tmp_path / "logs" / "cli.log").read_text()


def texts_of(log: str) -> list[str]:
    """Words of the corpus and of the queries that a log has."""
    words = {word.strip(".,:;").lower() for text in (*TEXTS, *QUERIES) for word in text.split()}
    return sorted(word for word in words if len(word) > 6 and word in log.lower())


@pytest.mark.parametrize("level", ["info", "debug"])
def test_what_a_run_writes_down(tmp_path: Path, revector: Revector, level: str) -> None:
    """Through batches that the provider refuses and quotes: at INFO without a text, and with no secret ever."""
    words = QUERIES[0]
    with ProtocolServer(api_key=KEY) as provider:
        spec = (
            f"openai:house-model?base_url={provider.base_url}&key_env=HOUSE_KEY&price=0&parallel=1&max_retries=2"
        )
        revector = revector.with_options("--log-level", level, REVECTOR_HOME=str(tmp_path / "home"), HOUSE_KEY=KEY)
        revector.run("ingest", str(write_corpus(tmp_path / "corpus.jsonl")))
        for key in ("v1", "v2"):
            revector.run("versions", "add", key, "--encoder", spec)
            provider.embed = refusing if key == "v1" else embed
            if key == "v1":
                provider.fail(503, message=f"{KEY}: busy with {TEXTS[0]}")
                revector.run("backfill", "run", key, "--max-failed-share", "1", "--patience-s", "20", status=1)
                provider.embed = embed
                revector.run("backfill", "failures", key, "--retry")
            revector.run("backfill", "run", key)
            revector.run("cutover", "run", key, "--confirm", key, *WAIVED)
        (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q1", "text": words}) + "\n")
        (tmp_path / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tdoc-0\t1\n")
        revector.run(
            "queries", "import", "mine", "--queries", str(tmp_path / "queries.jsonl"), "--qrels",
            str(tmp_path / "qrels.tsv"),
        )  # fmt: skip
        revector.run("search", words)
        revector.run("compare", words)
        revector.run("evaluate", "mine", "--candidate", "v1")
        revector.run("rollback", "--confirm", "v1")
        revector.run("search", words, "--version", "none-such", status=2)
    command, worker = ((tmp_path / "home" / "logs" / f"{kind}.log").read_text() for kind in ("cli", "worker"))
    for line in (
        "started: backfill run", "ingest: done", "index build v1: begins, 12 rows", "index build v1: done",
        "cutover to v1, was none", "cutover to v2, was v1", "rollback to v1, was v2", "ended: usage",
    ):  # fmt: skip
        assert line in command, command
    for line in (
        "joins the backfill of v1", "no answer (503) to try 1", "held by the encoder's provider",
        "refuses 2 texts: split", "cannot embed these chunks: ", "failed, was proving", "done, was proving",
        "leaves (no more to do), 12 chunks stored",
    ):  # fmt: skip
        assert line in worker, worker
    assert KEY not in command + worker
    if level == "info":
        assert texts_of(command + worker) == []
    assert ("free on Sundays" in worker) is (level == "debug")
