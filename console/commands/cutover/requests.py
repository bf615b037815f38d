"""`revector cutover request`, `approve`, `withdraw` and `requests`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from revector.console.commands.options import Json, Key, Reason
from revector.console.commands.verdicts import Waive, waivers_of
from revector.console.context import aligned, answer, context_of
from revector.console.contract import answering
from revector.screens.wording.text import date_and_time

if TYPE_CHECKING:
    from revector.core.cutover import Request

app = typer.Typer()


@app.command(cls=answering("core.cutover.request_store:Request"))
def request(
    context: typer.Context, key: Key, reason: Reason = "", waive: Waive = None, as_json: Json = False
) -> None:
    """Request a cutover: others read the reason and the figures of the guards, and approve it."""
    from revector.core import cutover

    with context_of(context).session(changes=True) as connection:
        made = cutover.request(connection, key, reason=reason, waivers=waivers_of(waive, reason))
    _answer(made, as_json)


@app.command(cls=answering("core.cutover.request_store:Request"))
def approve(
    context: typer.Context,
    key: Key,
    comment: Annotated[str, typer.Option("--comment", metavar="TEXT", help="Stored with the approval.")] = "",
    number: Annotated[
        int | None, typer.Option("--request", metavar="N", help="Only if this request is the open one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Approve the open request for a version, as the database role of this session. Nobody approves their own."""
    from revector.core import cutover

    with context_of(context).session(changes=True, needs="approve") as connection:
        given = cutover.approve(connection, key, comment=comment, request_id=number)
    _answer(given, as_json)


@app.command(cls=answering("core.cutover.request_store:Request"))
def withdraw(context: typer.Context, key: Key, reason: Reason = "", as_json: Json = False) -> None:
    """End the open request for a version."""
    from revector.core import cutover

    with context_of(context).session(changes=True, needs="withdraw") as connection:
        ended = cutover.withdraw(connection, key, reason=reason)
    _answer(ended, as_json)


@app.command(cls=answering(requests="core.cutover.request_store:Request"))
def requests(
    context: typer.Context,
    number: Annotated[
        int,
        typer.Option("-n", "--number", metavar="N", help="How many, including ended ones.", min=1, max=10_000),
    ] = 20,
    as_json: Json = False,
) -> None:
    """The requests for cutovers, newest first, with their approvals and what made one void."""
    from revector.core import cutover

    with context_of(context).session() as connection:
        found = cutover.requests(connection, limit=number)

    def show() -> Iterator[str]:
        for one in found:
            yield from _lines(one)
        if not found:
            yield "No requests yet."

    answer({"requests": found}, as_json, show())


def _answer(found: Request, as_json: bool) -> None:
    answer(found, as_json, _lines(found))


def _lines(found: Request) -> Iterator[str]:
    yield f"Request {found.id}: cutover to {found.version_key}, {found.state}"
    rows = [
        ("  asked", f"{found.requested_by}, {date_and_time(found.requested_at)}: {found.reason}"),
        *(
            (
                "  approved",
                f"{one.approved_by}, {date_and_time(one.approved_at)}{': ' if one.comment else ''}{one.comment}",
            )
            for one in found.approvals
        ),
        *(("  waived", f"{name}: {why}") for name, why in found.waivers.items()),
    ]
    if found.state == "void" and found.void_because:
        rows.append(("  void", found.void_because))
    elif found.ended is not None and found.ended_at is not None:
        why = f": {found.ended_why}" if found.ended_why else ""
        rows.append((f"  {found.ended}", f"{date_and_time(found.ended_at)}{why}"))
    elif found.state == "open":
        rows.append(("  waits", f"for {found.waits_for}, until {date_and_time(found.expires_at)}"))
    else:
        rows.append(("  expires" if not found.expired else "  expired", date_and_time(found.expires_at)))
    yield from aligned(rows, "", "", header=False)
