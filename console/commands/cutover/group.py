"""`revector cutover`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from revector.console.commands.cutover import guards, requests, watch
from revector.console.commands.cutover.rollback import answer_flip
from revector.console.commands.options import Confirm, Json, Key, Reason
from revector.console.commands.verdicts import Waive, check_lines, exit_unless_ready, waivers_of
from revector.console.confirmation import confirmed_key
from revector.console.context import answer, context_of
from revector.console.contract import answering

if TYPE_CHECKING:
    from revector.core.cutover import DryRun

app = typer.Typer(name="cutover", help="Make a version active, behind guards.")

for module in (guards, requests, watch):
    app.add_typer(module.app)


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
    with own.session(changes=True) as connection:
        get_version(connection, key)
        active = active_version(connection)
        if active and active.version_key == key and confirm is None:
            confirm = key  # it is refused, so nobody needs to be asked
        before = active.version_key if active else "none"
        typed = confirmed_key(own, key, confirm, f"Cutover: active {before} → {key}.", flips=True)
        flip = cutover.run(connection, key, confirm=typed, reason=reason, waivers=waivers)
    answer_flip(flip, as_json)


def _answer_plan(found: DryRun, as_json: bool) -> None:
    from revector.core.keys import document

    def show() -> Iterator[str]:
        yield from check_lines(found.check)
        yield f"Active {found.previous or 'none'} → {found.version_key} would run this SQL (psql can too):"
        for statement in found.statements:
            yield from statement.splitlines()

    answer(document(found.check) | document(found), as_json, show())
    exit_unless_ready(found.check)
