"""The front matter of Markdown files: YAML between lines of dashes, before the text."""

from __future__ import annotations

import datetime
import re
from typing import Any

from revector.core.documents.document import MAX_METADATA_BYTES, DocumentError

# The end is a line of its own, and so is the beginning, which nothing precedes.
_FENCED = re.compile(r"---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)


def take_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The metadata before a text, and the text after it. What is no mapping in YAML is text: a rule, for example.

    Raises DocumentError for one that is too large, and for aliases, which could make it expand without end.
    """
    found = _FENCED.match(text) if text.startswith("---") else None
    if found is None:
        return {}, text
    if len(found[1]) > MAX_METADATA_BYTES:
        raise DocumentError(f"The front matter has more than {MAX_METADATA_BYTES:,} characters.")
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise DocumentError("The front matter has an alias (*), which is not read.")
            return super().compose_node(parent, index)

    try:
        values = yaml.load(found[1], Loader)  # noqa: S506  (a safe loader)
    except RecursionError:
        raise DocumentError("The front matter is nested too deeply.") from None
    except (yaml.YAMLError, ValueError):
        return {}, text
    if not isinstance(values, dict):
        return {}, text
    return _as_json(values), text[found.end() :]


def _as_json(value: Any) -> Any:
    """YAML has keys that are no strings, dates, sets and bytes."""
    if isinstance(value, dict):
        return {str(key): _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_as_json(inner) for inner in value]
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value
