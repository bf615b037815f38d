"""`revector log`: who did what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from revector.console.commands.options import Json
from revector.console.context import aligned, answer, context_of
from revector.console.contract import answering

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


def _why(entry: AuditEntry) -> str:
    """The given reason, and what the detail adds: the previous version of a flip, what refused it …"""
    parts = [f": {entry.reason}"] if entry.reason else []
    if entry.detail.get("from"):
        parts.append(f", from {entry.detail['from']}")
    if entry.detail.get("missing"):
        parts.append(f", {entry.detail['missing']:,} missing")
    if "inserted" in entry.detail:
        parts.append(f", {entry.detail['inserted']:,} inserted, {entry.detail['deleted']:,} deleted")
    if entry.outcome == "refused":
        guards = entry.detail.get("guards") or {}
        parts += [f"; {name}: {text}" for name, text in guards.items()]
    return "".join(parts)
