"""The command line. `revector` alone opens the console; everything else is a command.

Exit status: 0 yes, 1 the answer is no, 2 usage, 3 inconclusive, 4 database or encoder cannot be reached,
130 interrupted. Start-up must be fast: nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from revector.console.commands import (
    db,
    demo,
    doctor,
    documents,
    encoders,
    index,
    info,
    load,
    log,
    search,
    serve,
    shadow,
    versions,
)
from revector.console.commands.backfill import group as backfill
from revector.console.commands.cutover import group as cutover
from revector.console.commands.evaluation import evaluate, judge, queries, stored
from revector.console.context import Context, context_of, pipe, print_error

_ORDER = (
    "demo", "db", "ingest", "versions", "encoders", "load", "backfill", "index", "search", "compare", "serve",
    "serving", "queries", "judge", "evaluate", "evaluations", "thresholds", "shadow", "cutover", "rollback", "log",
    "doctor", "info",
)  # fmt: skip


class _InOrder(TyperGroup):
    """The commands in the order in which a new user needs them; Typer puts groups last."""

    def list_commands(self, _context: typer.Context) -> list[str]:  # type: ignore[override]
        """The names in the order of the help."""
        return sorted(self.commands, key=_ORDER.index)


app = typer.Typer(
    name="revector",
    cls=_InOrder,
    rich_markup_mode=None,
    help="Change the embedding model behind a pgvector search without breaking it.\n\n"
    "Without a command, the console opens. The database is --dsn, REVECTOR_DSN, DATABASE_URL or libpq's PG* "
    "variables; with none of them, an embedded server.\n\n"
    'With --json an error is a document too: {"error": {"problem", "remedy", "kind"}}.',
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for module in (
    db, versions, encoders, backfill, index, queries, stored, shadow, cutover,
    demo, documents, load, search, serve, judge, evaluate, log, doctor, info,
):  # fmt: skip
    app.add_typer(module.app, no_args_is_help=True)
app.add_typer(cutover.outside)

_UsageError: Any = typer.BadParameter.__base__
"""From the copy of click inside Typer, or from the package: Typer does not say which."""


def run() -> int:
    """Run the command line with the arguments of this process; returns the exit status."""
    try:
        status = app(prog_name="revector", standalone_mode=False) or 0
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
