"""The console on a terminal. Reading the database starts before Textual is imported, and runs in parallel."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from revector.core.errors import UsageError

if TYPE_CHECKING:
    from revector.console.context import Context


def open_console(context: Context) -> None:
    """Open the Textual console. Raises UsageError without a terminal."""
    require_terminal()
    from revector.core.logs import start

    start("console", context.settings, context.command)
    from revector.screens.frame.snapshots import SnapshotReader

    reader = SnapshotReader(context.database, context.settings)
    reader.start()
    from revector.console.app import run_console

    run_console(context.database, context.settings, reader=reader)


def require_terminal() -> None:
    """Raise UsageError if there is no terminal for the console."""
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise UsageError(
            "The console needs a terminal.",
            "Do not redirect stdin, stdout or stderr. For scripts, see revector --help and --json.",
        )
