"""A document from a line of JSON or a record of CSV."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from typing import Any

from revector.core.documents.document import Document, DocumentError, Origin
from revector.core.text import quote


@dataclass(frozen=True)
class Naming:
    """Where a record's id and text are: names of members or columns. None for the id: `id`, or else `_id`."""

    id: str | None = None
    text: str = "text"
    prefix: str = ""
    """What is put before each id."""
    origin: Origin | None = None

    def take_id(self, row: dict[str, Any]) -> str:
        """Remove the id from the row. Raises DocumentError."""
        name = self.id or ("id" if "id" in row else "_id")
        if name not in row:
            raise DocumentError(f"The {_called('id', self.id or 'id')} is missing.")
        value = row.pop(name)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise DocumentError(f"The id is {_kind(value)}, not a string or a whole number.")
        text = str(value)
        return f"{self.prefix}{text}" if text.strip() else ""

    def take_text(self, row: dict[str, Any]) -> str:
        """Remove the text from the row. Raises DocumentError."""
        if self.text not in row:
            raise DocumentError(f"The {_called('text', self.text)} is missing.")
        value = row.pop(self.text)
        if not isinstance(value, str):
            raise DocumentError(f"The text is {_kind(value)}, not a string.")
        return value


def from_json(naming: Naming, line: bytes) -> Document:
    """The document of a line. Raises DocumentError."""
    try:
        row = json.loads(_decoded(line))
    except json.JSONDecodeError as error:
        raise DocumentError(f"This is not JSON: {error.msg} at character {error.pos + 1}.") from None
    except RecursionError:
        raise DocumentError("This JSON is nested too deeply.") from None
    except ValueError as error:  # a number with more digits than Python converts
        raise DocumentError(f"This is not JSON: {error}.") from None
    if not isinstance(row, dict):
        raise DocumentError(f"Expected an object with id and text, not {_kind(row)}.")
    source_id, text = naming.take_id(row), naming.take_text(row)
    title = row.get("title")
    if title is not None and not isinstance(title, str):
        raise DocumentError(f"The title is {_kind(title)}, not a string.")
    if title is None or not title.strip():
        row.pop("title", None)
    else:
        text = f"{title}\n{text}"
    inner = row.pop("metadata", None)
    if isinstance(inner, dict):
        row = {**inner, **row}
    elif inner is not None:
        row["metadata"] = inner
    return Document(source_id, text, row, origin=naming.origin)


def header(naming: Naming, names: list[str]) -> list[str]:
    """The columns named in the first record. Raises DocumentError."""
    columns = [name.strip() for name in names]
    named = [name for name in columns if name]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise DocumentError(f"The header has the column {quote(twice[0])} twice. The file was skipped.")
    for name in (naming.id or "id", naming.text):
        if name not in columns and not (naming.id is None and name == "id" and "_id" in columns):
            option = "--text" if name == naming.text else "--id"
            raise DocumentError(
                f"The header has no column {name!r}, only {quote(', '.join(named))}. The file was skipped. "
                f"Another column: {option}"
            )
    return columns


def from_fields(naming: Naming, columns: list[str], values: list[str]) -> Document:
    """The document of a record. Raises DocumentError."""
    if len(values) != len(columns):
        raise DocumentError(f"The record has {len(values)} fields, the header {len(columns)}.")
    # Data frames write their row numbers to a column without a name.
    row = {name: value for name, value in zip(columns, values, strict=True) if name}
    return Document(naming.take_id(row), naming.take_text(row), row, origin=naming.origin)


def csv_fields(record: bytes) -> list[str]:
    """The fields of a record. Raises DocumentError."""
    try:
        return next(csv.reader([_decoded(record)], strict=True), [])
    except csv.Error as error:
        raise DocumentError(f"This is not CSV: {error}.") from None


def tsv_fields(line: bytes) -> list[str]:
    """The fields of a line. One that is wholly in quotes, with all others doubled, is without them, as pandas writes.

    Others keep their quotes: most programs write what is between two tabs as it is. Raises DocumentError.
    """
    return [_unquoted(field) for field in _decoded(line).split("\t")]


def _unquoted(field: str) -> str:
    inner = field[1:-1]
    if len(field) < 2 or not field.startswith('"') or not field.endswith('"') or '"' in inner.replace('""', ""):
        return field
    return inner.replace('""', '"')


def _called(what: str, name: str) -> str:
    return what if name == what else f"{what} ({name})"


def _kind(value: object) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "a non-finite number"
    kinds = {
        type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "a string",
        list: "a list", dict: "an object",
    }  # fmt: skip
    return kinds[type(value)]


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DocumentError(not_utf8(error)) from None


def not_utf8(error: UnicodeDecodeError) -> str:
    """The message for bytes that are not text."""
    return f"This is not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start:,} cannot be decoded."
