"""`revector log`: who did what."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from console.context import Json, answer, context_of, plain


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(log)


def log(
    context: typer.Context,
    number: Annotated[int, typer.Option("-n", "--number", help="How many entries.", min=1, max=100_000)] = 50,
    version: Annotated[str | None, typer.Option("--version", metavar="KEY", help="Of one version only.")] = None,
    as_json: Json = False,
) -> None:
    """The audit log, newest first."""
    from core import audit

    with context_of(context).session() as connection:
        found = audit.entries(connection, limit=number, version_key=version)

    def show(console: Any) -> None:
        for entry in found:
            console.print(
                f"{entry.at:%Y-%m-%d %H:%M:%S}  {plain(entry.actor)} ({plain(entry.client)})  "
                f"{plain(entry.action)} {plain(entry.version_key or '')}  {entry.outcome}  {plain(entry.reason)}"
            )
        if not found:
            console.print("The log is empty.")

    answer({"entries": [asdict(entry) for entry in found]}, as_json, show)
