"""`revector cutover watch` and `revector cutover history`."""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from revector.console.commands.options import Json
from revector.console.context import Context, aligned, answer, context_of, counted, note
from revector.console.contract import answering
from revector.core.errors import RefusedError, UnreachableError

if TYPE_CHECKING:
    from revector.core.cutover import CutoverEntry, Flip, Watch
    from revector.core.cutover.keep_current import Keeper
    from revector.core.database import Connection
    from revector.core.retrieval.counts import SearchFigures

app = typer.Typer()
log = logging.getLogger(__name__)

_TELL_S = 10.0
"""How often figures that change with every search are printed."""


@dataclass(frozen=True)
class Omitted:
    """A rollback that automatic rollback would have made."""

    at: Annotated[datetime.datetime, "when a limit was first seen broken"]
    version_key: Annotated[str, "the version to roll back to"]
    reason: Annotated[str, "the limits, and the figures then"]


@dataclass(frozen=True)
class Watched:
    """The result of the watch."""

    watch: Annotated[Watch | None, "the last look; null when no cutover is watched"]
    rolled_back: Annotated[Flip | None, "the rollback, also by another; null when there was none"]
    would_have_rolled_back: Annotated[
        Omitted | None, "what automatic rollback would have done; null when it is on"
    ]


@app.command(cls=answering("console.commands.cutover.watch:Watched"))
def watch(
    context: typer.Context,
    auto_rollback: Annotated[
        bool | None,
        typer.Option(
            "--auto-rollback/--no-auto-rollback",
            help="Roll back automatically when a limit of the policy is broken. Default: as the policy says.",
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep/--no-keep", help="Embed new chunks for both versions.")] = True,
    once: Annotated[bool, typer.Option("--once", help="Look once and exit, for cron.")] = False,
    every: Annotated[
        float, typer.Option("--every", metavar="S", help="Seconds between looks.", min=0.1, max=3_600)
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """Watch the newest cutover until its watch ends: a rollback to the previous version then loses nothing.

    Changes are printed to stderr (not with --once), the last state to stdout. Exit status 1 when the cutover was
    rolled back, by anyone, or would have been, or a limit is broken.
    """
    from revector.core.backfill.job.settings import default_settings
    from revector.core.cutover.keep_current import Keeper

    own = context_of(context)
    if keep or auto_rollback:
        own.require_writable()
    watching = _Watching(own, auto_rollback, once)
    keeper = Keeper(own.database, default_settings(own.settings), note) if keep else None
    with contextlib.ExitStack() as held:
        if keeper is not None:
            held.callback(keeper.close)
        while not watching.look(keeper) and not once:
            time.sleep(every)
        if keeper is not None and once:
            keeper.finish()
            watching.look(None, again=True)
    last, flip, omitted = watching.last, watching.flip, watching.omitted
    answer(Watched(last, flip, omitted), as_json, _lines(last, flip, omitted, watching.by_another))
    if flip is not None or omitted is not None or (last is not None and last.breaches):
        raise typer.Exit(1)


@app.command(cls=answering(cutovers="core.cutover.history:CutoverEntry"))
def history(
    context: typer.Context,
    number: Annotated[int, typer.Option("-n", "--number", metavar="N", help="How many.", min=1, max=10_000)] = 20,
    as_json: Json = False,
) -> None:
    """Every change of the active version, newest first, however it was made."""
    from revector.core import cutover

    with context_of(context).session() as connection:
        found = cutover.history(connection, limit=number)

    def show() -> Iterator[str]:
        rows = [
            (
                f"{one.at.astimezone():%Y-%m-%d %H:%M:%S}",
                one.action,
                f"{one.from_version or 'none'} → {one.to_version}",
                one.made_by,
                _circumstances(one),
            )
            for one in found
        ]
        yield from aligned(rows, "", "", "", "", "", header=False, wrap=False)
        if not found:
            yield "No version has been active yet."

    answer({"cutovers": found}, as_json, show())


class _Watching:
    """Observes the watch, reports changes, and rolls back if wanted."""

    def __init__(self, own: Context, auto_rollback: bool | None, once: bool) -> None:
        self._own, self._auto, self._once = own, auto_rollback, once
        self.last: Watch | None = None
        self.flip: Flip | None = None
        self.omitted: Omitted | None = None
        self.by_another: CutoverEntry | None = None
        """The rollback, if somebody else did it."""
        self._told = self._verdict = ""
        self._told_at = -_TELL_S

    def look(self, keeper: Keeper | None, *, again: bool = False) -> bool:
        """Observe once, `again` without what was read before; returns whether the watch is over."""
        from revector.core import cutover
        from revector.core.cutover.watch import reason_of

        try:
            with self._own.session() as connection:
                found = cutover.observe(connection, None if again else self.last)
                if found is None or (self.last is not None and found.cutover_id != self.last.cutover_id):
                    self._note_rollback(connection)
                    return True
                self.last = found
                news = self._note_verdict(found)
                auto = cutover.read_policy(connection).auto_rollback if self._auto is None else self._auto
                if not auto and self.omitted is None and found.breaches and found.way_back:
                    self.omitted = Omitted(found.read_at, found.previous, reason_of(found))
                if not self._once and (news or time.monotonic() - self._told_at >= _TELL_S):
                    self._tell("; ".join([*lines(found), *_omission(self.omitted)]))
                if auto and found.breaches:
                    self._roll_back(connection, found)
                    return self.flip is not None
                if keeper is not None:
                    keeper.keep(connection, found)
        except UnreachableError as error:  # the database may come back, and the watch still lasts
            self._tell(error.problem)
            if self.last is None:
                raise
        return False

    def _note_verdict(self, found: Watch) -> bool:
        """Log the verdict; returns whether it has changed."""
        broken = ", ".join(one.limit for one in found.breaches)
        verdict = f"broken: {broken}" if broken else "no limit is broken"
        if verdict != self._verdict:
            self._verdict = verdict
            log.log(logging.WARNING if broken else logging.INFO, "watch of %s: %s", found.version_key, verdict)
            return True
        return False

    def _note_rollback(self, connection: Connection) -> None:
        """When the watch has ended: whether somebody else rolled back what was watched."""
        from revector.core import cutover

        if (last := self.last) is None:
            return
        for one in cutover.history(connection):
            if one.id > last.cutover_id and (one.action, one.from_version) == ("rollback", last.version_key):
                self.by_another, self.flip = one, cutover.done_before(one, last.missing or 0)

    def _roll_back(self, connection: Connection, found: Watch) -> None:
        from revector.core import cutover

        try:
            self.flip = cutover.roll_back_broken(connection, found)
        except RefusedError as error:
            self._tell(f"Not rolled back: {error.problem}")
        else:
            if self.flip is None:
                self._tell(f"Cannot roll back: {found.previous} can no longer be used.")

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told, self._told_at = text, time.monotonic()
            note(text)


def lines(found: Watch) -> list[str]:
    """What the watch shows, one sentence for each item; missing figures are named as missing."""
    said = [
        f"{found.previous} → {found.version_key}, watched until {found.until.astimezone():%Y-%m-%d %H:%M}",
        f"{counted(found.missing, 'chunk')} missing in {found.previous}"
        if found.missing is not None
        else f"{found.previous} can no longer be rolled back to",
        f"searches before: {_figures(found.before)}",
        f"searches since: {_figures(found.since)}",
    ]
    if found.overlap is None:
        said.append("overlap: not compared by a shadow since")
    else:
        before = "" if found.overlap_before is None else f", {found.overlap_before:.2f} before"
        said.append(f"overlap {found.overlap:.2f} ({found.compared:,} compared){before}")
    said += [f"BROKEN {one.limit}: {one.detail}" for one in found.breaches]
    said += [f"{one.limit} cannot be judged yet: {one.detail}" for one in found.unjudged]
    return said


def _figures(found: SearchFigures) -> str:
    if not found.searches:
        return "none counted"
    empty = "" if found.empty_rate is None else f", {found.empty_rate:.1%} empty"
    errors = "" if not found.error_rate else f", {found.error_rate:.1%} failed"
    times = "" if found.median_ms is None else f", median {found.median_ms:.1f} ms, p95 {found.p95_ms:.1f} ms"
    return f"{found.searches:,}{empty}{errors}{times}"


def _omission(omitted: Omitted | None) -> Iterator[str]:
    if omitted is not None:
        at = f"{omitted.at.astimezone():%H:%M:%S}"
        yield f"automatic rollback is off; at {at} it would have rolled back to {omitted.version_key}"


def _lines(
    found: Watch | None, flip: Flip | None, omitted: Omitted | None, by_another: CutoverEntry | None
) -> Iterator[str]:
    if found is None:
        yield "No cutover is being watched."
        return
    yield from lines(found)
    yield from _omission(omitted)
    if by_another is not None:
        why = f": {by_another.reason}" if by_another.reason else ""
        at = f"{by_another.at.astimezone():%H:%M:%S}"
        yield f"Rolled back to {by_another.to_version} by {by_another.made_by} at {at}{why}"
    elif flip is not None:
        yield f"Rolled back to {flip.version_key} in {flip.seconds * 1000:.1f} ms."


def _circumstances(one: CutoverEntry) -> str:
    parts = [one.reason] if one.reason else []
    if one.approved_by:
        parts.append(f"requested by {one.requested_by}, approved by {', '.join(one.approved_by)}")
    parts += [f"waived {name}: {why}" for name, why in one.waived.items()]
    if one.watch_ended_why:
        parts.append(f"watch ended by {one.watch_ended_why}")
    return "; ".join(parts)
