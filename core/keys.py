"""The JSON keys of an object: its fields with a description, as in `missing: Annotated[int, "chunks it lacks"]`.

Fields without a description are internal, and may change at any time.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import lru_cache
from typing import Any


def document(value: Any, kind: type | None = None) -> Any:
    """The value as JSON data (times are left as they are): objects become their keys, also in lists and mappings.

    `kind` is a base class of its type, to get only that one's keys.
    """
    if names := keys_of(kind or type(value)):
        return {name: document(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {name: document(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [document(part) for part in value]
    return value


@lru_cache
def keys_of(kind: type) -> tuple[str, ...]:
    """The described fields and properties of a class; those of its bases come first."""
    names: dict[str, None] = {}
    for one in reversed(kind.__mro__):
        properties = {name: member.fget for name, member in vars(one).items() if isinstance(member, property)}
        hints = vars(one).get("__annotations__", {}) | {
            name: getattr(getter, "__annotations__", {}).get("return") for name, getter in properties.items()
        }
        for name, hint in hints.items():
            if isinstance(hint, str) and worded(ast.parse(hint, mode="eval").body):
                names[name] = None
    return tuple(names)


def worded(hint: ast.expr | None) -> tuple[ast.expr, str] | None:
    """The type and the description of `Annotated[int, "description"]`; None for any other hint."""
    match hint:
        case ast.Subscript(ast.Name("Annotated"), ast.Tuple([inner, ast.Constant(str(words))])):
            return inner, words
    return None
