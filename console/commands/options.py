"""Options that commands share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from revector.core.backfill.job.settings import HELP

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The version key, such as embed-v2026-03.")]
QuerySetName = Annotated[str, typer.Argument(metavar="NAME", help="The query set.")]
Primary = Annotated[str | None, typer.Option("--primary", metavar="KEY", help="Default: the active one.")]
Candidate = Annotated[
    str | None, typer.Option("--candidate", metavar="KEY", help="Default: the newest other one.")
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is logged.")]
Confirm = Annotated[
    str | None,
    typer.Option("--confirm", metavar="KEY", help="The version key again; a flip in a script needs it."),
]


def job_settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each setting of a backfill; given ones arrive as its `changes`."""
    hints = get_type_hints(command, include_extras=True)
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name == "changes":
            parameters += [_option(name) for name in HELP]
        else:
            parameters.append(
                parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
            )

    @functools.wraps(command)
    def with_changes(**given: Any) -> None:
        changes = {name: value for name in HELP if (value := given.pop(name)) is not None}
        command(changes=changes, **given)

    ordered = sorted(parameters, key=lambda one: one.default is not inspect.Parameter.empty)
    with_changes.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    with_changes.__annotations__ = {one.name: one.annotation for one in ordered}
    return with_changes


def _option(name: str) -> inspect.Parameter:
    option = typer.Option(f"--{name.replace('_', '-')}", metavar="VALUE", help=HELP[name])
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )
