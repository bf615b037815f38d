"""Time contenders in turns, and show them as a table of ratios; on a separate server."""

from __future__ import annotations

import contextlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from revector.core import embedded
from revector.core.database import Database
from revector.core.migrations import upgrade

_console = Console(highlight=False)


@dataclass(frozen=True)
class Contender:
    """One way to do the thing. `run` does it once and returns the seconds it took; see `stopwatch`."""

    name: str
    run: Callable[[], float]
    amount: int = 1
    """How many units of the result's unit one run does."""


@dataclass(frozen=True)
class Result:
    """What one contender took, in seconds, round by round."""

    contender: Contender
    seconds: tuple[float, ...]

    def rates(self) -> list[float]:
        """Units a second, round by round."""
        return [self.contender.amount / seconds for seconds in self.seconds]


def in_turns(
    contenders: Sequence[Contender], rounds: int, before: Callable[[], None] = lambda: None
) -> list[Result]:
    """Run every contender once a round, every second round backwards, `before` each run; one round is warm-up.

    So a slow minute of the machine affects all of them, and none always runs after the same other.
    """
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for number in range(rounds + 1):
        for contender in contenders if number % 2 else reversed(contenders):
            before()
            took = contender.run()
            if number:
                seconds[contender.name].append(took)
    return [Result(contender, tuple(seconds[contender.name])) for contender in contenders]


def stopwatch(action: Callable[[], object]) -> Callable[[], float]:
    """The action, which then returns the seconds it took."""

    def run() -> float:
        start = time.perf_counter()
        action()
        return time.perf_counter() - start

    return run


def show_rates(title: str, unit: str, results: Sequence[Result]) -> None:
    """Print rates, and how many times as fast the first contender is as each."""
    table = _table(title, f"{unit} min", "median", "max", f"{results[0].contender.name}\nis × as fast")
    first = results[0].rates()
    for each in results:
        rates = each.rates()
        ratio = statistics.median(a / b for a, b in zip(first, rates, strict=True))
        figures = (min(rates), statistics.median(rates), max(rates))
        table.add_row(each.contender.name, *(f"{figure:,.0f}" for figure in figures), f"{ratio:.2f}")
    _console.print(table)


def show_times(title: str, results: Sequence[Result]) -> None:
    """Print times, and how many times as long the first contender takes as each."""
    table = _table(title, "ms min", "median", "max", f"{results[0].contender.name}\ntakes × as long")
    for each in results:
        pairs = zip(results[0].seconds, each.seconds, strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        figures = (min(each.seconds), statistics.median(each.seconds), max(each.seconds))
        table.add_row(each.contender.name, *(f"{1000 * figure:,.0f}" for figure in figures), f"{ratio:.2f}")
    _console.print(table)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print figures that are no comparison of contenders; each row begins with its name."""
    table = _table(title, *columns)
    for row in rows:
        table.add_row(*row)
    _console.print(table)


def tell(line: str) -> None:
    """Print a line."""
    _console.print(line, markup=False)


@contextlib.contextmanager
def own_database(schema: str) -> Iterator[Database]:
    """A collection on an embedded server in a temporary folder; both are gone at the end."""
    home = Path(tempfile.mkdtemp(prefix="revector-bench-"))
    try:
        database = Database(embedded.start(home).dsn, schema, embedded=True)
        with database.connect("bench") as connection:
            # It would start when it likes, in the middle of one contender's run.
            connection.execute("ALTER SYSTEM SET autovacuum = off")
            connection.execute("SELECT pg_reload_conf()")
        upgrade(database)
        yield database
    finally:
        embedded.stop(home)
        shutil.rmtree(home)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table
