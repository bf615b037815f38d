"""How long a start or stop may take, what it waits for, and its errors."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from revector.core.errors import UnreachableError

POLL_S = 0.02
_LOW_SPACE_BYTES = 100_000_000
# The file lock belongs to the process (it ends with it, and no child inherits it), so threads need another one.
_threads = threading.Lock()


class Wait:
    """How long a call may take, and what it waits for; each is reported once."""

    def __init__(self, timeout_s: float, on_wait: Callable[[str], None] | None = None) -> None:
        self._timeout_s, self._end, self._on_wait = timeout_s, time.monotonic() + timeout_s, on_wait
        self._reason = ""

    def left(self) -> float:
        """The seconds that are left."""
        return max(0.0, self._end - time.monotonic())

    def tell(self, reason: str) -> None:
        """Report what is waited for from now on."""
        if self._on_wait is not None and reason != self._reason:
            self._on_wait(reason)
        self._reason = reason

    def pause(self, data: Path) -> None:
        """Sleep briefly; raises UnreachableError when the time is over."""
        if not self.left():
            problem = f"The embedded server was not ready after {self._timeout_s:g} s ({self._reason})."
            raise failure(data, problem, "It may need longer. Try again in a minute.")
        time.sleep(POLL_S)


@contextlib.contextmanager
def locked(data: Path, wait: Wait) -> Iterator[None]:
    """Lock out every other start and stop of this server."""
    import fasteners

    file = fasteners.InterProcessLock(data.with_name(f"{data.name}.lock"))
    with contextlib.ExitStack() as held:
        got = _threads.acquire(timeout=wait.left())
        if got:
            held.callback(_threads.release)
            if not (got := file.acquire(blocking=False)):
                wait.tell("waiting for another revector process that starts or stops the server")
                got = file.acquire(timeout=wait.left())
        if not got:
            problem = f"Another revector process is still starting or stopping the server in {data}."
            raise UnreachableError(problem, "Try again in a minute, or stop that process.")
        held.callback(file.release)
        yield


@contextlib.contextmanager
def folder_errors(data: Path) -> Iterator[None]:
    """Raise UnreachableError for errors of the operating system or a program on the folder."""
    try:
        yield
    except (OSError, subprocess.SubprocessError) as error:
        name, reason = getattr(error, "filename", None), getattr(error, "strerror", None)
        reason = f"{os.fsdecode(name)}: {reason}" if name and reason else error
        problem = f"The embedded database cannot use the folder {data.parent}: {reason}.{_space(data)}"
        raise UnreachableError(problem, "Fix that, or name another folder in REVECTOR_HOME.") from error


def failure(data: Path, problem: str, remedy: str) -> UnreachableError:
    """The error, with the last lines of the server's log."""
    logs = sorted((data / "log").glob("*.log"), key=lambda log: log.stat().st_mtime)
    lines = logs[-1].read_text(errors="replace").splitlines()[-6:] if logs else []
    return UnreachableError("\n".join([problem + _space(data), *lines]), f"{remedy} Its log is in {data / 'log'}.")


def _space(data: Path) -> str:
    """A note for an error when the disk is nearly full, since a log that cannot be written does not say so."""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(data.parent).free
        return f" Its disk has {free // 1_000_000} MB free." if free < _LOW_SPACE_BYTES else ""
    return ""
