"""The thread that reads the database for the screen. Requests never queue, and the screen never waits.

A tick sets a flag; requests during a read are answered by the next read. A lost connection is retried after
growing pauses. A read that hangs (a network that drops packets) is abandoned, and a new thread takes over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import psycopg

from revector.core.database import Connection, Database, readable_errors, require_schema
from revector.core.errors import RevectorError, UnreachableError
from revector.core.logs import report
from revector.core.overview import Overview, read_overview
from revector.core.revisions import HEAD
from revector.core.settings import Settings
from revector.screens.connections import shut_down

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 5.0
_LAST_READ_S = 0.5


@dataclass(frozen=True)
class Reading:
    """The last snapshot, and why there is no newer one. Times are those of `time.monotonic()`.

    `lost`: the database cannot be reached. A read that took too long is an error too, but does not count as lost:
    a rollback must be possible on a busy server.
    """

    overview: Overview | None = None
    received: float = 0.0
    error: RevectorError | None = None
    lost: bool = True
    retry_at: float | None = None

    def age(self) -> float:
        """Seconds since the snapshot came in."""
        return time.monotonic() - self.received


class SnapshotReader:
    """Reads `Overview` snapshots of a database."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.latest = Reading()
        self._database = database
        self._timeout_s = settings.read_timeout_s
        # A snapshot is some ten statements, each with the timeout; we wait for two timeouts at most.
        self._patience_s = database.connect_timeout_s + 2 * settings.read_timeout_s
        self._on_reading: Callable[[], None] = lambda: None
        self._wanted = threading.Event()
        self._hurry = threading.Event()
        self._round: _Round | None = None

    def start(self, on_reading: Callable[[], None] | None = None) -> None:
        """Start reading; the thread calls `on_reading` at each change. A second call only replaces that."""
        if on_reading is not None:
            self._on_reading = on_reading
        if self._round is None:
            self._begin()

    def _begin(self) -> None:
        self._wanted.set()
        self._round = current = _Round()
        current.thread = threading.Thread(target=self._run, args=[current], name="console-reader", daemon=True)
        current.thread.start()

    def request(self) -> None:
        """Request a new snapshot; during a read it is read once more, and a read that hangs is abandoned."""
        current = self._round
        if current and current.busy_since and time.monotonic() - current.busy_since > self._patience_s:
            self._end(current)
            problem = f"The database {self._database.name} has not answered for {self._patience_s:.0f} s."
            remedy = "Check the network, and that the server is not stopped."
            self._publish(UnreachableError(problem, remedy), True, None)
            self._begin()
        self._wanted.set()

    def retry(self) -> None:
        """Try again now."""
        self._hurry.set()

    def stop(self) -> None:
        """Stop the thread. A running read gets a moment to end, and is then cancelled."""
        if self._round is None:
            return
        self._round.over = True
        self._wanted.set()
        self._hurry.set()
        if self._round.thread is not None:
            self._round.thread.join(_LAST_READ_S)
        self._end(self._round)

    def _end(self, current: _Round) -> None:
        current.over = True
        if current.connection is not None:
            shut_down(current.connection)
        self._wanted.set()
        self._hurry.set()

    def _run(self, current: _Round) -> None:
        pause = 0.0
        while not current.over:
            self._wanted.wait()
            self._wanted.clear()
            try:
                current.busy_since = time.monotonic()
                overview = self._read(current)
            except RevectorError as error:
                current.busy_since = None
                lost = not isinstance(error, _SlowError)
                if lost:
                    current.close()
                pause = min(max(2 * pause, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
                if not current.over:
                    self._hurry.clear()
                    self._publish(error, lost, time.monotonic() + pause)
                    self._hurry.wait(pause)
                    self._wanted.set()
            else:
                current.busy_since = None
                pause = 0.0
                if not current.over:
                    if self.latest.error is not None:
                        log.info("reading %s again", self._database.name)
                    self.latest = Reading(overview, time.monotonic(), lost=False)
                    self._on_reading()
        current.close()

    def _read(self, current: _Round) -> Overview:
        try:
            with readable_errors(self._database):
                if current.connection is None:
                    current.connection = self._database.connect("console", statement_timeout_s=self._timeout_s)
                    require_schema(current.connection, self._database.schema)
                try:
                    overview = read_overview(current.connection, self._database.schema)
                except psycopg.errors.QueryCanceled:
                    problem = f"A read took longer than {self._timeout_s:g} s and was cancelled."
                    raise _SlowError(
                        problem, "The server is busy; read_timeout_s sets how long to wait."
                    ) from None
                if overview.server.schema_revision != HEAD:
                    require_schema(current.connection, self._database.schema)
                return overview
        except RevectorError:
            raise
        except psycopg.Error as error:
            problem = str(error).partition("\n")[0]
            raise UnreachableError(f"The collection cannot be read: {problem}", "See `revector doctor`.") from None
        except Exception as error:
            report(error)  # a bug
            raise RevectorError(f"Reading the collection failed: {type(error).__name__}: {error}") from error

    def _publish(self, error: RevectorError, lost: bool, retry_at: float | None) -> None:
        if str(error) != str(self.latest.error):  # it is retried
            log.warning("cannot refresh from %s: %s", self._database.name, type(error).__name__)
            log.debug("cannot refresh: %s", error.problem)
        self.latest = replace(self.latest, error=error, lost=lost, retry_at=retry_at)
        self._on_reading()


class _SlowError(RevectorError):
    """The server works, but slower than the read timeout."""


@dataclass
class _Round:
    """The state of one reader thread; `over` when another one has replaced it."""

    thread: threading.Thread | None = None
    connection: Connection | None = None
    busy_since: float | None = None
    over: bool = False

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None
