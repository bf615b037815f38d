"""Keeping versions written: during the watch the version before takes new chunks too; a rollback then loses nothing."""

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
    """Runs the backfills of the two versions of a watch, here, whenever new chunks wait and nobody else is at it.

    `settings` are those of a backfill that never ran. A backfill that somebody has paused stays so, which `on_note`
    is told, as it is of errors. Every run is in a thread of its own: the watch goes on meanwhile.
    """

    def __init__(self, database: Database, settings: JobSettings, on_note: Callable[[str], None]) -> None:
        self._database, self._settings, self._on_note = database, settings, on_note
        self._runs: dict[str, tuple[LocalEngine, threading.Thread]] = {}
        self._not_before: dict[str, float] = {}
        self._said: dict[str, str] = {}

    def keep(self, connection: Connection, watch: Watch) -> None:
        """Start what is needed for both versions, and return at once."""
        for key in (watch.version_key, watch.previous) if watch.way_back else (watch.version_key,):
            running = self._runs.get(key)
            if running is not None and running[1].is_alive():
                continue
            version = get_version(connection, key)
            if time.monotonic() >= self._not_before.get(key, 0.0) and self._needed(connection, version):
                self._start(version)

    def finish(self) -> None:
        """Wait until the runs that were started are over."""
        for _, thread in self._runs.values():
            thread.join()

    def close(self) -> None:
        """Let the batches in hand be finished, and end the runs; the backfills can be taken up by anybody."""
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
        """Once, and not at every look."""
        if self._said.get(key) != text:
            self._said[key] = text
            self._on_note(text)
