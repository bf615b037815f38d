"""`revector log`: who did what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from revector.console.commands.options import Json
from revector.console.context import aligned, answer, context_of
from revector.console.contract import answering
from revector.core.text import in_words

if TYPE_CHECKING:
    from revector.core.audit import AuditEntry

app = typer.Typer()


@app.command(cls=answering(entries="core.audit:AuditEntry"))
def log(
    context: typer.Context,
    number: Annotated[
        int, typer.Option("-n", "--number", metavar="N", help="How many entries.", min=1, max=100_000)
    ] = 50,
    version: Annotated[str | None, typer.Option("--version", metavar="KEY", help="Only of this version.")] = None,
    as_json: Json = False,
) -> None:
    """The audit log, newest first."""
    from revector.core import audit

    with context_of(context).session() as connection:
        found = audit.entries(connection, limit=number, version_key=version)

    def show() -> Iterator[str]:
        rows = [
            (
                f"{entry.at.astimezone():%Y-%m-%d %H:%M:%S}",
                entry.outcome,
                f"{entry.action} {entry.version_key or ''}",
                f"{entry.client} as {entry.actor}{_why(entry)}",
            )
            for entry in found
        ]
        yield from aligned(rows, "", "", "", "", header=False, wrap=False)
        if not found:
            yield "The log is empty."

    answer({"entries": found}, as_json, show())


_OF_A_FLIP = {"to", "guards", "client_says"}
"""What the version says, and what only --json shows."""


def _why(entry: AuditEntry) -> str:
    """The given reason, and the figures that say something."""
    hidden = _OF_A_FLIP if entry.action in ("cutover", "rollback") and entry.outcome == "done" else set()
    figures = {name: value for name, value in entry.detail.items() if name not in hidden and _says(value)}
    parts = filter(None, (entry.reason, in_words(figures) if figures else ""))
    return "".join(f": {part}" for part in parts)


def _says(value: object) -> bool:
    return any(value.values()) if isinstance(value, dict) else bool(value)
