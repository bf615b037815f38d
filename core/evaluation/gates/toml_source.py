"""A TOML file with the line and column of every key, so that errors can name the place.

tomllib gives values without their places, so these are read from the lines.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from revector.core.errors import UsageError

_MOST_BYTES = 256 * 1024
_PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")

_HEADER = re.compile(r"\s*(?P<header>(?P<array>\[)?\[\s*(?P<name>[\w-]+)[\w\s.-]*\])")
_ASSIGNMENT = re.compile(r"\s*[\"']?(?P<name>[\w-]+)[\"']?[\w\s.-]*=")

Key = tuple[str | int, ...]
Place = tuple[int, int]
"""Line and column, from 1."""


@dataclass(frozen=True)
class TomlSource:
    """What a file says. `text` has \\n at the end of lines."""

    path: Path
    text: str
    data: dict[str, Any]

    def places(self) -> dict[Key, Place]:
        """The places of keys: `("confidence",)`; `("gate", 0)` is the first [[gate]], `("gate", 0, "name")` a key
        in it.

        Searches line by line, so a line of a multi-line string may be mistaken for a key.
        """
        found: dict[Key, Place] = {}
        table: Key = ()
        counts: Counter[str] = Counter()
        for number, line in enumerate(self.text.split("\n"), 1):
            match = _HEADER.match(line)
            if match:
                table = (match["name"], counts[match["name"]]) if match["array"] else (match["name"],)
                counts[match["name"]] += 1
                found.setdefault(table, (number, match.start("header") + 1))
            elif match := _ASSIGNMENT.match(line):
                found.setdefault((*table, match["name"]), (number, match.start("name") + 1))
        return found


def read_toml(path: Path) -> TomlSource:
    """Read and parse it.

    Raises UsageError with file, line and column for invalid TOML, and for a file that cannot be read, is not UTF-8
    or is larger than 256 KiB.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    if len(raw) > _MOST_BYTES:
        raise UsageError(f"{path} has more than {_MOST_BYTES // 1024} KiB.", "That is not a gates file.")
    try:
        return TomlSource(path, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(_syntax_error(path, text, str(error))) from None
    except ValueError as error:  # an integer with thousands of digits
        raise UsageError(f"{path.name}: {error}.") from None
    except RecursionError:
        raise UsageError(f"{path.name}: arrays or tables are nested too deeply.") from None


def _syntax_error(path: Path, text: str, message: str) -> str:
    found = _PLACE.search(message)
    if found is None:
        return f"{path.name}: {message}."
    lines = text.split("\n")
    line, column = found["line"] or len(lines), found["column"] or len(lines[-1]) + 1
    return f"{path.name}:{line}:{column}: {message[: found.start()]}."
