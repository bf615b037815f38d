"""The command line. `revector` alone opens the console; everything else is a command.

Exit status: 0 yes, 1 the answer is no, 2 usage, 3 inconclusive, 4 database or encoder cannot be reached,
130 interrupted. Start-up must be fast: nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

from revector.console.context import Context, context_of, pipe, print_error

_HOMES = {
    "demo": "demo",
    "db": "db",
    "ingest": "documents",
    "versions": "versions",
    "encoders": "encoders",
    "load": "load",
    "export": "load",
    "backfill": "backfill.group",
    "index": "index",
    "search": "search",
    "compare": "search",
    "serve": "serve",
    "serving": "search",
    "queries": "evaluation.queries",
    "judge": "evaluation.judge",
    "evaluate": "evaluation.evaluate",
    "evaluations": "evaluation.stored",
    "thresholds": "evaluation.evaluate",
    "shadow": "shadow",
    "cutover": "cutover.group",
    "rollback": "cutover.rollback",
    "log": "log",
    "doctor": "doctor",
    "info": "info",
}
"""The module in `commands` where each command is defined, in the order in which a new user needs them."""


class _Commands(Mapping[str, Any]):
    """Each command or group, made when it is asked for: Typer takes 2 ms for a command, and there are seventy."""

    def __getitem__(self, name: str) -> Any:
        return _made(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_HOMES)

    def __len__(self) -> int:
        return len(_HOMES)


def _home(name: str) -> typer.Typer:
    home: typer.Typer = import_module(f"revector.console.commands.{_HOMES[name]}").app
    home.rich_markup_mode = None
    return home


@functools.cache
def _made(name: str) -> Any:
    group = typer.main.get_group(_home(name))
    group.no_args_is_help = True
    return group if group.name == name else group.commands[name]


class _Root(TyperGroup):
    """The program, which makes a command when it is called."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.commands = _Commands()  # type: ignore[assignment]

    def list_commands(self, _context: typer.Context) -> list[str]:  # type: ignore[override]
        """The names in the order of the help."""
        return list(_HOMES)

    def format_commands(self, _context: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        """The names, each with the first sentence of its help."""
        rows = [(name, TyperCommand(name, help=_help(name))) for name in _HOMES]
        limit = formatter.width - 6 - max(map(len, _HOMES))
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(limit)) for name, command in rows])


def _help(name: str) -> str:
    home = _home(name)
    if home.info.name == name:
        return str(home.info.help)
    functions = {
        one.name or one.callback.__name__: one.callback for one in home.registered_commands if one.callback
    }
    return inspect.getdoc(functions[name]) or ""


app = typer.Typer(
    name="revector",
    cls=_Root,
    rich_markup_mode=None,
    help="Change the embedding model behind a pgvector search without breaking it.\n\n"
    "Without a command, the console opens. The database is --dsn, REVECTOR_DSN, DATABASE_URL or libpq's PG* "
    "variables; with none of them, an embedded server.\n\n"
    'With --json an error is a document too: {"error": {"problem", "remedy", "kind"}}.',
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_UsageError: Any = typer.BadParameter.__base__
"""From the copy of click inside Typer, or from the package: Typer does not say which."""


def program() -> TyperGroup:
    """The root of all commands."""
    return typer.main.get_group(app)


def run() -> int:
    """Run the command line with the arguments of this process; returns the exit status."""
    try:
        status = program()(prog_name="revector", standalone_mode=False) or 0
    except _UsageError as error:
        with pipe(sys.stderr):
            error.show()
        print_error(error.format_message(), f"See {error.ctx.command_path} --help." if error.ctx else "", "usage")
        return int(error.exit_code)
    return int(status)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    dsn: Annotated[
        str | None, typer.Option("--dsn", metavar="URL", help="The database, as a URL or libpq's key=value.")
    ] = None,
    schema: Annotated[
        str | None, typer.Option("--schema", metavar="NAME", help="The schema of the collection.")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Look, and change nothing.")] = False,
    log_level: Annotated[
        str | None,
        typer.Option(
            "--log-level", metavar="LEVEL", help="debug, info, warning or error: what goes into the log file."
        ),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Open the console when no command is given."""
    if version:
        from importlib.metadata import version as installed

        with pipe(sys.stdout):
            sys.stdout.write(f"revector {installed('revector')}\n")
            sys.stdout.flush()
        raise typer.Exit
    context.obj = Context(dsn, schema, read_only or None, {"log_level": log_level})
    if context.invoked_subcommand is None:
        from revector.console.terminal import open_console

        open_console(context_of(context))
