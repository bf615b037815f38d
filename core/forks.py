"""What a forked child must not share with its parent: each such object is told, before anything else runs there.

A child has the parent's sockets, its locks as they were, and none of its threads. What it wrote to such a socket would
mix with what the parent writes, and each would read the other's answers.

A fork waits while another thread opens a model. A child could never import what that thread was importing: the
import's lock stays taken there.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Protocol

_PATIENCE_S = 60.0
"""How long a fork waits for models: an opening that hangs must not stop the application."""


class Forkable(Protocol):
    """Something that must be told of a fork."""

    def forked(self) -> None:
        """Called in the child, where no other thread runs yet. It may neither wait for a lock nor start a thread."""


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


_process = os.getpid()
_settled = threading.Condition()
_opening: set[int] = set()
"""The threads that are opening models."""
_told: weakref.WeakSet[Forkable] = weakref.WeakSet()
_connections: weakref.WeakSet[_HasFileno] = weakref.WeakSet()


def tell(one: Forkable) -> None:
    """Tell this object of each fork, as long as it lives."""
    _told.add(one)


def leave(connection: _HasFileno) -> None:
    """Leave this connection to this process: in a child, nothing that is written to it reaches the server."""
    _connections.add(connection)


@contextlib.contextmanager
def unforked() -> Iterator[None]:
    """Keep other threads from forking while a model is being opened."""
    thread = threading.get_ident()
    with _settled:
        nested = thread in _opening
        _opening.add(thread)
    try:
        yield
    finally:
        with _settled:
            if not nested:
                _opening.discard(thread)
            _settled.notify_all()


def check() -> None:
    """Notice a fork that Python was not told of, as some servers written in C do it. Takes less than 0.1 µs."""
    if os.getpid() != _process:
        _in_child()


def _before() -> None:
    _settled.acquire()
    _settled.wait_for(lambda: not _opening - {threading.get_ident()}, _PATIENCE_S)


def _in_parent() -> None:
    _settled.release()


def _in_child() -> None:
    global _process, _settled
    _process, _settled = os.getpid(), threading.Condition()
    _opening.intersection_update({threading.get_ident()})
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
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
