"""The program `revector`: errors for people, exit statuses, and a fast start of the console.

`revector` alone opens the console without importing the command line, whose parser would take a tenth of the time
to the first frame.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys

from revector.console.context import Context, note, pipe, print_error
from revector.core.errors import RevectorError, UsageError


def main() -> None:
    """Run the program with the arguments of this process. SIGTERM, as a service manager sends it, is like Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _prepare_streams()
    try:
        if len(sys.argv) > 1:
            from revector.console.cli import run

            status = run()
        else:
            from revector.console.terminal import open_console

            open_console(Context())
            status = 0
    except KeyboardInterrupt:  # while modules are imported, or the embedded server starts
        status = 130
    except Exception as error:  # noqa: BLE001  (whatever it is, it is shown as an error for a person)
        with pipe(sys.stdout):  # if that is what failed, it fails again: --help is not ours to write
            sys.stdout.flush()
        shown = _readable(error)
        note(str(shown))
        print_error(shown.problem, shown.remedy, shown.kind)
        status = shown.exit_status
    finally:
        with pipe(sys.stdout):
            sys.stdout.flush()
    if status == 130:
        print_error("Interrupted.", "", "interrupted")
    sys.exit(status)


def _readable(error: Exception) -> RevectorError:
    if isinstance(error, RevectorError):
        logging.getLogger(__name__).warning("ended: %s", error.kind)
        return error
    if isinstance(error, UnicodeEncodeError) and any(
        error.object[error.start] in argument for argument in sys.argv[1:]
    ):
        return UsageError(f"{error.object!r} is not UTF-8: there is no such name.")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # of a stdout without a buffer
        return RevectorError(f"The answer cannot be written: {error.strerror}.")
    from revector.core.logs import crashed

    return crashed(error)


def _prepare_streams() -> None:
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # characters that the locale lacks are escaped
            stream.reconfigure(errors="backslashreplace")
