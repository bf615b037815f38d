"""A lost database: which errors a new connection may fix, and how long to wait before trying."""

from __future__ import annotations

import random
import time

import psycopg

from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.worker.control import DatabaseGoneError

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 10.0

_LOST_STATES = {
    "25006",  # now read-only: the primary has become a standby
    "25P03",  # idle in a transaction for too long: we were frozen
    "25P04",  # a transaction that took too long
    "57P01",  # shut down by an administrator
    "57P02",  # another process of the server crashed
    "57P03",  # starting up or shutting down
    "57P05",  # idle for too long
    "58030",  # the server's disk failed
}


class Losses:
    """Counts consecutive losses of the database, without a chunk stored in between."""

    def __init__(self, settings: JobSettings) -> None:
        self._patience_s = settings.patience_s
        self._delay = _FIRST_WAIT_S
        self._since: float | None = None
        self._stored = 0

    def delay_after(self, stored: int) -> float | None:
        """Seconds to wait before the next try, None to give up; `stored` is the number of chunks stored so far."""
        if self._since is None or stored > self._stored:
            self._since, self._stored, self._delay = time.monotonic(), stored, _FIRST_WAIT_S
        if time.monotonic() - self._since > self._patience_s:
            return None
        # Jittered: workers must not all reconnect at once when the server comes back.
        delay = random.uniform(self._delay / 2, self._delay)  # noqa: S311
        self._delay = min(2 * self._delay, _LONGEST_WAIT_S)
        return delay


def is_lost(error: BaseException) -> bool:
    """Whether a new connection may help: the server went away, is starting up, or is now a standby."""
    if isinstance(error, DatabaseGoneError):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return error.sqlstate.startswith("08") or error.sqlstate in _LOST_STATES
