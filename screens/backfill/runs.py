"""The backfills that run in this process: a thread each, the index after the vectors, and a clean end.

The job itself is rows in the database; this only knows which workers are ours.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from revector.core.backfill.job.job import request_pause
from revector.core.database import Connection, Database
from revector.core.errors import RefusedError, RevectorError
from revector.core.registry import Version, get_version
from revector.core.settings import Settings
from revector.screens.widgets.background import readable

if TYPE_CHECKING:
    from revector.core.backfill.engines.local import LocalEngine
    from revector.core.backfill.engines.ray.engine import RaySettings
    from revector.core.backfill.job.settings import JobSettings
    from revector.core.backfill.job.status import JobStatus

_POLL_S = 0.2


@dataclass(frozen=True)
class RunOptions:
    """How to run a backfill here: `ray` None means worker processes; `changes` are applied to the job's settings.

    With `stay` it waits while the job is paused, and embeds new chunks when it is done.
    """

    stay: bool = False
    index: bool = True
    ray: RaySettings | None = None
    changes: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Run:
    """The work of one thread. `indexing` is its connection while it builds the index, `engine` the local
    engine."""

    version: Version
    options: RunOptions
    thread: threading.Thread
    engine: LocalEngine | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    indexing: Connection | None = None
    leaving: bool = False
    paused: bool = False
    cut_off: bool = False
    note: str = ""

    def end(self) -> None:
        """Let the workers finish their current batches and stop, or cancel the index build."""
        self.leaving = True
        self.stop.set()
        if self.engine is not None:
            self.engine.leave("stopped in the console")
        self.cut_index_off()

    def cut_index_off(self) -> None:
        if self.indexing is not None:
            self.cut_off = True
            self.indexing.cancel_safe(timeout=_POLL_S)


class Backfills:
    """Runs backfills in threads. `on_change` is called, in the run's thread, when it ends or starts its index."""

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

    @property
    def staying(self) -> frozenset[str]:
        """The versions that it stays with, through a pause and when they are done."""
        return frozenset(key for key, run in list(self._runs.items()) if run.options.stay)

    @property
    def on_ray(self) -> frozenset[str]:
        """The versions whose workers are on Ray."""
        return frozenset(key for key, run in list(self._runs.items()) if run.options.ray is not None)

    def error(self, key: str) -> RevectorError | None:
        """Why the last run of a version here failed, or an empty text."""
        return self._errors.get(key)

    def note(self, key: str) -> str:
        """A message from the run of a version here, for example that a dead worker was replaced."""
        run = self._runs.get(key)
        return run.note if run else ""

    def prepared(self, key: str) -> JobSettings:
        """The settings with which a new backfill of a version starts here."""
        from revector.core.backfill.job.settings import changed, default_settings

        return changed(default_settings(self._settings), self._prepared.get(key, {}))

    def prepare(self, key: str, changes: Mapping[str, str]) -> JobSettings:
        """Change these settings. Raises UsageError for a value out of range."""
        from revector.core.backfill.job.settings import changed

        found = changed(self.prepared(key), changes)
        self._prepared[key] = {**self._prepared.get(key, {}), **changes}
        return found

    def start(self, version: Version, options: RunOptions | None = None) -> None:
        """Run or continue the version's backfill; does nothing if it already runs here."""
        key = version.version_key
        if key in self._runs:
            return
        self._errors.pop(key, None)
        # A daemon thread, like the worker's own threads: a server that hangs must not keep the console from
        # ending.
        thread = threading.Thread(target=self._work, args=[key], name=f"backfill {key}", daemon=True)
        self._runs[key] = _Run(version, options or RunOptions(), thread)
        thread.start()

    def stop_run(self, key: str, *, patience_s: float = 30.0) -> bool:
        """Stop the run of a version here as Ctrl-C stops the command: cleanly, and without pausing the job.

        Waits for its end; False when that takes longer than `patience_s`.
        """
        run = self._runs.get(key)
        if run is None:
            return True
        run.end()
        run.thread.join(patience_s)
        return not run.thread.is_alive()

    def leave(self, *, patience_s: float = 30.0) -> None:
        """Pause everything that runs here and wait for it, but not longer than the timeout."""
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
                run.cut_index_off()
            else:
                self._ask_to_pause(run)
        except (RevectorError, psycopg.Error):
            return  # not open yet, or the database is lost, which ends the worker anyway

    def _ask_to_pause(self, run: _Run) -> None:
        """Pause the job. A run that stays is ended as well, and a Ray that is still starting at once."""
        try:
            with self._database.session("console") as connection:
                request_pause(connection, run.version)
            run.paused = True
        finally:
            if run.options.stay or (run.options.ray is not None and not run.paused):
                run.end()

    def _work(self, key: str) -> None:
        run = self._runs[key]
        try:
            status = self._embed(run)
            if status is not None and status.state == "done" and run.options.index and not run.leaving:
                self._index(run)
        except Exception as error:  # noqa: BLE001  (shown beside the backfill, whatever it is)
            if not run.cut_off:
                self._errors[key] = readable(error)
        finally:
            del self._runs[key]
            self.on_change()

    def _embed(self, run: _Run) -> JobStatus | None:
        from revector.core.backfill.job.settings import changed

        if run.leaving:
            return None

        def keep(note: str) -> None:
            run.note = note
            self.on_change()

        key, options = run.version.version_key, run.options
        settings = changed(self.prepared(key), options.changes)
        if options.ray is not None:
            from revector.core.backfill.engines.ray.engine import serve_on_ray

            status = serve_on_ray(
                self._database, run.version, options.ray, settings, options.changes, on_note=keep, stop=run.stop
            )
        else:
            from revector.core.backfill.engines.local import LocalEngine

            run.engine = LocalEngine(
                self._database,
                run.version,
                settings,
                options.changes,
                stay=options.stay,
                on_note=keep,
                on_done=lambda: self._index(run) if options.index else None,
            )
            if run.leaving:
                run.engine.leave("stopped in the console")  # requested before there was an engine
            status = run.engine.run()
        self._prepared.pop(key, None)  # they were for a new job, which now has them in its row
        return status

    def _index(self, run: _Run) -> None:
        from revector.core import index

        with self._database.session("backfill") as connection:
            run.indexing = connection
            self.on_change()
            try:
                index.build(connection, get_version(connection, run.version.version_key), self._settings)
            except RefusedError:
                if index.progress(connection, run.version) is None:
                    raise  # otherwise another session is already building it, and the screen shows that
            finally:
                run.indexing = None
                self.on_change()
