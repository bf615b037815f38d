"""The log file and the reports of crashes: shared, bounded, never in the way, and without secrets."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from revector.core import logs
from revector.core.secrets import hide, scrub
from revector.core.settings import Settings
from tests.test_architecture import ROOT

SECRET = "open-sesame"  # noqa: S105
DOCUMENT = "words of a document"
LOGGER = logging.getLogger("revector.core.test")

WRITER = """
import logging, sys
from pathlib import Path
from revector.core import logs
from revector.core.settings import Settings
logs._MOST_BYTES = 100_000
logs.start("worker", Settings(home=Path(sys.argv[1])))
log = logging.getLogger("revector.core.test")
print("ready", flush=True)
sys.stdin.readline()
for number in range(1_200):
    log.info("%s/%d/%s", sys.argv[2], number, "x" * 20)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder for logs."""
    return tmp_path


def process(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_library_prints_nothing() -> None:
    code = """
import logging
from revector.core.encoders import open_encoder
encoder = open_encoder("openai:m?base_url=http://127.0.0.1:9/v1&max_retries=0")
try:
    encoder.encode_query("words")
except Exception as error:
    print(type(error).__name__)
logging.getLogger("revector.core.database").error("lost")
"""
    out, err = process(code).communicate()
    assert (out, err) == ("UnreachableError\n", "")


def test_processes_that_write_at_the_same_time_lose_no_line(home: Path) -> None:
    writers = [process(WRITER, home, name) for name in ("one", "two", "three")]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.communicate()[1] for writer in writers] == ["", "", ""]
    files = sorted((home / "logs").glob("worker.log*"))
    assert len(files) > 3
    lines = [line for file in files for line in file.read_text().splitlines()]
    numbers = {tuple(line.split(": ")[1].split("/")[:2]) for line in lines if "/xxx" in line}
    assert numbers == {(name, str(number)) for name in ("one", "two", "three") for number in range(1_200)}
    assert all(line.startswith("20") for line in lines)


def test_full_files_are_bounded(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_MOST_BYTES", 1_000)
    logs.start("cli", Settings(home=home))
    for number in range(200):
        LOGGER.info("line %d %s", number, "x" * 50)
    files = sorted(path.name for path in (home / "logs").glob("cli.log*") if path.suffix != ".lock")
    assert files in (["cli.log", *(f"cli.log.{n}" for n in range(1, 5))], [f"cli.log.{n}" for n in range(1, 5)])
    assert sum(path.stat().st_size for path in (home / "logs").iterdir()) < 6_000


def test_a_line_of_others_is_one_line_and_obeyed_by_no_terminal(home: Path) -> None:
    logs.start("cli", Settings(home=home))
    LOGGER.warning("refused: %s", "\x1b[2Jcleared\n2026-01-01 INFO forged")
    text = (home / "logs" / "cli.log").read_text()
    assert "\x1b" not in text
    assert [line[:4] for line in text.splitlines()[1:]] == [text[:4], "    "]


@pytest.mark.parametrize("trouble", ["a file in the way", "a full disk", "a folder that is gone", "a device"])
def test_what_cannot_be_written_is_in_nobodys_way(
    home: Path, trouble: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    if trouble == "a file in the way":
        (home / "logs").write_text("not a folder")
    elif trouble == "a full disk":
        monkeypatch.setattr(os, "write", full)
    elif trouble == "a device":
        (home / "logs").mkdir()
        (home / "logs" / "cli.log").symlink_to("/dev/full")
    logs.start("cli", Settings(home=home))
    if trouble == "a folder that is gone":
        (home / "logs" / "cli.log").unlink()
        (home / "logs").rmdir()
    LOGGER.warning("a line")
    LOGGER.warning("a line that is %d", "wrong")
    if trouble == "a file in the way":
        error = logs.crashed(ValueError("why"))
        assert "ValueError: why" in error.remedy
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("read", [True, False])
def test_a_pipe_in_the_place_of_the_file_is_left_alone(home: Path, read: bool) -> None:
    """Not even opening it waits: a process that waited would not end."""
    (home / "logs").mkdir()
    os.mkfifo(home / "logs" / "cli.log")
    reader = os.open(home / "logs" / "cli.log", os.O_RDONLY | os.O_NONBLOCK) if read else None
    code = "import sys; from pathlib import Path; from revector.core import logs\n"
    code += "logs.start('cli', logs.Settings(home=Path(sys.argv[1]))); print('ended')"
    writer = process(code, home)
    try:
        assert writer.communicate(timeout=60) == ("ended\n", "")
        assert reader is None or os.read(reader, 100) == b""
    finally:
        writer.kill()
        if reader is not None:
            os.close(reader)


def test_no_secret_in_what_is_written(home: Path) -> None:
    logs.start("cli", Settings(home=home, log_level="debug"))
    hide(SECRET)
    hide("p@ss/word")
    LOGGER.debug("%s, as p%%40ss%%2Fword or p@ss/word", SECRET)
    try:
        raise ConnectionError(f"Authorization: Bearer {SECRET} is no good, nor is {SECRET}")
    except ConnectionError as error:
        LOGGER.warning("failed", exc_info=True)
        path = logs.report(error)
    assert path is not None
    for text in ((home / "logs" / "cli.log").read_text(), path.read_text()):
        assert "[secret]" in text
        assert SECRET not in text
        assert "ss%2Fword" not in text
        assert "ss/word" not in text


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("postgresql://me:pa:s/s@w@host:5432/db", "postgresql://me:[secret]@host:5432/db"),
        ("host=h password=hush dbname=d", "host=h password=[secret] dbname=d"),
        (r"host=h password = 'hu\'sh, hush' dbname=d", "host=h password = [secret] dbname=d"),
        ("postgresql://h/d?user=me&password=hush&sslmode=off", "postgresql://h/d?user=me&password=[secret]&sslmode=off"),
        ("authorization: bearer hush", "authorization: bearer [secret]"),
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_taken_out(text: str, scrubbed: str) -> None:
    assert scrub(text) == scrubbed


def test_a_password_of_a_letter_is_not_taken_out_of_other_words() -> None:
    hide("x")
    hide("x!")
    assert (
        scrub("the next password is x, not x!1, of (x)")
        == "the next password is [secret], not [secret]1, of ([secret])"
    )


def test_a_report_says_where_and_quotes_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_REPORTS_KEPT", 3)
    logs.start("console", Settings(home=home), "backfill run")

    def failing(document: str) -> None:
        try:
            {}[document]  # type: ignore[index]
        except KeyError:
            len.missing()  # type: ignore[attr-defined]

    paths = []
    for _ in range(5):
        with pytest.raises(AttributeError) as caught:
            failing(DOCUMENT)
        paths.append(logs.report(caught.value))
        logs._reported.clear()
    assert logs.reports(Settings(home=home)) == paths[:1:-1]
    assert paths[4] is not None
    text = paths[4].read_text()
    assert "console: revector backfill run\n" in text
    assert f"psycopg {logs.versions()['psycopg']}\n" in text
    assert "KeyError: …\n\nThen:\n" in text
    assert "in failing\n" in text
    assert text.endswith("AttributeError: 'builtin_function_or_method' object has no attribute 'missing'\n")
    assert "words of" not in text
    assert oct(paths[4].stat().st_mode & 0o777) == "0o600"
    assert "unexpected AttributeError" in (home / "logs" / "console.log").read_text()


def test_an_error_that_comes_back_has_one_report(home: Path) -> None:
    logs.start("console", Settings(home=home))

    def read(kind: type[Exception], number: int) -> Path | None:
        try:
            if number == 1:
                raise kind(number)
            raise kind(number)
        except Exception as error:  # noqa: BLE001
            return logs.report(error)

    first = [read(kind, number) for number in (1, 2) for kind in (KeyError, ValueError)]
    assert len({path for path in first if path is not None}) == 4, "two types in two places"
    assert [read(kind, number) for number in (1, 2) for kind in (KeyError, ValueError)] == first
    assert set(logs.reports(Settings(home=home))) == set(first)
    assert (home / "logs" / "console.log").read_text().count("unexpected KeyError") == 2
    assert first[0] is not None
    first[0].unlink()
    assert read(KeyError, 1) not in (None, *first), "the report is gone"


def test_a_report_is_obeyed_by_no_terminal(home: Path) -> None:
    logs.start("cli", Settings(home=home))
    path = logs.report(ValueError("\x1b[31mred \udc80"))
    assert path is not None
    assert path.read_text().endswith("\nValueError: ␛[31mred ‹DC80›\n")


def test_processes_that_are_started_write_there_too(home: Path) -> None:
    assert logs.environment() == {}
    logs.start("cli", Settings(home=home, log_level="debug"))
    code = "import logging; from revector.core import logs; logs.start_worker(); logs.log.debug('here')"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | logs.environment(), check=True)
    assert "DEBUG" in (home / "logs" / "worker.log").read_text()
