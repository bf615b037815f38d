"""`revector cutover check`, `guards` and `policy`: what stands between a version and its users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.commands import cutover as group
from console.commands.options import Json
from console.commands.versions import Key
from console.context import answer, context_of, plain, print_rows

if TYPE_CHECKING:
    from rich.console import Console

    from core.cutover import Check

Waive = Annotated[
    list[str] | None,
    typer.Option("--waive", metavar="GUARD=REASON", help="A guard that need not pass, and why; may be repeated."),
]


def register(_root: typer.Typer) -> None:
    """Add the commands to the group of cutovers."""
    for command in (check, guards, policy):
        group.app.command()(command)


def check(context: typer.Context, key: Key, waive: Waive = None, as_json: Json = False) -> None:
    """Run every guard.

    Exit status 0 when each passes or is waived, 1 when one fails, 3 when none fails and one cannot tell.
    """
    from core import cutover

    waivers = pairs(waive or [], "--waive")
    with context_of(context).session() as connection:
        result = cutover.check(connection, key, waivers=waivers)
    answer(check_document(result), as_json, lambda console: _show_check(console, result))
    if not result.ready:
        raise typer.Exit(1 if any(one.verdict == "fail" and not one.waived for one in result.guards) else 3)


def guards(context: typer.Context, as_json: Json = False) -> None:
    """What each guard looks at, the thresholds in force, and whether it can be waived."""
    from core.cutover import GUARDS, read_policy
    from core.cutover.policy import shown

    with context_of(context).session() as connection:
        now = read_policy(connection)
    document = [
        {
            "name": rule.name,
            "about": rule.about,
            "settings": {name: getattr(now, name) for name in rule.settings},
            "in_flip": rule.in_flip,
            "waivable": rule.waivable,
        }
        for rule in GUARDS
    ]

    def show(console: Console) -> None:
        from rich.table import Column

        rows = []
        for rule in GUARDS:
            settings = ", ".join(f"{name}={shown(now, name)}" for name in rule.settings)
            rows.append((rule.name, "yes" if rule.waivable else "no", rule.about))
            if settings:
                rows.append(("", "", settings))
        print_rows(console, rows, "guard", "waivable", Column("looks at", overflow="fold"))

    answer({"guards": document}, as_json, show)


def policy(
    context: typer.Context,
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]…", help="`default` goes back to the default, `none` lifts a limit."),
    ] = None,
    reason: group.Reason = "",
    as_json: Json = False,
) -> None:
    """Show what a cutover requires, or change it for everybody."""
    from core.cutover import change_policy, read_policy
    from core.cutover.policy import HELP, shown

    given = pairs(changes or [], "a setting")
    with context_of(context).session(changes=bool(given)) as connection:
        now = change_policy(connection, given, reason) if given else read_policy(connection)

    def show(console: Console) -> None:
        from rich.table import Column

        rows = [(name, shown(now, name), text) for name, text in HELP.items()]
        print_rows(console, rows, "setting", "value", Column("", overflow="fold"))

    answer({"settings": asdict(now)}, as_json, show)


def pairs(given: Sequence[str], what: str) -> dict[str, str]:
    """`["a=b"]` as `{"a": "b"}`. Raises UsageError for one without a name or given twice."""
    from core.errors import UsageError

    found: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        name = name.strip()
        if not separator or not name:
            raise UsageError(f"{text!r} cannot be read as {what}.", "Expected NAME=VALUE.")
        if name in found:
            raise UsageError(f"{name!r} is given twice.", f"{what}: once for each name.")
        found[name] = value.strip()
    return found


def check_document(result: Check) -> dict[str, Any]:
    """The guards in JSON, with the keys of the command line's contract."""
    return {
        "version_key": result.version_key,
        "ready": result.ready,
        "guards": [asdict(guard) for guard in result.guards],
    }


def _show_check(console: Console, result: Check) -> None:
    shown = [
        replace(one, detail=f"{one.detail}; waived: {one.waived}", remedy="") if one.waived else one
        for one in result.guards
    ]
    group.print_verdicts(console, shown)
    console.print(plain(f"{result.version_key} is {'ready' if result.ready else 'not ready'}."))
