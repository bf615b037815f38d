"""Runs work off the screen's thread, and returns its outcome to it: a result, or an error for a person."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psycopg
from textual.widget import Widget
from textual.worker import get_current_worker

from revector.core.errors import RevectorError, UnreachableError
from revector.core.logs import report

T = TypeVar("T")
Tell = Callable[[Callable[[], None]], None]
"""Calls a function on the screen's own thread, unless the work's result is no longer wanted."""


def in_background(
    widget: Widget,
    group: str,
    work: Callable[[Tell], T],
    done: Callable[[T], None],
    failed: Callable[[RevectorError], None],
) -> None:
    """Run `work(tell)` in a thread, then `done` or `failed` on the screen's own thread.

    Exclusive in its group: results of an earlier call are dropped.
    """
    app = widget.app

    def run() -> None:
        try:
            result = work(tell)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is shown in its place and not as a traceback)
            problem = readable(error)
            tell(lambda: failed(problem))
        else:
            tell(lambda: done(result))

    def tell(call: Callable[[], None]) -> None:
        worker = get_current_worker()
        if not worker.is_cancelled:
            app.call_later(lambda: None if worker.is_cancelled or not widget.is_attached else call())

    widget.run_worker(run, thread=True, exclusive=True, group=group, exit_on_error=False)


def readable(error: Exception) -> RevectorError:
    """Any error as one for a person."""
    if isinstance(error, RevectorError):
        return error
    if isinstance(error, psycopg.Error):
        return UnreachableError(f"Postgres: {str(error).partition(chr(10))[0] or type(error).__name__}")
    report(error)  # a bug
    return RevectorError(f"{type(error).__name__}: {error}")
