"""`revector doctor`: what is wrong here, or will be."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import typer

from console.commands.cutover import MARKS
from console.context import Json, answer, context_of, plain


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(doctor)


def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Look at server, extension, schema and versions; exit status 1 when something needs mending."""
    from core.doctor import examine

    own = context_of(context)
    checks = examine(own.database, own.settings)

    def show(console: Any) -> None:
        for found in checks:
            console.print(f"{MARKS[found.verdict]} {found.name:<22} {plain(found.detail)}")
            if found.remedy:
                console.print(f"  {'':<22} {plain(found.remedy)}")

    answer({"checks": [asdict(found) for found in checks]}, as_json, show)
    if any(found.verdict == "fail" for found in checks):
        raise typer.Exit(1)
