"""A circuit breaker: a candidate that keeps failing is not asked, except for a trial from time to time.

The three states and their names are those of Nygard, "Release It!" (2018), ch. 5.
"""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections.abc import Callable
from typing import Literal

log = logging.getLogger(__name__)

BreakerState = Literal["closed", "open", "half-open"]


class Breaker:
    """Closed it lets everything through; open nothing; half-open one trial, which closes it or opens it again.

    It opens after `failures` in a row, for `pause_s`; each failed trial doubles the pause, up to `longest_s`. Safe to
    share between threads; no call waits.
    """

    def __init__(
        self,
        failures: int = 5,
        pause_s: float = 5.0,
        longest_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures, self._first_pause_s, self._longest_s, self._clock = failures, pause_s, longest_s, clock
        self._lock = threading.Lock()
        self._state: BreakerState = "closed"
        self._in_a_row = 0
        self._pause_s = pause_s
        self._again_at = 0.0
        self._since: datetime.datetime | None = None
        self._why = ""

    @property
    def state(self) -> BreakerState:
        """The state of the breaker."""
        return self._state

    @property
    def open(self) -> tuple[datetime.datetime, str] | None:
        """Since when the breaker is open and why; None while it is closed."""
        with self._lock:
            return None if self._since is None else (self._since, self._why)

    def admits(self) -> bool:
        """Whether a call may pass. After the pause one trial may pass, until its outcome is known."""
        with self._lock:
            if self._state == "open" and self._clock() >= self._again_at:
                self._state = "half-open"
                return True
            return self._state == "closed"

    def withdraw(self) -> None:
        """The call that was let through was not made: allow another trial."""
        with self._lock:
            if self._state == "half-open":
                self._state = "open"

    def succeeded(self) -> None:
        """The candidate answered."""
        with self._lock:
            if self._state != "closed":
                log.info("shadow: the candidate answers again")
            self._state, self._in_a_row, self._pause_s = "closed", 0, self._first_pause_s
            self._since, self._why = None, ""

    def failed(self, why: str) -> None:
        """The candidate did not answer."""
        with self._lock:
            self._in_a_row += 1
            if self._state == "half-open":
                self._pause_s = min(self._longest_s, 2 * self._pause_s)
            elif self._state == "open" or self._in_a_row < self._failures:
                return
            if self._since is None:
                log.warning("shadow: the candidate is left alone after %d failures", self._in_a_row)
            self._state, self._why = "open", why
            self._since = self._since or datetime.datetime.now(datetime.UTC)
            self._again_at = self._clock() + self._pause_s
