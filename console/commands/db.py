"""`revector db`: the server, the schema, and who may do what to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from revector.console.commands.options import Json
from revector.console.context import Context, answer, context_of, note, plain, print_rows

if TYPE_CHECKING:
    from rich.console import Console

    from revector.core.database import Database

app = typer.Typer(
    name="db", help="The server, the schema, and who may do what.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def up(context: typer.Context, as_json: Json = False) -> None:
    """Start the embedded server and set up its schema."""
    own = context_of(context)
    own.require_writable()
    _require_embedded(own, "up")
    _upgrade(own.database)
    _print_status(own.database, as_json)


@app.command()
def down(context: typer.Context, as_json: Json = False) -> None:
    """Stop the embedded server. Its data stays."""
    from revector.core import embedded

    own = context_of(context)
    own.require_writable()
    _require_embedded(own, "down")
    stopped = embedded.stop(own.settings.home)
    text = "The embedded server was stopped." if stopped else "The embedded server was not running."
    answer({"stopped": stopped}, as_json, lambda console: console.print(text))


@app.command()
def status(context: typer.Context, as_json: Json = False) -> None:
    """Where the database is, and what is there."""
    from revector.core import embedded
    from revector.core.errors import UnreachableError
    from revector.core.opening import named_database
    from revector.core.settings import configured_dsn

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
    from revector.core.revisions import HEAD

    own = context_of(context)
    own.require_writable()
    before = _upgrade(own.database)
    if before not in ("", HEAD):
        note(f"The schema was at revision {before}.")
    _print_status(own.database, as_json)


@app.command()
def grant(
    context: typer.Context,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="A role of the server, e.g. a person's.")],
    right: Annotated[
        str, typer.Argument(metavar="viewer|operator|approver|application", help="What it may do; see `db roles`.")
    ],
    take: Annotated[bool, typer.Option("--revoke", help="Take the right away.")] = False,
    as_json: Json = False,
) -> None:
    """Give a role of Postgres a right in this collection, as grants that Postgres itself enforces.

    viewer reads and searches; operator does all but approve; approver approves what others request; application is
    for services that search. A role can have several.
    """
    from revector.core import roles

    own = context_of(context)
    own.require_writable()
    with own.session() as connection:
        (roles.revoke if take else roles.grant)(connection, role, right)  # type: ignore[arg-type]
    text = f"{role} is no {right} any more." if take else f"{role} is {right} now: {roles.KINDS[right]}."  # type: ignore[index]
    answer(
        {"role": role, "right": right, "granted": not take}, as_json, lambda console: console.print(plain(text))
    )


@app.command("roles")
def list_roles(context: typer.Context, as_json: Json = False) -> None:
    """Who was given which right, and what the role of this session may do."""
    from revector.core import roles

    with context_of(context).session() as connection:
        found, rights = roles.granted(connection), roles.read_rights(connection)
    document: dict[str, Any] = {
        "role": rights.role,
        "rights": {name: getattr(rights, name) for name in ("view", "operate", "approve", "administer")},
        "granted": [{"role": one.role, "right": one.kind, "login": one.login} for one in found],
    }

    def show(console: Console) -> None:
        from rich.table import Column

        owner = "everything; the schema, the policy of cutovers and these rights"
        rows = [
            (
                one.role,
                one.kind,
                "yes" if one.login else "no",
                owner if one.kind == "owner" else roles.KINDS[one.kind],
            )
            for one in found
        ]
        print_rows(console, rows, "role", "right", "login", Column("may", overflow="fold"))
        can = [name for name, has in document["rights"].items() if has]
        console.print(plain(f"This session is {rights.role}, which may {', '.join(can) or 'do nothing'}."))

    answer(document, as_json, show)


def _upgrade(database: Database) -> str:
    from revector.core.migrations import upgrade as upgrade_schema

    return upgrade_schema(database)


def _require_embedded(own: Context, what: str) -> None:
    from revector.core.errors import UsageError
    from revector.core.settings import configured_dsn

    if configured_dsn(own.settings) is not None:
        raise UsageError(
            f"`revector db {what}` is for the embedded server; these settings name a server of your own.",
            "Leave out --dsn and unset REVECTOR_DSN, DATABASE_URL and PG*.",
        )


def _print_status(database: Database, as_json: bool) -> None:
    from revector.core.database import readable_errors, schema_error, server_info, without_secrets

    with readable_errors(database), database.connect("cli") as connection:
        info = server_info(connection, database.schema)
        # Where libpq's own variables say it all, the connection knows what came of them.
        dsn = database.public_dsn or without_secrets(connection.info.dsn)
    document: dict[str, Any] = {
        "dsn": dsn,
        "schema": database.schema,
        "server": info.server,
        "pgvector": info.pgvector,
        "schema_revision": info.schema_revision,
        "embedded": database.embedded,
        "user": info.user,
        "read_only": database.read_only or info.in_recovery,
    }
    words = {None: "—", True: "yes", False: "no"}
    rows = [(name.replace("_", " "), words.get(value, value)) for name, value in document.items()]
    answer(document, as_json, lambda console: print_rows(console, rows, "", "", header=False, wrap=False))
    wrong = schema_error(info, database.schema)
    if wrong:
        note(str(wrong))
