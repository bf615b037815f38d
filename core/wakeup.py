"""Waits for a notification, a call from another thread, or a timeout; for threads that follow the database."""

from __future__ import annotations

import contextlib
import selectors
import socket
from typing import Protocol

# Not select(), which fails for file numbers from 1,024 on, as in a busy service; nor epoll, which needs another
# file.
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.DefaultSelector)


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


class WakeUp:
    """One thread waits, others ring. A ring before the wait is not lost."""

    def __init__(self) -> None:
        self._ringer, self._bell = socket.socketpair()
        self._ringer.setblocking(False)

    def ring(self) -> None:
        """End the current or the next wait. Returns at once; does nothing after `close`."""
        with contextlib.suppress(OSError):  # full: already ringing
            self._ringer.send(b"1")

    def wait(self, seconds: float, connection: _HasFileno | None = None) -> None:
        """Wait for a ring, for what the server sends on a connection, or until the time is over."""
        with _Selector() as selector:
            selector.register(self._bell, selectors.EVENT_READ)
            if connection is not None:
                selector.register(connection, selectors.EVENT_READ)
            ready = selector.select(max(0.0, seconds))
        if any(key.fileobj is self._bell for key, _ in ready):
            self._bell.recv(4096)

    def close(self) -> None:
        """Close; called by the waiting thread when it is done."""
        self._ringer.close()
        self._bell.close()
