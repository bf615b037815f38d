"""The console's first frame with live data against the first frame of an empty Textual app.

Both are whole processes in a terminal (a pseudo-terminal of 120 × 40), timed from exec until the terminal has been
sent the text looked for. Of the console that is the key of a version, which only the database knows: so its time
holds the start of Python, the imports, the connection, the first read and the drawing. Of the empty app it is the
one text it shows: what no Textual app can be faster than. Python's own start is shown for comparison.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from revector.core.database import Database
from tests.benchmarks.measure import Contender, in_turns, own_database, show_times
from tests.versions import add_chunks, ready_version

SCHEMA = "bench"
VERSION_KEY = "embed-v2026-03"
EMPTY_TEXT = "nothing-at-all"
EMPTY_APP = f"""
from textual.app import App
from textual.widgets import Static

class Empty(App):
    def compose(self):
        yield Static("{EMPTY_TEXT}")

Empty().run()
"""
COLUMNS, LINES = 120, 40
TIMEOUT_S = 30.0

_ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]P_^][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")


def run(rounds: int) -> None:
    """Measure, and print a table."""
    with own_database(SCHEMA) as database:
        _fill(database)
        environment = _environment(database)
        console = [str(Path(sys.executable).with_name("revector"))]
        empty = [sys.executable, "-c", EMPTY_APP]
        bare = [sys.executable, "-c", "print('python', 'starts')"]
        contenders = [
            Contender("revector", lambda: first_frame(console, VERSION_KEY, environment)),
            Contender("empty Textual app", lambda: first_frame(empty, EMPTY_TEXT, environment)),
            Contender("bare Python", lambda: first_frame(bare, "python starts", environment)),
        ]
        show_times(f"first frame, {COLUMNS} × {LINES}", in_turns(contenders, rounds))


def first_frame(command: Sequence[str], text: str, environment: Mapping[str, str]) -> float:
    """Seconds from the start of a program in a terminal until the terminal holds the text; then it is ended.

    Raises RuntimeError with the terminal's content when the program ends, or half a minute passes, without it.
    """
    start = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            # The terminal is the child's by now; its size has to stand before the program asks for it.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
            os.execve(command[0], list(command), dict(environment))  # noqa: S606 (a list of words, and no shell)
        finally:
            os._exit(127)
    try:
        return _await_text(terminal, text.encode(), start)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def _await_text(terminal: int, text: bytes, start: float) -> float:
    output = b""
    while (left := start + TIMEOUT_S - time.perf_counter()) > 0:
        if not select.select([terminal], [], [], left)[0]:
            break
        try:
            data = os.read(terminal, 1 << 16)
        except OSError:  # EIO: the program has ended
            break
        now = time.perf_counter()
        output += data
        if text in _ESCAPE.sub(b"", output):
            return now - start
        if not data:
            break
    shown = _ESCAPE.sub(b"", output).decode(errors="replace")
    raise RuntimeError(f"{text.decode()!r} did not appear in the terminal, which holds:\n{shown[-4000:]}")


def _environment(database: Database) -> dict[str, str]:
    """The caller's, with this database and a common terminal, and nothing else that reaches the console."""
    # PYTHONDONTWRITEBYTECODE would have the console's own modules, but not Textual's, compiled at every start.
    dropped = ("DATABASE_URL", "NO_COLOR", "PYTHONDONTWRITEBYTECODE")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("REVECTOR_", "PG", "TEXTUAL")) and name not in dropped
    }
    terminal = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    return kept | terminal | {"REVECTOR_DSN": database.dsn, "REVECTOR_SCHEMA": database.schema}


def _fill(database: Database) -> None:
    """A small collection with an active version and a candidate."""
    texts = [f"Entry {number}: how to rotate key {number * number}" for number in range(1_000)]
    with database.session("bench") as connection:
        add_chunks(connection, texts)
        ready_version(database, connection, VERSION_KEY, "static:wordllama-64")
        ready_version(database, connection, "embed-v2026-04", "static:wordllama-256")
        connection.execute("UPDATE embedding_versions SET active = (version_key = %s)", [VERSION_KEY])
