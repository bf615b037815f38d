"""`revector cutover` and `revector rollback`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.commands.versions import Key
from console.confirmation import confirmed_key
from console.context import Json, answer, context_of, plain

if TYPE_CHECKING:
    from core.cutover import Check, Flip

app = typer.Typer(name="cutover", help="Make a version active, behind guards.", no_args_is_help=True)

Reason = Annotated[str, typer.Option("--reason", help="Why; stays in the log.")]
Confirm = Annotated[str, typer.Option("--confirm", metavar="KEY", help="The version key again.")]

MARKS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}


def register(root: typer.Typer) -> None:
    """Add the command that stands beside the group."""
    root.command()(rollback)


@app.command()
def check(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Run every guard. Exit status 0 when all pass, 1 when not."""
    from core import cutover

    with context_of(context).session() as connection:
        result = cutover.check(connection, key)
    answer(check_document(result), as_json, lambda console: _show_check(console, result))
    if not result.ready:
        raise typer.Exit(1)


@app.command()
def run(
    context: typer.Context, key: Key, confirm: Confirm = "", reason: Reason = "", as_json: Json = False
) -> None:
    """Check the guards and flip, in one transaction. On any doubt nothing changes."""
    from core import cutover
    from core.registry import active_version, get_version

    own = context_of(context)
    with own.session() as connection:
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
    confirm: Confirm = "",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Make the version that was active before active again. Never refused; says what it would lose."""
    from core import cutover
    from core.errors import RefusedError
    from core.registry import active_version, get_version

    own = context_of(context)
    with own.session() as connection:
        target = get_version(connection, to) if to else cutover.rollback_target(connection)
        if target is None:
            raise RefusedError("There is no version to roll back to.", "A rollback needs an earlier cutover.")
        active = active_version(connection)
        missing = cutover.missing_chunks(connection, target)
        typed = confirmed_key(
            target.version_key,
            confirm,
            f"Rollback on {own.database.name}, schema {own.database.schema}: active "
            f"{active.version_key if active else 'none'} → {target.version_key}, which lacks {missing:,} chunks.",
        )
        flip = cutover.rollback(connection, confirm=typed, reason=reason, key=target.version_key)
    _answer_flip(flip, as_json)


def check_document(result: Check) -> dict[str, Any]:
    """The guards in JSON, with the keys of the command line's contract."""
    return {
        "version_key": result.version_key,
        "ready": result.ready,
        "guards": [asdict(guard) for guard in result.guards],
    }


def _show_check(console: Any, result: Check) -> None:
    for guard in result.guards:
        console.print(f"{MARKS[guard.verdict]} {guard.name:<12} {plain(guard.detail)}")
        if guard.remedy:
            console.print(f"  {'':<12} {plain(guard.remedy)}")
    console.print(plain(f"{result.version_key} is {'ready' if result.ready else 'not ready'}."))


def _answer_flip(flip: Flip, as_json: bool) -> None:
    text = f"{flip.version_key} is active (was {flip.previous or 'none'}), in {flip.seconds * 1000:.1f} ms."
    if flip.missing:
        text += f" It lacks {flip.missing:,} chunks: revector backfill run {flip.version_key}"
    answer(asdict(flip), as_json, lambda console: console.print(plain(text)))
