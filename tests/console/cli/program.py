"""The program as users run it: as a process, at a terminal, and, where a process adds nothing, as a call."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from revector.console.program import main
from tests.console.cli.contract import command_of, hold_to_contract

PROGRAM = Path(sys.executable).with_name("revector")
SECRET = "sesame"  # noqa: S105
"""The password in every test that has one: no output may ever show it."""


@dataclass(frozen=True)
class Result:
    """The result of a command. No output may contain a traceback, a raw escape sequence or the password.

    A document has exactly the keys of the command's contract.
    """

    status: int
    out: str
    err: str
    command: str = ""

    def __post_init__(self) -> None:
        both = self.out + self.err
        assert "Traceback" not in both, both
        assert "\x1b" not in both, repr(both)
        assert SECRET not in both, both

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        assert self.out.count("\n") == 1, self.out
        found = json.loads(self.out)
        assert isinstance(found, dict)
        hold_to_contract(self.command, found)
        return found

    @property
    def error(self) -> dict[str, str]:
        """The problem in the document of a command that failed."""
        return self.document["error"]  # type: ignore[no-any-return]


class _Stream(io.TextIOWrapper):
    """A stream in memory that may say that it is a terminal."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal


@dataclass(frozen=True)
class Revector:
    """The command line with the global options of one collection."""

    folder: Path
    options: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    def with_options(self, *options: str, **environment: str) -> Revector:
        """The same with more global options and environment variables."""
        return Revector(self.folder, (*self.options, *options), (*self.environment, *environment.items()))

    def call(self, *arguments: str, status: int | None = 0, columns: int | None = None) -> Result:
        """Call the program in this process; with `columns`, its stdout is a terminal of that width. Any exit status is
        right when `status` is None.
        """
        out, err = (_Stream(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        out.terminal = columns is not None
        code: object = 0
        with (
            mock.patch.object(sys, "argv", ["revector", *self.options, *arguments]),
            mock.patch.dict(os.environ, dict(self.environment) | ({"COLUMNS": str(columns)} if columns else {})),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as end:
                code = end.code
        texts = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
        return _checked(Result(int(str(code or 0)), *texts, command_of(arguments)), status)

    def run(self, *arguments: str, status: int = 0) -> Result:
        """Run the program as a separate process, without a terminal."""
        process = self.start(*arguments)
        return finish(process, status)

    def start(self, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
        """Start the program; its streams are pipes unless given, and Ctrl-C reaches it."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # A process started while SIGINT is ignored (tests run in the background) would ignore it too.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(
                [PROGRAM, *self.options, *arguments],
                cwd=self.folder,
                env=plain_environment(self.folder) | dict(self.environment),
                text=True,
                **given | streams,
            )
        finally:
            signal.signal(signal.SIGINT, before)

    def type(self, text: str, *arguments: str, status: int = 0) -> Result:
        """Run the program at a terminal, and type a line at its prompt; stdout is a pipe."""
        keyboard, terminal = os.openpty()
        try:
            process = self.start(*arguments, stdin=terminal, stderr=terminal)
            os.close(terminal)
            shown = b""
            with contextlib.suppress(OSError):  # Linux says EIO when the last holder of the terminal is gone
                while part := os.read(keyboard, 4096):
                    shown += part
                    if shown.rstrip().endswith(b"to confirm:"):
                        os.write(keyboard, f"{text}\n".encode())
                        shown += b"\n"
            out, _ = process.communicate()
            err = shown.decode().replace("\r\n", "\n")
            return _checked(Result(process.returncode, out, err, command_of(arguments)), status)
        finally:
            os.close(keyboard)


def finish(process: subprocess.Popen[str], status: int = 0) -> Result:
    """Wait for a program that was started, and read what it wrote."""
    out, err = process.communicate()
    command = command_of(process.args if isinstance(process.args, list) else [])
    return _checked(Result(process.returncode, out or "", err or "", command), status)


def _checked(result: Result, status: int | None) -> Result:
    assert status in (None, result.status), (
        f"exit status {result.status}, not {status}\n{result.out}\n{result.err}"
    )
    return result


def timeless(text: str) -> str:
    """What a command wrote, without the times that it took."""
    return re.sub(r"[\d.]+ (m?s|%)\b", "", text)


def plain_environment(folder: Path) -> dict[str, str]:
    """The environment for a process, without this machine's settings."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    return kept | {"HOME": str(folder)}
