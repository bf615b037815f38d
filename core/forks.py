"""What a forked child must not share with its parent: each such object is told, before anything else runs there.

A child has the parent's sockets, its locks as they were, and none of its threads. What it wrote to such a socket would
mix with what the parent writes, and each would read the other's answers.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something that must be told of a fork."""

    def forked(self) -> None:
        """Called in the child, where no other thread runs yet. It may neither wait for a lock nor start a thread."""


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


_process = os.getpid()
_told: weakref.WeakSet[Forkable] = weakref.WeakSet()
_connections: weakref.WeakSet[_HasFileno] = weakref.WeakSet()


def tell(one: Forkable) -> None:
    """Tell this object of each fork, as long as it lives."""
    _told.add(one)


def leave(connection: _HasFileno) -> None:
    """Leave this connection to this process: in a child, nothing that is written to it reaches the server."""
    _connections.add(connection)


def check() -> None:
    """Notice a fork that Python was not told of, as some servers written in C do it. Takes less than 0.1 µs."""
    if os.getpid() != _process:
        _in_child()


def _in_child() -> None:
    global _process
    _process = os.getpid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for connection in list(_connections):
        # Closed instead, its number would be given to another file, while objects of the parent still name it.
        try:
            os.dup2(nowhere, connection.fileno(), inheritable=False)
        except Exception:  # noqa: BLE001, S112  (closed already)
            continue
    os.close(nowhere)
    _connections.clear()
    for one in list(_told):
        one.forked()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_in_child)
