"""The backfills that this process works on: a thread each, the index after the vectors, and an end in order.

The job itself is rows in the database; what is kept here is only which worker is ours.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from core.backfill.job import request_pause
from core.database import Connection, Database
from core.errors import RefusedError, RevectorError
from core.registry import Version, get_version
from core.settings import Settings
from screens.background import readable

if TYPE_CHECKING:
    from core.backfill.settings import JobSettings
    from core.backfill.status import JobStatus

_POLL_S = 0.2


@dataclass
class _Run:
    """One thread's work. `indexing` is its connection while it builds the index."""

    version: Version
    thread: threading.Thread
    indexing: Connection | None = None
    leaving: bool = False
    note: str = ""


class Backfills:
    """Runs backfills in threads. `on_change` is called, in one of them, when one ends or begins its index."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._database = database
        self._settings = settings
        self._runs: dict[str, _Run] = {}
        self._errors: dict[str, RevectorError] = {}
        self._prepared: dict[str, dict[str, str]] = {}

    @property
    def working(self) -> frozenset[str]:
        """The keys of the versions that this process works on."""
        return frozenset(self._runs)

    def error(self, key: str) -> RevectorError | None:
        """Why the last run of a version here ended, if it was not in order."""
        return self._errors.get(key)

    def note(self, key: str) -> str:
        """What the run of a version here has to say to people: a worker that died, and was replaced."""
        run = self._runs.get(key)
        return run.note if run else ""

    def prepared(self, key: str) -> JobSettings:
        """The settings that a backfill of a version begins with when it is run here."""
        from core.backfill.settings import changed, default_settings

        return changed(default_settings(self._settings), self._prepared.get(key, {}))

    def prepare(self, key: str, changes: Mapping[str, str]) -> JobSettings:
        """Change them. Raises UsageError for a value out of its range."""
        from core.backfill.settings import changed

        found = changed(self.prepared(key), changes)
        self._prepared[key] = {**self._prepared.get(key, {}), **changes}
        return found

    def start(self, version: Version) -> None:
        """Run the version's backfill, or go on with it; nothing when it runs here already."""
        key = version.version_key
        if key in self._runs:
            return
        self._errors.pop(key, None)
        # A daemon, and with it the worker's own threads: when the server hangs, leaving does not.
        thread = threading.Thread(target=self._work, args=[key], name=f"backfill {key}", daemon=True)
        self._runs[key] = _Run(version, thread)
        thread.start()

    def leave(self, *, patience_s: float = 30.0) -> None:
        """Pause everything that runs here and wait until it is; what hangs longer than that is left alone."""
        deadline = time.monotonic() + patience_s
        for run in list(self._runs.values()):
            run.leaving = True
        for run in list(self._runs.values()):
            while run.thread.is_alive() and time.monotonic() < deadline:
                self._ask_to_stop(run)
                run.thread.join(_POLL_S)

    def _ask_to_stop(self, run: _Run) -> None:
        try:
            if run.indexing is not None:
                run.indexing.cancel_safe(timeout=_POLL_S)
            else:
                with self._database.session("console") as connection:
                    request_pause(connection, run.version)
        except (RevectorError, psycopg.Error):
            return  # not open yet, pausing already, or the database is lost, which ends the worker by itself

    def _work(self, key: str) -> None:
        run = self._runs[key]
        try:
            status = self._embed(run)
            if status is not None and status.state == "done" and not run.leaving:
                self._index(run)
        except Exception as error:  # noqa: BLE001  (shown beside the backfill, whatever it is)
            self._errors[key] = readable(error)
        finally:
            del self._runs[key]
            self.on_change()

    def _embed(self, run: _Run) -> JobStatus | None:
        from core.backfill.engine import LocalEngine

        if run.leaving:
            return None

        def keep(note: str) -> None:
            run.note = note
            self.on_change()

        key = run.version.version_key
        engine = LocalEngine(self._database, run.version, self.prepared(key), on_note=keep)
        status = engine.run()
        self._prepared.pop(key, None)  # they were for a new job, which keeps them in its row
        return status

    def _index(self, run: _Run) -> None:
        from core import index

        with self._database.session("backfill") as connection:
            run.indexing = connection
            self.on_change()
            try:
                index.build(connection, get_version(connection, run.version.version_key), self._settings)
            except RefusedError:
                if index.progress(connection, run.version) is None:
                    raise  # else another session builds it already, and the screen shows that
            finally:
                run.indexing = None
