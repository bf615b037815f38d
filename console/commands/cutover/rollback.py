"""`revector rollback`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from revector.console.commands.options import Confirm, Json, Reason
from revector.console.confirmation import confirmed_key
from revector.console.context import answer, context_of, counted
from revector.console.contract import answering
from revector.screens.wording.text import date_and_time

if TYPE_CHECKING:
    from revector.core.cutover import Flip

app = typer.Typer()


@app.command(cls=answering("core.cutover.flip:Flip"))
def rollback(
    context: typer.Context,
    confirm: Confirm = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Make the version that was active before the newest cutover active again. Never refused; says what it would
    lose. A second time it says that it is done: forward again is a cutover."""
    from revector.core import cutover
    from revector.core.registry import active_version

    own = context_of(context)
    with own.session(changes=True) as connection:
        active, target = active_version(connection), cutover.rollback_target(connection)
        now = active.version_key if active else ""
        if target is None:
            typed = now if confirm is None else confirm
        else:
            missing = counted(cutover.missing_chunks(connection, target), "chunk")
            effect = f"Rollback: active {now} → {target.version_key}, {missing} missing."
            typed = confirmed_key(own, target.version_key, confirm, effect, flips=True)
        flip = cutover.rollback(connection, confirm=typed, reason=reason)
    answer_flip(flip, as_json)


def answer_flip(flip: Flip, as_json: bool) -> None:
    """Say what a cutover or a rollback did."""
    text = f"{flip.version_key} is active (was {flip.previous or 'none'}), in {flip.seconds * 1000:.1f} ms."
    if not flip.changed:
        text = (
            f"{flip.made_by} already rolled back, {flip.previous} → {flip.version_key}, {date_and_time(flip.at)}: "
        )
        text += "nothing was changed. To go forward again, cut over: revector cutover run KEY"
    if flip.missing:
        text += f" {counted(flip.missing, 'chunk')} missing: revector backfill run {flip.version_key}"
    answer(flip, as_json, text)
