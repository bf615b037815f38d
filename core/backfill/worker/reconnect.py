"""Losing the database: which errors a new connection may mend, and how long to wait before it is tried."""

from __future__ import annotations

import random
import time

import psycopg

from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.worker.control import DatabaseGoneError

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 10.0

_LOST_STATES = {
    "25006",  # read-only by now: the primary has become a standby
    "25P03",  # idle in a transaction for too long: we were frozen
    "25P04",  # a transaction that took too long
    "57P01",  # shut down by an administrator
    "57P02",  # another process of the server crashed
    "57P03",  # starting up or shutting down
    "57P05",  # idle for too long
    "58030",  # the server's disk failed
}


class Losses:
    """Counts losses of the database that follow each other without a chunk stored in between."""

    def __init__(self, settings: JobSettings) -> None:
        self._patience_s = settings.patience_s
        self._delay = _FIRST_WAIT_S
        self._since: float | None = None
        self._stored = 0

    def delay_after(self, stored: int) -> float | None:
        """Seconds to wait before the next try, None when patience is over; `stored` is all chunks stored so far."""
        if self._since is None or stored > self._stored:
            self._since, self._stored, self._delay = time.monotonic(), stored, _FIRST_WAIT_S
        if time.monotonic() - self._since > self._patience_s:
            return None
        # Jittered: the workers of a server that comes up again must not all knock at once.
        delay = random.uniform(self._delay / 2, self._delay)  # noqa: S311
        self._delay = min(2 * self._delay, _LONGEST_WAIT_S)
        return delay


def is_lost(error: BaseException) -> bool:
    """Whether a new connection may mend it: the server went away, starts up, or is a standby by now."""
    if isinstance(error, DatabaseGoneError):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return error.sqlstate.startswith("08") or error.sqlstate in _LOST_STATES
