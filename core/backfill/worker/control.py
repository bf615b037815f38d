"""What the threads of one worker share: whether to stop and why, the settings in force, and what they wait for."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

from psycopg import errors as pg

from revector.core.backfill.job.settings import JobSettings
from revector.core.database import Connection

log = logging.getLogger(__name__)

_CANCEL_S = 2.0


class StoppedError(Exception):
    """The job was paused or ended, the worker is leaving, or another of its threads failed."""


class DatabaseGoneError(Exception):
    """No connection can be opened at the moment."""


class Control:
    """Every wait of a worker goes through here, so that pausing and leaving end the wait at once."""

    def __init__(self, settings: JobSettings) -> None:
        self.settings = settings
        self.live_workers = 1
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._job_throttle: str | None = None
        self._waiting = 0
        self._reason: str | None = None
        self._provider_reason: str | None = None
        self._reason_until = 0.0
        self._interruptible: Connection | None = None

    @property
    def stopped(self) -> bool:
        """Whether no new batch may be begun."""
        return self._stop.is_set()

    @property
    def reason(self) -> str | None:
        """What this worker itself waits for (its provider, its share of the rate, money), or None."""
        if self.stopped:
            return None
        own = self._reason if self._waiting or time.monotonic() < self._reason_until else None
        return own or self._provider_reason

    def stop(self) -> None:
        """Stop cleanly: batches being encoded or written are finished."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
            if self._interruptible is not None:
                self._interruptible.cancel_safe(timeout=_CANCEL_S)

    def fail(self, error: BaseException) -> None:
        """Stop because of an error; the first one counts."""
        if not isinstance(error, StoppedError) and self.failure is None:
            self.failure = error
        self.stop()

    def follow(self, settings: JobSettings, throttle: str | None, live_workers: int) -> None:
        """Apply what the job's row says now."""
        self.settings, self.live_workers = settings, max(1, live_workers)
        with self._changed:
            self._job_throttle = throttle
            self._changed.notify_all()

    def pass_gate(self) -> None:
        """Wait until no limit holds the job. Raises StoppedError when it is stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self.stopped or self._job_throttle is None)
        if self.stopped:
            raise StoppedError

    def wait(self, seconds: float) -> None:
        """Sleep, unless stopped: raises StoppedError then."""
        if self._stop.wait(seconds):
            raise StoppedError

    @contextlib.contextmanager
    def holding(self, reason: str, *, linger_s: float = 0.0) -> Iterator[None]:
        """Set the reason while this worker waits; `linger_s` keeps it between short waits in a row."""
        with self._changed:
            self._waiting += 1
            self._reason = reason
        try:
            yield
        finally:
            with self._changed:
                self._waiting -= 1
                self._reason_until = time.monotonic() + linger_s

    @contextlib.contextmanager
    def interruptible(self, connection: Connection) -> Iterator[None]:
        """Cancel statements in this block when the worker is stopped, and raise StoppedError."""
        with self._changed:
            self._interruptible = connection
        try:
            if self.stopped:
                raise StoppedError
            yield
        except pg.QueryCanceled:
            if not self.stopped:
                raise
            raise StoppedError from None
        finally:
            with self._changed:
                self._interruptible = None

    # Two of the three hooks of core.encoders.Throttled; the third is `wait`.

    def throttled(self, seconds: float, reason: str) -> None:
        """The provider wants us to wait."""
        log.warning("held by the encoder's provider, for %.1f s", seconds)
        log.debug("held by the encoder's provider: %s", reason)
        self._provider_reason = f"{reason}, waiting {seconds:.0f} s"

    def resumed(self) -> None:
        """The provider no longer wants us to wait."""
        log.info("no longer held by the encoder's provider")
        self._provider_reason = None
