"""How a thread that follows the database waits: for a notice, for a call from another thread, or for some time."""

from __future__ import annotations

import contextlib
import selectors
import socket
from typing import Protocol

# Not select(), which takes no file number from 1,024 on, as a busy service has; nor epoll, which takes one of its own.
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.DefaultSelector)


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


class WakeUp:
    """One thread waits, others ring. A ring that nobody waited for yet is not lost."""

    def __init__(self) -> None:
        self._ringer, self._bell = socket.socketpair()
        self._ringer.setblocking(False)

    def ring(self) -> None:
        """End the wait, or the next one if there is none now. Returns at once; after `close` it does nothing."""
        with contextlib.suppress(OSError):  # full: it rings already
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
        """Nobody waits any more: for the thread that did."""
        self._ringer.close()
        self._bell.close()
