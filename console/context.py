"""What every command of the command line shares: the global options, and how it answers."""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from core.database import Connection, Database
    from core.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]


@dataclass
class Context:
    """The global options as given; settings and database are made when a command first needs them."""

    dsn: str | None = None
    schema: str | None = None
    read_only: bool | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def settings(self) -> Settings:
        """The settings in force."""
        from core.settings import load_settings

        return load_settings(
            dsn=self.dsn, schema_name=self.schema, read_only=True if self.read_only else None, **self.flags
        )

    @cached_property
    def database(self) -> Database:
        """The database; the embedded server is started for it when no other is named."""
        from core.opening import open_database

        return open_database(self.settings, on_wait=note)

    @contextlib.contextmanager
    def session(self) -> Iterator[Connection]:
        """A connection to a schema that is set up, with errors for people."""
        with self.database.session("cli") as connection:
            yield connection


def context_of(typer_context: typer.Context) -> Context:
    """The Context that the root command made."""
    found = typer_context.find_object(Context)
    return found if found is not None else Context()


def answer(document: Mapping[str, Any], as_json: bool, show: Callable[[Console], None]) -> None:
    """Print the answer: one JSON document, or whatever `show` writes for a person."""
    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False, default=_in_json, allow_nan=False) + "\n")
        return
    from rich.console import Console

    show(Console(highlight=False, soft_wrap=True))


def _in_json(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime.datetime) else str(value)


def note(text: str) -> None:
    """A line about what is going on, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def plain(text: object) -> str:
    """Text from documents and users, fit for a terminal: control characters are shown and markup is not obeyed."""
    from rich.markup import escape

    from screens.text import printable

    return escape(printable(str(text)))
