"""Reads the selected version's backfill in detail, while its tab is shown."""

from __future__ import annotations

import time
from collections.abc import Callable

from revector.core.backfill.job.dead_letters import Failure, failures
from revector.core.backfill.job.status import JobDetail, job_detail
from revector.core.database import Connection
from revector.core.errors import RevectorError
from revector.screens.connections import KeptConnection
from revector.screens.pane import Pane
from revector.screens.situation import AT_WORK, key_of
from revector.screens.widgets.background import in_background

MOST_FAILURES = 100
"""How many dead letters are listed, newest first."""
_FAILURES_EVERY_S = 10.0
"""Dead letters are read again when their number or the job's state changes, else after this time."""

Found = tuple[JobDetail | None, tuple[Failure, ...] | None]


class SelectedJob:
    """Details of the selected version's backfill beyond the snapshot; `room` is the map's size in cells."""

    def __init__(self, pane: Pane, room: Callable[[], int], on_read: Callable[[], None]) -> None:
        self.detail: JobDetail | None = None
        self.failures: tuple[Failure, ...] = ()
        self.error: RevectorError | None = None
        self._pane, self._room, self._on_read = pane, room, on_read
        self._connection = KeptConnection(pane.services.connections)
        self._key: str | None = None
        self._failures_of: tuple[object, ...] = ()
        self._failures_at = 0.0
        self._read_at: object = None
        self._reading_since: float | None = None

    def look_again(self) -> None:
        """Read it at the next `look`, even without a new snapshot."""
        self._read_at = None

    def look(self) -> None:
        """Read job and dead letters once for each snapshot, one read at a time."""
        situation, now = self._pane.situation, time.monotonic()
        selected, overview = situation.selected, situation.overview
        if selected is None or overview is None:
            return
        key, version, job = key_of(selected), selected.version, situation.job(selected)
        if key != self._key:
            self._key, self.detail, self.failures, self._failures_of = key, None, (), ()
            self._read_at = None
        if self._read_at == overview.taken_at or not situation.state.live:
            return
        if self._reading_since is not None:
            if now - self._reading_since > self._pane.services.patience_s:
                self._connection.hang_up()  # snapshots still arrive, so only this connection is lost
            return
        self._reading_since, self._read_at = now, overview.taken_at
        wanted, room = (key, selected.failed, job.state if job else None), self._room()
        at_work = job is not None and job.state in AT_WORK
        stale = at_work and now - self._failures_at > _FAILURES_EVERY_S
        letters = wanted != self._failures_of or stale

        def read(connection: Connection) -> Found:
            found = tuple(failures(connection, version, limit=MOST_FAILURES)) if letters else None
            return job_detail(connection, version, cells=room), found

        def done(found: Found) -> None:
            self._reading_since = None
            if key != self._key:
                self._pane.draw()
                return
            if found[1] is not None:
                self._failures_of, self._failures_at = wanted, time.monotonic()
            self.show(*found)

        def failed(error: RevectorError) -> None:
            self._reading_since = None
            if self._pane.situation.state.live:  # otherwise the banner reports it
                self.error = error
                self._pane.draw()

        in_background(self._pane, "job", lambda _tell: self._connection.do(read), done, failed)

    def show(self, detail: JobDetail | None, failures: tuple[Failure, ...] | None = None) -> None:
        """Apply what was read; None leaves the dead letters as they were."""
        self.error, self.detail = None, detail
        if failures is not None:
            self.failures = failures
        self._on_read()

    def close(self) -> None:
        self._connection.close()
