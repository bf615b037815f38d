"""`revector cutover check`, `guards` and `policy`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from revector.console.commands.options import Json, Key, Reason
from revector.console.commands.verdicts import (
    Waive,
    check_lines,
    exit_unless_ready,
    pairs,
    waivers_of,
)
from revector.console.context import aligned, answer, context_of, fold
from revector.console.contract import answering

app = typer.Typer()


@dataclass(frozen=True)
class GuardTerms:
    """A guard and its thresholds."""

    name: Annotated[str, "of the guard"]
    about: Annotated[str, "what it looks at"]
    settings: Annotated[dict[str, Any], "of the policy that it goes by, by name"]
    in_flip: Annotated[bool, "whether it is run once more inside the flip"]
    waivable: Annotated[bool, "whether --waive can do without it"]


@dataclass(frozen=True)
class PolicyInForce:
    """The policy in force."""

    settings: Annotated[dict[str, Any], "those in force, by name; null is no limit"]


@app.command(cls=answering("core.cutover.guard:Check"))
def check(context: typer.Context, key: Key, waive: Waive = None, as_json: Json = False) -> None:
    """Run every guard.

    Exit status 0 when each passes or is waived, 1 when one fails, 3 when none fails and one is inconclusive.
    """
    from revector.core import cutover

    with context_of(context).session() as connection:
        result = cutover.check(connection, key, waivers=waivers_of(waive))
    answer(result, as_json, check_lines(result))
    exit_unless_ready(result)


@app.command(cls=answering(guards="console.commands.cutover.guards:GuardTerms"))
def guards(context: typer.Context, as_json: Json = False) -> None:
    """What each guard looks at, the thresholds in force, and whether it can be waived."""
    from revector.core.cutover import GUARDS, read_policy
    from revector.core.cutover.policy import shown

    with context_of(context).session() as connection:
        now = read_policy(connection)
    terms = [
        GuardTerms(
            rule.name,
            rule.about,
            {name: getattr(now, name) for name in rule.settings},
            rule.in_flip,
            rule.waivable,
        )
        for rule in GUARDS
    ]

    def show() -> Iterator[str]:
        rows = []
        for rule in GUARDS:
            settings = ", ".join(f"{name}={shown(now, name)}" for name in rule.settings)
            rows.append((rule.name, "yes" if rule.waivable else "no", rule.about))
            if settings:
                rows.append(("", "", settings))
        yield from aligned(rows, "guard", "waivable", fold("looks at"))

    answer({"guards": terms}, as_json, show())


@app.command(cls=answering("console.commands.cutover.guards:PolicyInForce"))
def policy(
    context: typer.Context,
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=VALUE]…", help="`default` restores the default, `none` removes a limit."),
    ] = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Show what a cutover requires, or change it for everybody."""
    from revector.core.cutover import change_policy, read_policy
    from revector.core.cutover.policy import HELP, shown

    given = pairs(changes or [], "a setting")
    with context_of(context).session(needs="administer" if given else None) as connection:
        now = change_policy(connection, given, reason) if given else read_policy(connection)

    def show() -> Iterator[str]:
        rows = [(name, shown(now, name), text) for name, text in HELP.items()]
        yield from aligned(rows, "setting", "value", fold())

    answer(PolicyInForce(vars(now)), as_json, show())
