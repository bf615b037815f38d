"""A document that can be stored: it is checked and cleaned when it is created."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from revector.core.errors import UsageError

MAX_ID_CHARACTERS = 4_096
MAX_METADATA_BYTES = 64 * 1024
"""The limit for a document's metadata as JSON, which is repeated on each of the document's chunks."""
MAX_METADATA_DEPTH = 100
"""Levels of nesting. Postgres parses JSON recursively and fails at some stack depth."""
# Postgres stores neither NUL nor a lone surrogate (\ud800 in JSON), which has no UTF-8.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class DocumentError(UsageError):
    """A document that cannot be stored; `problem` says why."""


@dataclass(frozen=True)
class Origin:
    """Where a document was read: the folder that its id is relative to, as named by the caller and in full.

    `own_ids` says that the ids are written in the file, and not made from the names of files.
    """

    given: str
    path: str
    prefix: str = ""
    own_ids: bool = False


@dataclass(frozen=True)
class Document:
    """A text under the caller's id, checked and cleaned so that it can be stored.

    NUL characters and lone surrogates are removed from id, text and metadata, including keys and nested values;
    `cleaned` says whether there were any. `markdown` says how to cut the text. Do not change the metadata
    afterwards: `metadata_json` is what is stored.

    Raises DocumentError for an id that is empty or longer than MAX_ID_CHARACTERS, and for metadata that JSON
    cannot hold (NaN, infinity, other types) or that is too large or nested too deeply.
    """

    source_id: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    markdown: bool = False
    origin: Origin | None = field(default=None, compare=False)
    cleaned: bool = field(default=False, init=False, compare=False)
    metadata_json: str = field(default="{}", init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        source_id, text = _without_unstorable(self.source_id), _without_unstorable(self.text)
        if not source_id.strip():
            raise DocumentError("The id is empty.")
        if len(source_id) > MAX_ID_CHARACTERS:
            raise DocumentError(f"The id has {len(source_id):,} characters, more than {MAX_ID_CHARACTERS:,}.")
        metadata, as_json = _checked_metadata(self.metadata)
        cleaned = len(source_id) < len(self.source_id) or len(text) < len(self.text)
        object.__setattr__(self, "cleaned", cleaned or metadata is not self.metadata)
        object.__setattr__(self, "source_id", source_id)
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "metadata", metadata)
        object.__setattr__(self, "metadata_json", as_json)


def _without_unstorable(text: str) -> str:
    if text.isascii() and "\x00" not in text:
        return text
    return _UNSTORABLE.sub("", text)


def _checked_metadata(metadata: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The metadata, the same object when it was clean, and its JSON."""
    if _deeper_than(metadata, MAX_METADATA_DEPTH):
        raise DocumentError(f"The metadata is nested deeper than {MAX_METADATA_DEPTH} levels.")
    as_json = _to_json(metadata)
    # json writes NUL as \u0000, and a surrogate as itself. A false match (an escaped backslash before u0000) only
    # costs time.
    if "\\u0000" in as_json or _UNSTORABLE.search(as_json):
        clean = _clean_json(metadata)
        if (clean_json := _to_json(clean)) != as_json:
            metadata, as_json = clean, clean_json
    if (size := len(as_json.encode())) > MAX_METADATA_BYTES:
        raise DocumentError(f"The metadata has {size:,} bytes as JSON, more than {MAX_METADATA_BYTES:,}.")
    return metadata, as_json


def _to_json(metadata: dict[str, Any]) -> str:
    try:
        return json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DocumentError(f"The metadata is not JSON: {error}.") from None


def _deeper_than(value: object, levels: int) -> bool:
    if isinstance(value, dict):
        return levels == 0 or any(_deeper_than(inner, levels - 1) for inner in value.values())
    if isinstance(value, list | tuple):
        return levels == 0 or any(_deeper_than(inner, levels - 1) for inner in value)
    return False


def _clean_json(value: Any) -> Any:
    if isinstance(value, str):
        return _without_unstorable(value)
    if isinstance(value, dict):
        return {_clean_json(key): _clean_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean_json(inner) for inner in value]
    return value
