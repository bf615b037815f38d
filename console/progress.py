"""A progress bar on stderr, when that is a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from revector.console.context import plain

if TYPE_CHECKING:
    from revector.core.database import Progress


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """Yield a progress callback for long operations of core: (step, done, total); total is 0 when unknown."""
    if not sys.stderr.isatty():
        yield lambda _step, _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(plain(step), total=total or None)
            bars.update(tasks[step], completed=done, total=total or None)

        yield report
