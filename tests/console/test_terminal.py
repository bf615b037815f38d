"""The console in a real terminal: tmux, in both sizes, and what it leaves behind."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from revector.core.backfill.job.status import status
from revector.core.database import Database
from revector.core.registry import get_version
from tests.databases import copied
from tests.protocol_server import Gate, ProtocolServer
from tests.screens.support import LARGE, SMALL, fill
from tests.versions import add

pytestmark = pytest.mark.terminal
ROOT = Path(__file__).resolve().parents[2]

RUNNER = """
import os
import sys
from pathlib import Path
Path(sys.argv[3]).write_text(str(os.getpid()))
from revector.console.app import run_console
from revector.core.database import Database
from revector.core.settings import Settings
run_console(Database(sys.argv[1], sys.argv[2]), Settings(label="tmux"))
"""

CRASHING = """
import sys
from revector.console.app import RevectorApp
async def failing(self, tab):
    words = self.services.database.dsn
    raise ValueError("a bug")
RevectorApp.go_to = failing
from revector.console.program import main
main()
"""


@pytest.fixture(scope="module")
def library(template: Database) -> Iterator[Database]:
    with copied(template) as database:
        fill(database)
        yield database


class Terminal:
    """A separate tmux server with one window."""

    def __init__(self, folder: Path, size: tuple[int, int], command: str, **environment: str) -> None:
        self._socket = str(folder / "tmux")
        variables = [f"-e{name}={value}" for name, value in environment.items()]
        self._run(
            "-f", "/dev/null", "new-session", "-d", "-x", str(size[0]), "-y", str(size[1]), *variables,
            f"{command}; echo ended with $?; stty -a; exec sh",
        )  # fmt: skip

    def _run(self, *arguments: str) -> str:
        # Without the size that somebody else wrote down (readline does, and who starts the tests may): it is tmux that
        # says how large its terminal is.
        environment = {name: value for name, value in os.environ.items() if name not in ("LINES", "COLUMNS")}
        command = ["tmux", "-S", self._socket, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment
        ).stdout

    def keys(self, *keys: str) -> None:
        self._run("send-keys", *keys)

    def screen(self, *, colours: bool = False) -> str:
        return self._run("capture-pane", "-p", *(["-e"] if colours else []))

    def resize(self, width: int, height: int) -> None:
        self._run("resize-window", "-x", str(width), "-y", str(height))

    def wait(self, *texts: str) -> str:
        deadline = time.monotonic() + 30
        while True:
            screen = self.screen()
            if all(text in screen for text in texts):
                return screen
            assert time.monotonic() < deadline, f"not within 30 s: {texts}\n{screen}"
            time.sleep(0.05)

    def close_window(self) -> None:
        """Like closing the terminal: its processes get SIGHUP."""
        self._run("kill-session")

    def end(self) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True, check=False)


@pytest.fixture
def command(library: Database, tmp_path: Path) -> str:
    runner = tmp_path / "runner.py"
    runner.write_text(RUNNER)
    return shlex.join(
        [
            "env", f"PYTHONPATH={ROOT}", sys.executable, "-W", "ignore", str(runner), library.dsn, library.schema,
            str(tmp_path / "pid"),
        ]
    )  # fmt: skip


@pytest.fixture
def folder() -> Iterator[Path]:
    # A socket's address is short: the test's own folder may be too deep.
    path = Path("/tmp") / f"tmux-{uuid.uuid4().hex[:8]}"  # noqa: S108
    path.mkdir(mode=0o700)
    yield path
    shutil.rmtree(path)


@pytest.mark.parametrize("size", [LARGE, SMALL], ids=["large", "small"])
def test_live_data_tabs_a_search_and_a_sane_terminal(folder: Path, command: str, size: tuple[int, int]) -> None:
    terminal = Terminal(folder, size, command)
    try:
        screen = terminal.wait("active demo-64", "demo-256", "READ/WRITE", "●", "? help")
        assert screen.startswith(" revector ─ tmux/Test_collection ─ active demo-64 ─ READ/WRITE ─ ")
        assert len(screen.rstrip("\n").split("\n")) == size[1]
        for tab, text in (("2", "100.0 %"), ("6", "13 of 13 pass"), ("8", "cutover"),
                          ("3", "overlap by depth")):  # fmt: skip
            terminal.keys(tab)
            terminal.wait(f"[{tab} ", text)
        terminal.keys("/")
        terminal.wait("search both")
        terminal.keys("-l", "rotate an api key")
        terminal.keys("Enter")
        terminal.wait("overlap@10", "RBO", "•", "Rotating credentials")
        terminal.keys("?")
        terminal.wait("Everywhere", "esc close")
        terminal.keys("Escape")
        terminal.wait("overlap@10", "/ query")
        terminal.resize(60, 20)
        terminal.wait("Too small: 60×20.")
        terminal.resize(*size)
        terminal.wait("overlap@10")
        terminal.keys("q")
        screen = terminal.wait("ended with 0", " icanon", " echo ")
        assert "Traceback" not in screen
        terminal.keys("-l", "echo typed $((40+2))")
        assert "typed 42" not in terminal.wait("echo typed $((40+2))")
        terminal.keys("Enter")
        terminal.wait("typed 42")
    finally:
        terminal.end()


def test_without_colours(folder: Path, command: str) -> None:
    terminal = Terminal(folder, SMALL, command, NO_COLOR="1")
    try:
        terminal.wait("active demo-64", "▶", "[1 Versions]")
        colours = {part.split("m")[0] for part in terminal.screen(colours=True).split("\x1b[")[1:]}
        for code in colours:
            parts = [int(number) for number in code.split(";") if number]
            for kind in (38, 48):
                if kind in parts and parts[parts.index(kind) + 1] == 2:
                    red, green, blue = parts[parts.index(kind) + 2 : parts.index(kind) + 5]
                    assert red == green == blue, f"a colour: {code}"
        terminal.keys("q")
        terminal.wait("ended with 0")
    finally:
        terminal.end()


def test_ctrl_c_leaves_a_sane_terminal(folder: Path, command: str) -> None:
    terminal = Terminal(folder, SMALL, command)
    try:
        terminal.wait("active demo-64")
        terminal.keys("C-c")
        screen = terminal.wait("ended with 0", " icanon")
        assert "Traceback" not in screen
    finally:
        terminal.end()


@pytest.mark.parametrize("how", ["sigterm", "closed"])
def test_a_console_that_is_ended_pauses_what_runs_in_it(
    folder: Path, tmp_path: Path, command: str, library: Database, how: str
) -> None:
    """The current batch is stored, the job is paused, no worker stays behind, and the terminal is sane."""
    with ProtocolServer() as provider:
        key = f"demo-{how}"
        with library.session("test") as connection:
            add(connection, key, f"openai:house-model?price=0&base_url={provider.base_url}")
        gate = Gate(provider, lambda _text: True)
        terminal = Terminal(folder, SMALL, command, REVECTOR_BATCH_SIZE="4")
        try:
            terminal.wait("active demo-64", key)
            terminal.keys("End", "b")
            terminal.wait("[2 Backfill]", "no backfill yet")
            terminal.keys("r")
            assert gate.reached.wait(60)
            pid = int((tmp_path / "pid").read_text())
            if how == "sigterm":
                os.kill(pid, signal.SIGTERM)
            else:
                terminal.close_window()
            wait_for(library, key, lambda state, _workers: state in ("pausing", "paused"))
            gate.open()
            wait_for(library, key, lambda *found: found == ("paused", 0))
            if how == "sigterm":
                assert "Traceback" not in terminal.wait("ended with 143", " icanon", " echo ")
            else:
                wait_until(lambda: not Path(f"/proc/{pid}").exists())
        finally:
            gate.open()
            terminal.end()


def test_a_crash_leaves_a_report_and_a_sane_terminal(folder: Path, library: Database) -> None:
    """No local variable is shown: the connection string with its password is one."""
    dsn = f"{library.dsn}&password=open-sesame"
    arguments = shlex.join(["-c", CRASHING, "--dsn", dsn, "--schema", library.schema])
    terminal = Terminal(
        folder, LARGE, f"{shlex.quote(sys.executable)} -W ignore {arguments}; echo status $?",
        REVECTOR_HOME=str(folder), PYTHONPATH=str(ROOT),
    )  # fmt: skip
    try:
        terminal.wait("active demo-64", "? help")
        terminal.keys("2")
        screen = terminal.wait("ended with", " icanon", " echo ")
        (report,) = (folder / "logs").glob("crash-*.txt")
        lines = [line for line in screen.splitlines() if line.strip()]
        status = lines.index("status 1")
        assert lines[status - 2] == "An unexpected error ended revector: ValueError."
        assert lines[status - 1] == f"The report is in {report}"
        assert "in failing\n" in report.read_text()
        assert "console: revector" in report.read_text()
        log = (folder / "logs" / "console.log").read_text()
        assert report.name in log
        for text in (screen, report.read_text(), log):
            assert "open-sesame" not in text
            assert "locals" not in text
    finally:
        terminal.end()


def wait_for(database: Database, key: str, condition: Callable[[str, int], bool]) -> tuple[str, int]:
    """The state of a backfill and its workers, once a condition holds."""
    found: list[tuple[str, int]] = []

    def holds() -> bool:
        with database.session("test") as connection:
            job = status(connection, get_version(connection, key))
            assert job is not None
            found[:] = [(job.state, job.workers)]
        return condition(*found[0])

    wait_until(holds)
    return found[0]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "not within 30 s"
        time.sleep(0.05)
