"""Connections of a retriever: they enforce deadlines themselves, and remember their session's settings.

A server that no longer answers (a frozen machine, a network that drops packets) reports nothing, so the time limit
is enforced here too, and not only by the server's statement_timeout.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import psycopg
from psycopg.adapt import Dumper
from psycopg.rows import TupleRow

from revector.core import forks
from revector.core.database import Database, unreachable
from revector.core.errors import BusyError, UnreachableError
from revector.core.sessions import SET_SESSION, AsyncSession, Session

if TYPE_CHECKING:
    from psycopg.abc import PQGen

T = TypeVar("T")

_LEAST_S = 0.001
_INTERVAL_S = 0.1
"""How often a wait checks whether it was interrupted."""


LOOK_S = 0.1
"""How often a search that waits for a connection checks whether connecting has failed."""


def timeout_setting(limit_s: float) -> dict[str, str]:
    """The server's time limit: it must not keep working for a caller that has given up."""
    return {"statement_timeout": f"{max(1, round(limit_s * 1000))}ms"}


def late(
    what: str,
    limit_s: float,
    trouble: str = "",
    kind: type[UnreachableError] = BusyError,
    left_s: float | None = None,
) -> UnreachableError:
    """The error for a database or encoder that did not answer in time.

    `trouble` is what it answered so far, `left_s` what was left of the time when it was asked: it is not to blame
    for the rest.
    """
    if trouble:
        problem = f"{what} gave no vector within {limit_s:g} s: {trouble}"
    elif left_s is not None and left_s < limit_s / 2:
        before = f"{limit_s - max(left_s, 0):.2g} of {limit_s:g} s had passed before it was asked"
        problem = f"{what} did not answer in time, but {before}: the query was encoded first."
    else:
        problem = f"{what} did not answer within {limit_s:g} s."
    return kind(problem, "Try again, or allow more time.", temporary=True)


class Failures:
    """The last failed attempt to connect, and when it began, on the clock of time.monotonic."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._last: tuple[float, UnreachableError] | None = None

    def note(self, error: Exception, began: float) -> None:
        """Remember a failure."""
        known = error if isinstance(error, UnreachableError) else None
        if known is None and isinstance(error, psycopg.Error):
            known = unreachable(error, self._database)
        self._last = began, known or UnreachableError(f"Cannot connect: {error}")

    def since(self, moment: float) -> UnreachableError | None:
        """Why connecting failed, if the attempt began after that moment; older failures say nothing about now."""
        last = self._last
        return last[1] if last is not None and last[0] >= moment else None


def unset(connection: SearchConnection | AsyncSearchConnection, wanted: dict[str, str]) -> dict[str, str]:
    """What of these settings the session does not have yet."""
    return {name: value for name, value in wanted.items() if connection.settings.get(name) != value}


async def set_up(connection: SearchConnection | AsyncSearchConnection, missing: dict[str, str]) -> None:
    """Set these for the searches that follow."""
    if connection.pooler is not None:
        connection.set_in_each(missing)
    else:
        await settled(connection.execute(SET_SESSION, [list(missing), list(missing.values())]))
    connection.settings |= missing


def _until(deadline: float | None, timeout: float | None) -> float | None:
    if deadline is None:
        return timeout
    left = max(_LEAST_S, deadline - time.monotonic())
    return left if timeout is None else min(timeout, left)


async def settled(value: Any) -> Any:
    """A value, waited for where it is a coroutine: the same lines then serve both kinds of connections."""
    return await value if type(value) is CoroutineType else value


def completed(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits, since whatever it calls blocks."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("a blocking search has waited for an event loop")


async def _opened(
    connect: Callable[..., Any],
    register: Callable[[Any], Any],
    conninfo: str,
    *,
    database: Database,
    failed: Callable[[Exception, float], None],
    limit_s: float,
    **kwargs: Any,
) -> Any:
    """Connect and set the session up; `failed` is told why when that does not work."""
    connection, began = None, time.monotonic()
    try:
        connection = await settled(connect(conninfo, **kwargs))
        forks.leave(connection)
        connection.settings = timeout_setting(limit_s)
        connection.deadline = time.monotonic() + limit_s
        begun = database.session_settings(limit_s)
        cursor = await settled(connection.execute(*begun.statement(connection)))
        begun.begin(connection, await settled(cursor.fetchone()))
        if connection.pooler is None:
            await settled(register(connection))  # in binary, so that vectors are not converted to text
        else:
            from pgvector import Vector

            connection.adapters.register_dumper(Vector, _VectorDumper)
        connection.cursor_kept = connection.cursor(binary=True)
        connection.deadline = None
    except Exception as error:
        if connection is not None:
            await settled(connection.close())
        failed(error, began)
        raise
    return connection


class _VectorDumper(Dumper):
    """A vector as text: another server session may have another id for its type."""

    def dump(self, obj: Any) -> bytes:
        """Its text."""
        return str(obj.to_text()).encode()


class SearchConnection(Session):
    """A connection with a deadline: a statement not answered by then raises psycopg's wait timeout."""

    deadline: float | None = None
    """On the clock of time.monotonic; None waits forever."""
    settings: dict[str, str]
    """The settings of the session for searches."""
    cursor_kept: psycopg.Cursor[TupleRow]
    """One for all searches, which are one after the other: making one takes a tenth of what a search adds."""

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """Connect and set the session up: see `_opened`."""
        from pgvector.psycopg import register_vector

        connection: Self = completed(_opened(super().connect, register_vector, conninfo, **kwargs))
        return connection

    def wait(self, gen: PQGen[T], interval: float = _INTERVAL_S, timeout: float | None = None) -> T:
        """Run one of psycopg's steps until the deadline."""
        return super().wait(gen, interval, _until(self.deadline, timeout))


class AsyncSearchConnection(AsyncSession):
    """SearchConnection for asyncio."""

    deadline: float | None = None
    settings: dict[str, str]
    cursor_kept: psycopg.AsyncCursor[TupleRow]

    @classmethod
    async def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """Connect and set the session up: see `_opened`."""
        from pgvector.psycopg import register_vector_async

        connection: Self = await _opened(super().connect, register_vector_async, conninfo, **kwargs)
        return connection

    async def wait(self, gen: PQGen[T], interval: float = _INTERVAL_S, timeout: float | None = None) -> T:
        """Run one of psycopg's steps until the deadline."""
        return await super().wait(gen, interval, _until(self.deadline, timeout))
