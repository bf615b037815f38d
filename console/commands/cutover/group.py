"""`revector cutover` and `revector rollback`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from revector.console.commands.options import Confirm, Json, Key, Reason
from revector.console.commands.verdicts import Waive, exit_unless_ready, show_check, waivers_of
from revector.console.confirmation import confirmed_key
from revector.console.context import answer, context_of, counted, plain
from revector.console.contract import answering

if TYPE_CHECKING:
    from rich.console import Console

    from revector.core.cutover import DryRun, Flip

app = typer.Typer(
    name="cutover", help="Make a version active, behind guards.", no_args_is_help=True, rich_markup_mode=None
)


def register(root: typer.Typer) -> None:
    """Add the command outside of the group, and the group's other commands."""
    from revector.console.commands.cutover import guards, requests, watch

    root.command(cls=answering("core.cutover.flip:Flip"))(rollback)
    for module in (guards, requests, watch):
        module.register(app)


@app.command(cls=answering("core.cutover.guard:Check", "core.cutover.flip:DryRun", "core.cutover.flip:Flip"))
def run(
    context: typer.Context,
    key: Key,
    confirm: Confirm = None,
    reason: Reason = "",
    waive: Waive = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the guards, print the SQL, and change nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the guards and flip, in one transaction. On any error nothing changes.

    With --dry-run, exit status as of `cutover check`.
    """
    from revector.core import cutover
    from revector.core.registry import active_version, get_version

    own = context_of(context)
    waivers = waivers_of(waive, reason)
    if dry_run:
        with own.session() as connection:
            _answer_plan(cutover.plan(connection, key, reason=reason, waivers=waivers), as_json)
        return
    with own.session(changes=True, needs="operate") as connection:
        get_version(connection, key)
        active = active_version(connection)
        before = active.version_key if active else "none"
        typed = confirmed_key(
            key, confirm, f"Cutover on {own.database.name}, schema {own.database.schema}: active {before} → {key}."
        )
        flip = cutover.run(connection, key, confirm=typed, reason=reason, waivers=waivers)
    _answer_flip(flip, as_json)


def rollback(
    context: typer.Context,
    to: Annotated[str | None, typer.Option("--to", metavar="KEY", help="Default: the version before.")] = None,
    confirm: Confirm = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Make the version that was active before active again. Never refused; says what it would lose."""
    from revector.core import cutover
    from revector.core.errors import RefusedError
    from revector.core.registry import active_version, get_version

    own = context_of(context)
    with own.session(changes=True, needs="operate") as connection:
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
            f"{counted(missing, 'chunk')} missing.",
        )
        flip = cutover.rollback(connection, confirm=typed, reason=reason, key=target.version_key)
    _answer_flip(flip, as_json)


def _answer_plan(found: DryRun, as_json: bool) -> None:
    from revector.core.keys import document

    def show(console: Console) -> None:
        show_check(console, found.check)
        console.print(
            f"Active {plain(found.previous or 'none')} → {plain(found.version_key)} would run this SQL (psql can too):"
        )
        for statement in found.statements:
            for line in statement.splitlines():
                console.print(plain(line))

    answer(document(found.check) | document(found), as_json, show)
    exit_unless_ready(found.check)


def _answer_flip(flip: Flip, as_json: bool) -> None:
    text = f"{flip.version_key} is active (was {flip.previous or 'none'}), in {flip.seconds * 1000:.1f} ms."
    if flip.missing:
        text += f" {counted(flip.missing, 'chunk')} missing: revector backfill run {flip.version_key}"
    answer(flip, as_json, lambda console: console.print(plain(text)))
