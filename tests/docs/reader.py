"""Somebody who follows a page: does what its blocks say, one after the other, on a demo collection of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg
import pytest

from revector.core import embedded
from revector.core.backfill.job.settings import default_settings
from revector.core.settings import load_settings
from tests.console.cli.program import Result, Revector
from tests.docs.pages import ROOT, Block, matches, words_of

_BIN = Path(sys.executable).parent
_STATUS = re.compile(r"# exit status (\d+)")
_QUOTED = re.compile(r"'[^']*'|\"[^\"$`]*\"| #.*")
_SHELL = re.compile(r"[|&;<>$`]")
_PORT = "8765"
_CHECKOUT = ".venv/bin/"


class Reader:
    """One page's reader. `home` holds the embedded server, `folder` is where commands run."""

    def __init__(self, home: Path, folder: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self._home, self._folder, self._port, self._patch = home, folder, port, monkeypatch
        self._names: dict[str, object] = {"__name__": "__main__"}
        self._sql: psycopg.Connection[tuple[object, ...]] | None = None
        monkeypatch.chdir(folder)
        monkeypatch.setenv("REVECTOR_HOME", str(home))
        monkeypatch.setenv("PATH", f"{_BIN}{os.pathsep}{os.environ['PATH']}")

    def follow(self, block: Block) -> None:
        """Do what a block says, and compare what it shows. Raises AssertionError when it is otherwise."""
        if block.file is not None:
            (self._folder / block.file).write_text(block.text, encoding="utf-8")
        kinds: Mapping[str, Callable[[Block], None]] = {
            "sh": self._type, "console": self._type, "python": self._python, "sql": self._query, "toml": _parse,
        }  # fmt: skip
        if block.language in kinds and (block.file is None or block.language == "toml"):
            (_look_at if block.needs else kinds[block.language])(block)

    def close(self) -> None:
        """Stop the page's server."""
        if self._sql is not None:
            self._sql.close()
        embedded.stop(self._home)

    def _type(self, block: Block) -> None:
        if re.search(r" &$", block.text, re.MULTILINE):  # what runs beside has to be of the same shell
            self._shell(block.text)
            return
        for command, shown in block.commands:
            wanted = int(found[1]) if (found := _STATUS.search(command)) else 0
            try:
                result = self._command(command, wanted)
            except AssertionError as error:
                raise AssertionError(f"{block}: {command}\n{error}") from None
            if shown and not any(matches(shown, text) for text in (result.out, result.err + result.out)):
                raise AssertionError(f"{block}: {command}\nshows\n{chr(10).join(shown)}\nbut prints\n{result}")

    def _command(self, command: str, status: int) -> Result:
        words = words_of(command)
        if words[0] == "export":
            name, _, _ = words[1].partition("=")
            self._patch.setenv(name, self._shell(f'{command}\nprintf %s "${name}"').out)
            return Result(0, "", "")
        if words[0] == "make":
            return self._shell(f"make --dry-run --directory {ROOT} {' '.join(words[1:])}")
        if Path(words[0]).name == "revector" and not _SHELL.search(_QUOTED.sub("", command)):
            return Revector(self._folder).call(*words[1:], status=status)
        return self._shell(command, status, folder=ROOT if words[0].startswith(_CHECKOUT) else self._folder)

    def _shell(self, script: str, status: int = 0, folder: Path | None = None) -> Result:
        script = script.replace(_PORT, str(self._port)).replace(_CHECKOUT, f"{_BIN}/")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder or self._folder,
        )
        result = Result(done.returncode, done.stdout, done.stderr)
        assert done.returncode == status, result
        return result

    def _python(self, block: Block) -> None:
        exec(compile("\n" * (block.line - 1) + block.text, str(block.page), "exec"), self._names)  # noqa: S102

    def _query(self, block: Block) -> None:
        expected = re.search(r"^-- ERROR: +(.+)$", block.text, re.MULTILINE)
        found = ""
        try:
            self._session().execute(block.text.encode())
        except psycopg.Error as error:
            found = str(error)
        assert (expected[1] in found) if expected else not found, f"{block}: {found or 'no error'}"

    def _session(self) -> psycopg.Connection[tuple[object, ...]]:
        if self._sql is None:
            dsn = embedded.start(self._home).dsn
            self._sql = psycopg.connect(dsn, autocommit=True, options="-c search_path=revector,public")
        return self._sql


def _parse(block: Block) -> None:
    tomllib.loads(block.text)
    if block.file == "revector.toml":
        default_settings(load_settings())


def _look_at(block: Block) -> None:
    """A block that needs what no test has: it is read as far as can be without."""
    if block.language in ("sh", "console"):
        for command, _ in block.commands:
            subprocess.run(["bash", "-n", "-c", command], check=True, capture_output=True)
    elif block.language == "python":
        compile(block.text, str(block), "exec")
    elif block.language == "toml":
        _parse(block)
