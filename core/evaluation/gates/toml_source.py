"""A TOML file with the line and column of every key, so that an error in it can be pointed at.

tomllib gives values without their places. A TOML file is a row of statements (`[[gate]]`, `key = value`) each of which
is TOML by itself, though, so they are parsed one by one for their places; the file as a whole stays tomllib's.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from revector.core.errors import UsageError

_MOST_BYTES = 256 * 1024
_MOST_LINES = 200
"""Of one value. A longer one is not worth finding its end."""
_PLACE = re.compile(r" \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")

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
        """Where keys are: `("confidence",)`; `("gate", 0)` is the first [[gate]], `("gate", 0, "name")` in it.

        What is inside a value, or named by a dotted key, has the place of its statement only, under the first name.
        """
        found: dict[Key, Place] = {}
        table: Key = ()
        counts: dict[str, int] = {}
        lines = self.text.split("\n")
        number = 0
        while number < len(lines):
            statement = _statement(lines, number)
            if statement is None:
                return found
            data, length = statement
            line = lines[number]
            place = (number + 1, len(line) - len(line.lstrip()) + 1)
            if line.lstrip().startswith("["):
                ((name, value),) = data.items()
                if value == [{}]:
                    counts[name] = counts.get(name, -1) + 1
                table = (name, *([counts[name]] if name in counts else []), *_names(value))
                found.setdefault(table, place)
            else:
                found.update({(*table, name): place for name in data})
            number += length
        return found


def read_toml(path: Path) -> TomlSource:
    """Read and parse it.

    Raises UsageError with file, line and column for what is not TOML, and for a file that cannot be read, is not UTF-8
    or has more than 256 KiB.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    if len(raw) > _MOST_BYTES:
        raise UsageError(f"{path} has more than {_MOST_BYTES // 1024} KiB.", "That is no file of gates.")
    try:
        return TomlSource(path, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(_syntax_error(path, text, str(error))) from None
    except ValueError as error:  # a whole number of thousands of digits
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


def _statement(lines: list[str], start: int) -> tuple[dict[str, Any], int] | None:
    """The statement that begins on that line, and how many lines it has; None where its end is not found."""
    for length in range(1, min(_MOST_LINES, len(lines) - start) + 1):
        try:
            return tomllib.loads("\n".join(lines[start : start + length])), length
        except ValueError:
            continue
    return None


def _names(value: object) -> Key:
    """The further names of a header: of [a.b.c], parsed to {"b": {"c": {}}}, `b` and `c`."""
    while isinstance(value, list):
        value = value[-1]
    if isinstance(value, dict) and value:
        (name, inner), *_ = value.items()
        return (name, *_names(inner))
    return ()
