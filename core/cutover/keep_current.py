"""Keeps versions current: during the watch the previous version gets new chunks too, so a rollback loses
nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from revector.core.backfill.engines.local import LocalEngine
from revector.core.backfill.job.job import count_workers, find_job
from revector.core.backfill.job.settings import JobSettings
from revector.core.cutover.watch import Watch
from revector.core.database import Connection, Database, fetch_one
from revector.core.errors import RevectorError
from revector.core.registry import Version, get_version

_AFTER_ERROR_S = 30.0


class Keeper:
    """Runs the backfills of a watch's two versions in this process, when new chunks wait and no other worker runs.

    `settings` apply to a backfill that never ran. A paused backfill stays paused; `on_note` is told about it, and
    about errors. Each run has its own thread, so the watch continues.
    """

    def __init__(self, database: Database, settings: JobSettings, on_note: Callable[[str], None]) -> None:
        self._database, self._settings, self._on_note = database, settings, on_note
        self._runs: dict[str, tuple[LocalEngine, threading.Thread]] = {}
        self._not_before: dict[str, float] = {}
        self._said: dict[str, str] = {}

    def keep(self, connection: Connection, watch: Watch) -> None:
        """Start the runs that both versions need, and return at once."""
        for key in (watch.version_key, watch.previous) if watch.way_back else (watch.version_key,):
            running = self._runs.get(key)
            if running is not None and running[1].is_alive():
                continue
            version = get_version(connection, key)
            if time.monotonic() >= self._not_before.get(key, 0.0) and self._needed(connection, version):
                self._start(version)

    def finish(self) -> None:
        """Wait for the runs that were started."""
        for _, thread in self._runs.values():
            thread.join()

    def close(self) -> None:
        """End the runs after their current batches; any worker can continue the backfills."""
        for engine, _ in self._runs.values():
            engine.leave("the watch has ended")
        self.finish()

    def _needed(self, connection: Connection, version: Version) -> bool:
        (waiting,) = fetch_one(
            connection, "SELECT EXISTS (SELECT FROM chunk_outbox WHERE embedding_version_id = %s)", [version.id]
        )
        if not waiting:
            self._said.pop(version.version_key, None)
            return False
        job = find_job(connection, version)
        if job is None:
            return True
        if job.state in ("paused", "pausing"):
            key = version.version_key
            self._say(key, f"New chunks wait for {key}, whose backfill is paused: revector backfill resume {key}")
            return False
        return count_workers(connection, job.id) == 0

    def _start(self, version: Version) -> None:
        engine = LocalEngine(self._database, version, self._settings, on_note=self._on_note)
        thread = threading.Thread(target=self._run, args=(engine, version.version_key), daemon=True)
        self._runs[version.version_key] = (engine, thread)
        thread.start()

    def _run(self, engine: LocalEngine, key: str) -> None:
        try:
            engine.run()
        except RevectorError as error:
            self._not_before[key] = time.monotonic() + _AFTER_ERROR_S
            self._say(key, f"{key} is not kept up to date: {error.problem}")

    def _say(self, key: str, text: str) -> None:
        """Report a problem once, not at every check."""
        if self._said.get(key) != text:
            self._said[key] = text
            self._on_note(text)
