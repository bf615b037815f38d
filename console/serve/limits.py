"""The limits of a server, and the slots that requests hold while they are processed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of one server; seconds and bytes are named in the field."""

    max_body_bytes: int = 1024 * 1024
    max_concurrency: int = 32
    """Requests processed at once. Another one gets 503 immediately: there is no queue."""
    timeout_s: float = 5.0
    """For a whole search; the request's body may take the same time to arrive."""

    @property
    def max_connections(self) -> int:
        """Open connections, idle ones included: a client that only connects costs a file descriptor."""
        return 4 * self.max_concurrency + 100

    @property
    def drain_s(self) -> float:
        """How long the server waits at shutdown for requests in flight: longer than any may take."""
        return 2 * self.timeout_s + 2


class Slots:
    """A bounded number of slots. Only the event loop's thread takes and releases them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = 0

    def take(self) -> Slot | None:
        """A slot, or None when all are taken."""
        if self.taken >= self.limit:
            return None
        self.taken += 1
        return Slot(self)


class Slot:
    """One slot, released when its last holder releases it: the request, and the thread that works for it.

    A search past its deadline keeps its slot until it really ends, so that hanging searches cannot pile up behind
    answered requests.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._holders = 1

    def hold(self) -> None:
        """Add a holder."""
        self._holders += 1

    def release(self) -> None:
        """Remove a holder."""
        self._holders -= 1
        if self._holders == 0:
            self._slots.taken -= 1
