"""Connections that are opened again when lost; quitting never waits for a server that hangs."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import psycopg

from revector.core.database import Connection, Database, readable_errors
from revector.core.errors import UnreachableError

T = TypeVar("T")


def shut_down(connection: Connection) -> None:
    """Close a connection from another thread: a thread that waits for the server gets an error at once.

    A statement timeout works only while the server and the network do.
    """
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


class Connections:
    """Opens a program's connections, for the console those for searches, guards and flips; tracks the open ones."""

    def __init__(self, database: Database, read_timeout_s: float, program: str = "console") -> None:
        self._database, self._read_timeout_s, self._program = database, read_timeout_s, program
        self._lock = threading.Lock()
        self._open: set[Connection] = set()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection with the read timeout, closed by `hang_up`."""
        with self._database.session(self._program, statement_timeout_s=self._read_timeout_s) as connection:
            with self._lock:
                self._open.add(connection)
            try:
                yield connection
            finally:
                with self._lock:
                    self._open.discard(connection)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection for a change, which is completed even when the console quits."""
        with self._database.session(self._program) as connection:
            yield connection

    def readable_errors(self) -> contextlib.AbstractContextManager[None]:
        """Turn errors of Postgres into errors for people."""
        return readable_errors(self._database)

    def hang_up(self) -> None:
        """Close every connection that only reads."""
        with self._lock:
            for connection in self._open:
                shut_down(connection)


class KeptConnection:
    """A read-only connection that stays open, for one read at a time, from any thread."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        self._open = contextlib.ExitStack()
        self._connection: Connection | None = None

    def do(self, work: Callable[[Connection], T]) -> T:
        """Run work on the connection, and again on a new one if the old one was lost."""
        with self._lock:
            kept = self._connection is not None
            try:
                return self._try(work)
            except UnreachableError:
                self._close()
                if not kept:
                    raise
            return self._try(work)

    def _try(self, work: Callable[[Connection], T]) -> T:
        with self._connections.readable_errors():
            if self._connection is None:
                self._connection = self._open.enter_context(self._connections.reading())
            return work(self._connection)

    def _close(self) -> None:
        self._connection = None
        self._open.close()

    def hang_up(self) -> None:
        """Cancel a read that hangs: it fails at once."""
        connection = self._connection
        if connection is not None:
            shut_down(connection)

    def close(self) -> None:
        """Close the connection, unless a read is using it, which then closes it."""
        if self._lock.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._lock.release()
