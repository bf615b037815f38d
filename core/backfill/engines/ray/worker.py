"""The Ray actor: one backfill worker in a process on some node."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from revector.core import logs
from revector.core.backfill.worker.worker import Worker
from revector.core.database import Database
from revector.core.errors import (
    EncoderError,
    MisfitError,
    RefusedError,
    RevectorError,
    UnreachableError,
    UsageError,
)
from revector.core.secrets import scrub

if TYPE_CHECKING:
    from revector.core.registry import Version

ENDING = frozenset({"pausing", "paused", "cancelled", "done", "failed"})
"""Job states in which no worker is added."""


@dataclass(frozen=True)
class Place:
    """Where an actor runs: the machine, the process, and Ray's id of the node."""

    host: str
    pid: int
    node: str


@dataclass(frozen=True)
class Outcome:
    """How a worker ended: as it should, with an error for a person, or a problem that a new process may not have.

    `misfit`: the error is this node's, which does not agree with the others.
    """

    error: RevectorError | None = None
    misfit: bool = False
    trouble: str | None = None


class BackfillWorker:
    """The actor: one worker in a process started by Ray. Its methods run concurrently."""

    def __init__(self) -> None:
        logs.start_worker()
        self._lock = threading.Lock()
        self._left = False
        self._worker: Worker | None = None

    def where(self) -> Place:
        """Where this runs; answers as soon as Ray has placed it."""
        import ray

        return Place(socket.gethostname(), os.getpid(), ray.get_runtime_context().get_node_id())

    def run(self, database: Database, version: Version) -> Outcome:
        """Work until the job ends or `leave` is called. Raises nothing: Ray would print the traceback and its
        values."""
        try:
            self._run(database, version)
        except RevectorError as error:
            return Outcome(error=portable(error), misfit=isinstance(error, MisfitError))
        except Exception as error:  # noqa: BLE001  (from a database driver or a model; this process may be broken)
            return Outcome(
                trouble=f"{scrub(in_short(error))} (report: {logs.report(error)} on {socket.gethostname()})"
            )
        return Outcome()

    def leave(self) -> None:
        """Let the worker finish its current batch and end; if it has not begun, it will not begin."""
        with self._lock:
            self._left = True
            if self._worker is not None:
                self._worker.leave("fewer workers are needed, or the run ends")

    def _run(self, database: Database, version: Version) -> None:
        from revector.core.retrieval import open_version_encoder

        with contextlib.closing(open_version_encoder(version)) as encoder:
            with self._lock:
                if self._left:
                    return
                self._worker = Worker(database, version, encoder, engine="ray", check=True)
            self._worker.join()


def portable(error: RevectorError) -> RevectorError:
    """The error as one of our own classes: a package's subclass may not be importable in the receiving process."""
    kinds = (UsageError, RefusedError, UnreachableError, EncoderError)
    kind = next((one for one in kinds if isinstance(error, one)), RevectorError)
    return kind(error.problem, error.remedy)


def in_short(error: BaseException) -> str:
    """An error's kind and its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
