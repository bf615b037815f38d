"""Closed and full streams, a terminal that is only a part of one, and Ctrl-C before a command runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.console.cli.program import PROGRAM, Revector, finish, plain_environment

INTERRUPTED = """
import os
import signal
import sys
class CtrlC:
    def find_spec(self, name, *_):
        if name == os.environ["INTERRUPTED"]:
            sys.meta_path.remove(self)
            signal.raise_signal(getattr(signal, os.environ["SIGNAL"]))
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, CtrlC())
from revector.console.program import main
main()
"""


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [("", 2, "The console needs a terminal."), ("versions drop v1", 1, "Version v1 is active")],
)
def test_a_closed_stdin_is_no_terminal(library: Revector, command: str, status: int, message: str) -> None:
    ended = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" <&-', "sh", PROGRAM, *library.options, *command.split()], capture_output=True,
        text=True, check=False, cwd=library.folder, env=plain_environment(library.folder),
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (status, "")
    assert message in ended.stderr


@pytest.mark.parametrize("redirected", ["stdin", "stdout", "stderr"])
def test_no_console_on_a_part_of_a_terminal(tmp_path: Path, redirected: str) -> None:
    other, terminal = os.openpty()
    try:
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
        streams[redirected] = subprocess.DEVNULL if redirected == "stdin" else subprocess.PIPE
        finish(Revector(tmp_path).start(**streams), status=2)
    finally:
        os.close(terminal)
        os.close(other)


def test_a_usage_error_on_a_full_stderr_is_one(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        result = finish(Revector(tmp_path).start("nope", "--json", stderr=full), status=2)
    assert json.loads(result.out)["error"]["kind"] == "usage"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    "module", ["revector.console.cli", "revector.console.commands.info", "revector.core.logs"]
)
def test_a_signal_while_modules_are_imported(tmp_path: Path, module: str, name: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "info", "--json"], capture_output=True, text=True, check=False,
        cwd=tmp_path, env=plain_environment(tmp_path) | {"INTERRUPTED": module, "SIGNAL": name},
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (130, "")
    assert json.loads(ended.stdout)["error"] == {"problem": "Interrupted.", "remedy": "", "kind": "interrupted"}
