"""The keys of JSON documents, as shown by `revector COMMAND --help`, from their types (see core.keys).

They are read from the source, since importing core would slow down the help.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from revector.core.keys import worded

_ROOT = Path(__file__).parents[1]


def answering(*types: str, **rows: str) -> type[TyperCommand]:
    """The class of a command whose document has the keys of these types, each named as `module:class` in revector.

    `rows` are further keys: each a list of objects of that type.
    """

    class Answering(TyperCommand):
        keys = staticmethod(functools.partial(documented_keys, *types, **rows))

        def parse_args(self, context: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
            """Refuse an empty path, which a variable that is not set leaves: it is not the working directory."""
            empty = any(not arg or arg.endswith("=") for arg in args)
            rest = super().parse_args(context, args)
            for param in self.params if empty else ():
                value = context.params.get(param.name or "")
                if Path() in (value if isinstance(value, (list, tuple)) else [value]):
                    raise typer.BadParameter(f"{param.name}: the path is empty. Is a variable not set?", context)
            return rest

        def format_epilog(self, _context: typer.Context, formatter: Any) -> None:  # type: ignore[override]
            """The keys and their descriptions."""
            with formatter.section("Keys of the JSON document"):
                formatter.write_dl(list(self.keys().items()))

    return Answering


def documented_keys(*types: str, **rows: str) -> dict[str, str]:
    """Every key of a document, including nested ones (`hits[].rank`), with its description."""
    found: dict[str, str] = {}
    for name in types:
        found.update(_keys(*name.split(":")))
    for key, name in rows.items():
        module, _, kind = name.partition(":")
        home = _find(module, kind)
        found[key] = (ast.get_docstring(home[1]) or "").partition("\n")[0] if home else ""
        found.update(_keys(module, kind, f"{key}[]."))
    return found


def _keys(module: str, name: str, path: str = "") -> Iterator[tuple[str, str]]:
    if (found := _find(module, name)) is None:
        return
    home, declared = found
    for base in declared.bases:
        yield from _keys(home, getattr(base, "id", ""), path)
    for node in declared.body:
        match node:
            case ast.AnnAssign(ast.Name(key), hint) | ast.FunctionDef(name=key, returns=hint):
                if said := worded(hint):
                    yield f"{path}{key}", said[1]
                    for part, place in _parts(said[0]):
                        yield from _keys(home, part, f"{path}{key}{place}.")


def _parts(hint: ast.expr) -> Iterator[tuple[str, str]]:
    """The names in a hint, each with its place: `[]` in a list, `.*` in a mapping."""
    match hint:
        case ast.Name(name):
            yield name, ""
        case ast.BinOp(left, _, right):
            yield from (*_parts(left), *_parts(right))
        case ast.Subscript(ast.Name("list" | "tuple"), ast.Tuple([inner, *_]) | inner):
            yield from ((name, f"[]{place}") for name, place in _parts(inner))


def _find(module: str, name: str) -> tuple[str, ast.ClassDef] | None:
    """A class of revector and its defining module: this one, or one that it is imported from."""
    classes, imported = _read(module)
    if name in classes:
        return module, classes[name]
    return _find(*imported[name]) if name in imported else None


@functools.lru_cache
def _read(module: str) -> tuple[dict[str, ast.ClassDef], dict[str, tuple[str, str]]]:
    path = _ROOT.joinpath(*module.split("."))
    text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(text)))
    imported = {
        alias.asname or alias.name: (node.module.removeprefix("revector."), alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("revector.")
        for alias in node.names
    }
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}, imported
