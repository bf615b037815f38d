"""`revector cutover` and `revector rollback`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from console.commands.options import Json
from console.commands.versions import Key
from console.confirmation import confirmed_key
from console.context import answer, context_of, counted, plain, print_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from core.cutover import Flip, Guard
    from core.doctor import Finding

app = typer.Typer(
    name="cutover", help="Make a version active, behind guards.", no_args_is_help=True, rich_markup_mode=None
)

Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; stays in the log.")]
Confirm = Annotated[str | None, typer.Option("--confirm", metavar="KEY", help="The version key again.")]

MARKS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}


def register(root: typer.Typer) -> None:
    """Add the command that stands beside the group."""
    root.command()(rollback)


@app.command()
def run(
    context: typer.Context, key: Key, confirm: Confirm = None, reason: Reason = "", as_json: Json = False
) -> None:
    """Check the guards and flip, in one transaction. On any doubt nothing changes."""
    from core import cutover
    from core.registry import active_version, get_version

    own = context_of(context)
    with own.session(changes=True) as connection:
        get_version(connection, key)
        active = active_version(connection)
        before = active.version_key if active else "none"
        typed = confirmed_key(
            key, confirm, f"Cutover on {own.database.name}, schema {own.database.schema}: active {before} → {key}."
        )
        flip = cutover.run(connection, key, confirm=typed, reason=reason)
    _answer_flip(flip, as_json)


def rollback(
    context: typer.Context,
    to: Annotated[str | None, typer.Option("--to", metavar="KEY", help="Else the version before.")] = None,
    confirm: Confirm = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Make the version that was active before active again. Never refused; says what it would lose."""
    from core import cutover
    from core.errors import RefusedError
    from core.registry import active_version, get_version

    own = context_of(context)
    with own.session(changes=True) as connection:
        target = get_version(connection, to) if to else cutover.rollback_target(connection)
        if target is None:
            raise RefusedError("There is no version to roll back to.", "A rollback needs an earlier cutover.")
        active = active_version(connection)
        missing = cutover.missing_chunks(connection, target)
        typed = confirmed_key(
            target.version_key,
            confirm,
            f"Rollback on {own.database.name}, schema {own.database.schema}: active "
            f"{active.version_key if active else 'none'} → {target.version_key}, "
            f"which lacks {counted(missing, 'chunk')}.",
        )
        flip = cutover.rollback(connection, confirm=typed, reason=reason, key=target.version_key)
    _answer_flip(flip, as_json)


def print_verdicts(console: Console, found: Sequence[Guard | Finding]) -> None:
    """Each guard or finding with its mark, the figure behind it and, on the next line, what to do about it."""
    from rich.table import Column

    rows = []
    for one in found:
        rows.append((MARKS[one.verdict], one.name, one.detail))
        if one.remedy:
            rows.append(("", "", one.remedy))
    print_rows(console, rows, "", "", Column(overflow="fold"), header=False)


def _answer_flip(flip: Flip, as_json: bool) -> None:
    text = f"{flip.version_key} is active (was {flip.previous or 'none'}), in {flip.seconds * 1000:.1f} ms."
    if flip.missing:
        text += f" It lacks {counted(flip.missing, 'chunk')}: revector backfill run {flip.version_key}"
    answer(asdict(flip), as_json, lambda console: console.print(plain(text)))
