"""What the program writes down: its log file, reports of crashes, and `revector info`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from revector.core.database import Database
from tests.console.cli.program import SECRET, Revector, plain_environment

PASSWORD_URL = f"postgresql://me:{SECRET}@127.0.0.1:1/there"
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


def crash(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CRASHING, *arguments], cwd=folder, capture_output=True, text=True, check=False,
        env=plain_environment(folder) | {"REVECTOR_HOME": str(folder)},
    )  # fmt: skip


@pytest.mark.parametrize("json_too", [False, True])
def test_the_last_line_of_a_crash_names_the_report(tmp_path: Path, json_too: bool) -> None:
    arguments = ["--dsn", PASSWORD_URL, "--log-level", "debug", "search", "words of a query"]
    ended = crash(tmp_path, *arguments, *(["--json"] if json_too else []))
    assert ended.returncode == 1
    first, last = ended.stderr.splitlines()
    assert first == "revector ended because of an unexpected error: ValueError."
    path = Path(last.removeprefix("The report is in "))
    report, log = path.read_text(), (path.parent / "cli.log").read_text()
    assert path.parent == tmp_path / "logs"
    assert "cli: revector search\n" in report
    assert "in failing\n" in report
    assert "ValueError: postgresql://me:[secret]@127.0.0.1:1/there and …\n" in report
    assert "started search\n" in log
    assert path.name in log
    for text in (ended.stdout + ended.stderr, report, log):
        assert SECRET not in text
        assert "words of" not in text
    if json_too:
        assert json.loads(ended.stdout)["error"] == {"problem": first, "remedy": last, "kind": "failed"}
    assert Revector(tmp_path, (), (("REVECTOR_HOME", str(tmp_path)),)).call("info", "--json").document[
        "crashes"
    ] == [str(path)]


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
    assert f"Expected one of {LEVELS}." in revector.call("versions", "list", status=2).err
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
