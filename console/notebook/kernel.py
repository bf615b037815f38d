"""What the notebook needs from Jupyter: an output that is updated in place, and errors without tracebacks.

Nothing here imports IPython: in a kernel it is already imported. Elsewhere everything works silently without it.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from revector.console.notebook.plain import plain_text
from revector.core.errors import RevectorError
from revector.core.evaluation.reports.page import Bar, Note, ReportPage
from revector.screens.wording.text import printable

if TYPE_CHECKING:
    from revector.core.database import Progress

_EVERY_S = 0.25
_RED, _PLAIN = "\x1b[31m", "\x1b[0m"


def _shell() -> Any:
    """The shell of this kernel; None in a terminal's IPython, which cannot update an output in place."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None


def in_kernel() -> bool:
    """Whether a cell can show live output."""
    return _shell() is not None


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Suppress output that libraries show in the cell unasked, as Rich does for every console in a kernel."""
    if _shell() is None:
        yield
        return
    from IPython.utils.capture import capture_output

    with capture_output(stdout=False, stderr=False, display=True):
        yield


def current_cell() -> int | None:
    """The number of the running cell; None outside of a kernel."""
    shell = _shell()
    return None if shell is None else int(shell.execution_count)


class Live:
    """One output of a cell, updated in place. Its last state stays in the saved notebook."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._sent = False
        self._next = 0.0

    @property
    def drawn(self) -> bool:
        """Whether anything was shown yet."""
        return self._handle is not None

    @property
    def shown_in(self) -> int | None:
        """The cell in which it was shown."""
        return current_cell() if self.drawn else None

    def show(self, page: ReportPage, *, now: bool = True) -> None:
        """Replace the shown page; unless `now`, at most a few times a second."""
        if _shell() is None or (not now and time.monotonic() < self._next):
            return
        from IPython.display import DisplayHandle

        self._next = time.monotonic() + _EVERY_S
        bundle = {"text/html": page.html(), "text/plain": plain_text(page)}
        # Set the id before sending, so that an interrupt does not cause a second output.
        if self._handle is None:
            self._handle = DisplayHandle()  # type: ignore[no-untyped-call]
        if not self._sent:
            self._handle.display(bundle, raw=True)
            self._sent = True
        else:
            self._handle.update(bundle, raw=True)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """Yield a progress callback for long operations of core: (step, done, total); total is 0 when unknown."""

        def report(step: str, done: int, total: int) -> None:
            share = (Bar(min(1.0, done / total)),) if total else ()
            count = f"{done:,} of {total:,}" if total else f"{done:,}"
            self.show(ReportPage(step, (*share, Note(count, "soft"))), now=done == total)

        yield report


class CellInterruptedError(KeyboardInterrupt):
    """The interrupt of a cell, raised after everything ended cleanly."""


@contextlib.contextmanager
def errors_for_people() -> Iterator[None]:
    """Make IPython show our errors as their message only; they stay exceptions."""
    try:
        yield
    except RevectorError as error:
        _say_only(error, f"{_RED}{type(error).__name__}{_PLAIN}: {printable(str(error), lines=True)}")
        raise
    except CellInterruptedError as interrupt:
        _say_only(interrupt, printable(str(interrupt), lines=True))
        raise


def _say_only(error: BaseException, text: str) -> None:
    error.__dict__["_render_traceback_"] = text.splitlines
