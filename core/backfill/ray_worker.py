"""The actor that Ray places: one backfill worker in a process on some node."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.conninfo import conninfo_to_dict

from core.backfill.job import status
from core.backfill.worker import Worker, WorkerSettings
from core.database import Connection, Database
from core.errors import EncoderError, RefusedError, RevectorError, UnreachableError, UsageError

if TYPE_CHECKING:
    from core.backfill.job import JobStatus
    from core.registry import Version

ENDING = frozenset({"pausing", "paused", "cancelled", "done", "failed"})
"""States of a job in which no worker is added: a new one would take a paused job up again."""


class Sealed:
    """A database that shows nothing of its connection string when it is printed."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def __repr__(self) -> str:
        return f"<database {self.database.name}>"

    def scrub(self, text: str) -> str:
        """The text without the password, should it be in there."""
        password = conninfo_to_dict(self.database.dsn).get("password")
        return text.replace(str(password), "[password]") if password else text


@dataclass(frozen=True)
class Place:
    """Where an actor runs."""

    host: str
    pid: int


@dataclass(frozen=True)
class Outcome:
    """How a worker ended: the job's status, an error for a person, or trouble that a new process may not have."""

    status: JobStatus | None = None
    error: RevectorError | None = None
    trouble: str | None = None


class _LeavingWorker(Worker):
    """A worker that can be asked to leave while the job goes on."""

    def leave(self) -> None:
        """Finish the batch in hand, give the range back, and end."""
        self._stop.set()


class BackfillWorker:
    """The actor: one worker in a process that Ray started somewhere. Its methods run side by side."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left = False
        self._worker: _LeavingWorker | None = None

    def where(self) -> Place:
        """Where this runs: answered as soon as Ray has placed it."""
        return Place(socket.gethostname(), os.getpid())

    def run(self, sealed: Sealed, version: Version, settings: WorkerSettings) -> Outcome:
        """Work until the job ends or `leave` is called. Raises nothing: Ray would show where, and with what."""
        try:
            return Outcome(status=self._run(sealed.database, version, settings))
        except RevectorError as error:
            return Outcome(error=portable(error))
        except Exception as error:  # noqa: BLE001  (of a driver or a model: this process may be spoilt)
            return Outcome(trouble=sealed.scrub(in_short(error)))

    def leave(self) -> None:
        """Let the worker finish the batch in hand and end; one that has not begun will not begin."""
        with self._lock:
            self._left = True
            if self._worker is not None:
                self._worker.leave()

    def _run(self, database: Database, version: Version, settings: WorkerSettings) -> JobStatus | None:
        from core.retrieval import open_version_encoder

        encoder = open_version_encoder(version)
        try:
            with self._lock:
                if not self._left:
                    self._worker = _LeavingWorker(database, version, encoder, settings)
            with database.session("ray") as connection:
                # The encoder took its time to open, and the worker would take a paused job up again.
                ended = job_state(connection, version) in ENDING
                if ended or self._worker is None:
                    return status(connection, version)
            return self._worker.run()
        finally:
            encoder.close()


def job_state(connection: Connection, version: Version) -> str | None:
    """The state in the job's row; None when it is gone."""
    row = connection.execute(
        "SELECT state FROM backfill_jobs WHERE embedding_version_id = %s", [version.id]
    ).fetchone()
    return row[0] if row else None


def portable(error: RevectorError) -> RevectorError:
    """The same error as one of ours alone: a package's own subclass may not be there where it is read."""
    for kind in (UsageError, RefusedError, UnreachableError, EncoderError):
        if isinstance(error, kind):
            return kind(error.problem, error.remedy)
    return RevectorError(error.problem, error.remedy)


def in_short(error: BaseException) -> str:
    """An error's kind and its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
