"""What all commands share: the global options, and output."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

from revector.core.text import counted as counted
from revector.core.text import printable

if TYPE_CHECKING:
    import typer
    from rich.table import Column

    from revector.core.database import Connection, Database
    from revector.core.encoders import Encoder
    from revector.core.registry import Version
    from revector.core.roles.kinds import Need
    from revector.core.settings import Settings

_UNWRAPPED = 10_000
"""Columns of output that does not go to a terminal, so that nothing is wrapped."""


@dataclass
class Context:
    """The global options as given; settings and database are opened when a command first needs them."""

    dsn: str | None = None
    schema: str | None = None
    read_only: bool | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    on_wait: Callable[[str], None] | None = None
    """Called with what the embedded server waits for; None prints to stderr."""
    command: str = ""
    """The command (`versions add`), for the log."""
    key: str | None = None
    """The version key that it was given, for the log."""

    @property
    def given(self) -> dict[str, Any]:
        """The settings given on the command line; None for the others."""
        read_only = True if self.read_only else None
        return {"dsn": self.dsn, "schema": self.schema, "read_only": read_only, **self.flags}

    @cached_property
    def settings(self) -> Settings:
        """The settings in force."""
        from revector.core.settings import load_settings

        return load_settings(**self.given)

    @cached_property
    def database(self) -> Database:
        """The database; the embedded server is started for it when no other is named."""
        from revector.core.opening import open_database

        return open_database(self.settings, on_wait=self.on_wait or note)

    def require_writable(self) -> None:
        """Raise RefusedError in a read-only session, before anything else is done or paid for."""
        from revector.core.errors import RefusedError

        if self.settings.read_only:
            raise RefusedError(
                "This session is read-only: nothing was changed.",
                "To change anything, leave out --read-only (REVECTOR_READ_ONLY).",
            )

    @contextlib.contextmanager
    def session(self, *, changes: bool = False, needs: Need | None = None) -> Iterator[Connection]:
        """A connection to a schema that is set up, with errors for people.

        `changes` says that the command changes something, which a read-only session or role refuses, and whose
        refusal is logged. `needs` is the right that it requires, if that is not an operator's.
        """
        if not (changes or needs):
            with self.database.session("cli") as connection:
                yield connection
            return
        from revector.core.audit import refusals
        from revector.core.roles.rights import require

        self.require_writable()
        with self.database.session("cli") as connection:
            require(connection, needs or "operate", self.command)
            with refusals(connection, self.command, self.key):
                yield connection

    @contextlib.contextmanager
    def version(self, key: str, *, changes: bool = False) -> Iterator[tuple[Connection, Version]]:
        """A session, and the version with this key. Raises UsageError when there is none."""
        from revector.core.registry import get_version

        with self.session(changes=changes) as connection:
            yield connection, get_version(connection, key)


def context_of(typer_context: typer.Context) -> Context:
    """The Context that the root command made; from here on the command is logged."""
    found = typer_context.find_object(Context) or Context()
    names: list[str] = []
    step: Any = typer_context
    while step is not None and step.parent is not None:
        names.insert(0, step.info_name or "")
        step = step.parent
    found.command = " ".join(names)
    found.key = typer_context.params.get("key")
    from revector.core.logs import start

    start("cli", found.settings, found.command)
    return found


def open_aloud(spec: str) -> Encoder:
    """Open an encoder that reports on stderr when its provider makes it wait."""
    from revector.core.encoders import open_encoder

    return open_encoder(spec, on_throttle=say_throttled)


def say_throttled(seconds: float, reason: str) -> None:
    """Report why the encoder waits."""
    note(f"waiting {seconds:.1f} s for the encoder: {reason}")


# -- output ------------------------------------------------------------------------------------------------


def answer(found: object, as_json: bool, lines: str | Iterable[str]) -> None:
    """Print the answer: as one JSON document with the keys from core.keys, or the lines for people."""
    if as_json:
        print_json(found)
        return
    shown = "".join(f"{plain(line)}\n" for line in ([lines] if isinstance(lines, str) else lines))
    with pipe(sys.stdout):
        sys.stdout.write(shown)
        sys.stdout.flush()


def print_json(found: object) -> None:
    """Print one JSON document on stdout; a terminal or locale without UTF-8 gets JSON's own escapes.

    Raises RefusedError for a figure that JSON has no number for, which somebody wrote by SQL.
    """
    from revector.core.errors import RefusedError
    from revector.core.keys import document

    plain_ascii = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    with pipe(sys.stdout):
        try:
            text = json.dumps(document(found), ensure_ascii=plain_ascii, default=_in_json, allow_nan=False)
        except ValueError as error:
            raise RefusedError(
                f"A stored figure is no number: {error}.", "Without --json it is shown; somebody wrote it by SQL."
            ) from None
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


@dataclass(frozen=True)
class ErrorDocument:
    """What went wrong, under the key `error`."""

    problem: Annotated[str, "what, and with what"]
    remedy: Annotated[str, "what to do about it; may be empty"]
    kind: Annotated[str, "usage, refused, unreachable, encoder, interrupted or failed"]


def print_error(problem: str, remedy: str, kind: str) -> None:
    """With --json, print the document of an error, even when the rest of the command line is invalid."""
    given = sys.argv[1:]
    if "--json" in given[: given.index("--") if "--" in given else None]:
        print_json({"error": ErrorDocument(problem, remedy, kind)})


def width() -> int:
    """The columns of the terminal. What goes elsewhere is not wrapped."""
    from rich.console import Console

    return Console().width if sys.stdout.isatty() else _UNWRAPPED


def right(*titles: str) -> list[Column]:
    """Columns of figures."""
    from rich.table import Column

    return [Column(plain(title), justify="right", no_wrap=True) for title in titles]


def fold(title: str = "") -> Column:
    """A column that breaks its cells anywhere when there is no room."""
    from rich.table import Column

    return Column(title, overflow="fold")


def aligned(
    rows: Iterable[Sequence[object]], *columns: str | Column, header: bool = True, wrap: bool = True
) -> Iterator[str]:
    """The lines of a table with aligned columns, every cell made printable.

    Columns given only by title are never wrapped or cut. On a terminal the others shrink as their Column says;
    elsewhere, and without `wrap`, everything is shown in full.
    """
    from rich.console import Console
    from rich.table import Column, Table

    whole = [Column(column, no_wrap=True) if isinstance(column, str) else column for column in columns]
    if not (wrap and sys.stdout.isatty()):
        whole = [replace(column, max_width=None) for column in whole]
    table = Table(
        *whole, box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=header, header_style="",
    )  # fmt: skip
    for row in rows:
        table.add_row(*map(plain, row))
    page = Console(
        width=width() if wrap else _UNWRAPPED, markup=False, emoji=False, highlight=False, color_system=None,
        force_jupyter=False,  # otherwise Rich shows it in a notebook's cell
    )  # fmt: skip
    with page.capture() as printed:
        page.print(table)
    yield from map(str.rstrip, printed.get().splitlines())


@contextlib.contextmanager
def pipe(stream: TextIO) -> Iterator[None]:
    """Write to a stream, and ignore that its reader is gone (`revector log | head -1`).

    Any other failure to write, such as a full disk, ends the program.
    """
    try:
        yield
    except OSError as error:
        # The interpreter's flush at its end must not fail again.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            note(f"The answer cannot be written: {error.strerror}.")
            sys.exit(1)


def note(text: str) -> None:
    """Print a line or two about progress on stderr."""
    with pipe(sys.stderr):
        sys.stderr.write(printable(text, lines=True) + "\n")
        sys.stderr.flush()


def plain(text: object) -> str:
    """Text from documents and users, printable on one line of a terminal: control characters become visible."""
    return printable(str(text))


def _in_json(value: object) -> str:
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no keys: no field of it has words")
