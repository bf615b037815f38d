"""`revector db`: the server and the schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from console.context import Context, Json, answer, context_of, note

if TYPE_CHECKING:
    from core.database import Database

app = typer.Typer(name="db", help="The server and the schema.", no_args_is_help=True)


@app.command()
def up(context: typer.Context, as_json: Json = False) -> None:
    """Start the embedded server, set up its schema, and leave it running."""
    own = context_of(context)
    _require_embedded(own, "up")
    _upgrade(own.database)
    _print_status(own.database, as_json)


@app.command()
def down(context: typer.Context, as_json: Json = False) -> None:
    """Stop the embedded server. Its data stays."""
    from core import embedded

    own = context_of(context)
    _require_embedded(own, "down")
    stopped = embedded.stop(own.settings.home)
    text = "The embedded server was stopped." if stopped else "The embedded server was not running."
    answer({"stopped": stopped}, as_json, lambda console: console.print(text))


@app.command()
def status(context: typer.Context, as_json: Json = False) -> None:
    """Where the database is, and which versions of server, pgvector and schema are there."""
    from core import embedded
    from core.errors import UnreachableError
    from core.opening import named_database
    from core.settings import configured_dsn

    own = context_of(context)
    dsn = configured_dsn(own.settings)
    if dsn is not None:
        _print_status(own.database, as_json)
        return
    server = embedded.status(own.settings.home)  # a question starts nothing
    if server is None:
        raise UnreachableError("The embedded server is not running.", "Start it: revector db up")
    _print_status(named_database(own.settings, server.dsn, embedded=True), as_json)


@app.command()
def upgrade(context: typer.Context, as_json: Json = False) -> None:
    """Bring the schema to this program's revision, in one transaction."""
    own = context_of(context)
    before = _upgrade(own.database)
    if before:
        note(f"The schema was at revision {before}.")
    _print_status(own.database, as_json)


def _upgrade(database: Database) -> str:
    from core.migrations import upgrade as upgrade_schema

    return upgrade_schema(database)


def _require_embedded(own: Context, what: str) -> None:
    from core.errors import UsageError
    from core.settings import configured_dsn

    if configured_dsn(own.settings) is not None:
        raise UsageError(
            f"`revector db {what}` is for the embedded server; these settings name a server of your own.",
            "Leave out --dsn and unset REVECTOR_DSN, DATABASE_URL and PG*.",
        )


def _print_status(database: Database, as_json: bool) -> None:
    from core.database import server_info

    with database.connect("cli") as connection:
        info = server_info(connection, database.schema)
    document: dict[str, Any] = {
        "dsn": database.public_dsn,
        "schema": database.schema,
        "server": info.server,
        "pgvector": info.pgvector,
        "schema_revision": info.schema_revision,
        "embedded": database.embedded,
        "user": info.user,
        "read_only": database.read_only or info.in_recovery,
    }
    answer(
        document,
        as_json,
        lambda console: [
            console.print(f"{name.replace('_', ' '):<16}{value if value is not None else '—'}", markup=False)
            for name, value in document.items()
        ],
    )
