"""`revector db`: the server, the schema, and who may do what to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated

import typer

from revector.console.commands.options import Json
from revector.console.context import Context, aligned, answer, context_of, fold, note
from revector.console.contract import answering

if TYPE_CHECKING:
    from revector.core.database import Database
    from revector.core.roles.granting import Granted
    from revector.core.roles.rights import Rights

app = typer.Typer(name="db", help="The server, the schema, and who may do what.")


@dataclass(frozen=True)
class ServerStatus:
    """Where the database is, and what is there."""

    dsn: Annotated[str, "the connection string, without a password"]
    schema: Annotated[str, "the schema, which is the collection"]
    server: Annotated[str, "version of Postgres"]
    pgvector: Annotated[str | None, "version of the extension; null without it"]
    schema_revision: Annotated[str | None, "null when the schema is not set up"]
    embedded: Annotated[bool, "whether it is revector's own server"]
    user: Annotated[str, "the role of this session"]
    read_only: Annotated[bool, "by --read-only, or because the server is a standby"]
    standby: Annotated[bool, "whether the server is a standby: it can be searched and read"]


@dataclass(frozen=True)
class Stopped:
    """The result of stopping the embedded server."""

    stopped: Annotated[bool, "false when it was not running"]


@dataclass(frozen=True)
class Grant:
    """A right that was granted or revoked."""

    role: Annotated[str, "the role of Postgres"]
    right: Annotated[str, "viewer, operator, approver or application"]
    granted: Annotated[bool, "whether it has the right now"]


@dataclass(frozen=True)
class RoleList:
    """Who may do what."""

    role: Annotated[str, "the role of this session"]
    rights: Annotated[Rights, "of this session"]
    granted: Annotated[list[Granted], "the rights of all roles"]


_STATUS = answering("console.commands.db:ServerStatus")


@app.command(cls=_STATUS)
def up(context: typer.Context, as_json: Json = False) -> None:
    """Start the embedded server and set up its schema."""
    from revector.core.migrations import upgrade as upgrade_schema

    own = context_of(context)
    own.require_writable()
    _require_embedded(own, "up")
    upgrade_schema(own.database)
    _print_status(own.database, as_json)


@app.command(cls=answering("console.commands.db:Stopped"))
def down(context: typer.Context, as_json: Json = False) -> None:
    """Stop the embedded server. Its data stays."""
    from revector.core import embedded

    own = context_of(context)
    own.require_writable()
    _require_embedded(own, "down")
    connected = _sessions(own)
    stopped = embedded.stop(own.settings.home)
    if connected:
        note(f"Sessions that have lost the server: {', '.join(connected)}.")
    text = "The embedded server was stopped." if stopped else "The embedded server was not running."
    answer(Stopped(stopped), as_json, text)


@app.command(cls=_STATUS)
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
    server = embedded.status(own.settings.home)  # a query must not start the server
    if server is None:
        raise UnreachableError("The embedded server is not running.", "Start it: revector db up")
    _print_status(named_database(own.settings, server.dsn, embedded=True), as_json)


@app.command(cls=_STATUS)
def upgrade(
    context: typer.Context,
    text_search: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Postgres's text search configuration of the collection: german, simple … (english unless given). "
            "Changed later, all chunks are read again, and searches wait for that.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring the schema to this program's revision, in one transaction.

    At that revision, mend what differs from what revector sets up, as after a restore: functions, triggers,
    constraints, indexes, rights. Exit status 1 when something is left that only a person can mend.
    """
    from revector.core.migrations import repair
    from revector.core.migrations import upgrade as upgrade_schema
    from revector.core.revisions import HEAD

    own = context_of(context)
    own.require_writable()
    before = upgrade_schema(own.database, text_search=text_search)
    if before not in ("", HEAD):
        note(f"The schema was at revision {before}.")
    for one in repair(own.database):
        note(f"Mended {one.object}: {one.detail}.")
    _print_status(own.database, as_json)


@app.command(cls=answering("console.commands.db:Grant"))
def grant(
    context: typer.Context,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="A role of the server, e.g. a person's.")],
    right: Annotated[
        str, typer.Argument(metavar="viewer|operator|approver|application", help="What it may do; see `db roles`.")
    ],
    take: Annotated[bool, typer.Option("--revoke", help="Revoke the right.")] = False,
    as_json: Json = False,
) -> None:
    """Give a role of Postgres a right in this collection, as grants that Postgres itself enforces.

    viewer reads and searches; operator does all but approve; approver approves what others request; application is
    for services that search. A role can have several.
    """
    from revector.core.roles import granting
    from revector.core.roles.kinds import KINDS

    own = context_of(context)
    with own.session(needs="administer") as connection:
        (granting.revoke if take else granting.grant)(connection, role, right)  # type: ignore[arg-type]
    text = f"{role} is no longer {right}." if take else f"{role} is now {right}: {KINDS[right]}."  # type: ignore[index]
    answer(Grant(role, right, not take), as_json, text)


@app.command("roles", cls=answering("console.commands.db:RoleList"))
def list_roles(context: typer.Context, as_json: Json = False) -> None:
    """Who was given which right, and what the role of this session may do."""
    from revector.core.roles import granting
    from revector.core.roles.kinds import KINDS
    from revector.core.roles.rights import read_rights

    with context_of(context).session() as connection:
        found, rights = granting.granted(connection), read_rights(connection)

    def show() -> Iterator[str]:
        owner = "everything; the schema, the policy of cutovers and these rights"
        rows = [
            (
                one.role,
                one.right,
                "yes" if one.login else "no",
                owner if one.right == "owner" else KINDS[one.right],
            )
            for one in found
        ]
        yield from aligned(rows, "role", "right", "login", fold("may"))
        own = [one.right for one in found if one.role == rights.role]
        if rights.administer and "owner" not in own:
            own.append("owner")  # a superuser, or a member of the owner's role
        yield f"This session is {rights.role}: {', '.join(own) or 'no right'}."

    answer(RoleList(rights.role, rights, found), as_json, show())


def _require_embedded(own: Context, what: str) -> None:
    from revector.core.errors import UsageError
    from revector.core.settings import configured_dsn

    if configured_dsn(own.settings) is not None:
        raise UsageError(
            f"`revector db {what}` is for the embedded server; these settings name your own server.",
            "Leave out --dsn and unset REVECTOR_DSN, DATABASE_URL and PG*.",
        )


def _sessions(own: Context) -> list[str]:
    """The sessions on the embedded server, as far as it answers: `revector console (backend 4711)`."""
    from revector.core import embedded
    from revector.core.database import fetch_column, readable_errors
    from revector.core.errors import RevectorError
    from revector.core.opening import named_database

    with contextlib.suppress(RevectorError):
        server = embedded.status(own.settings.home)
        if server is None:
            return []
        database = named_database(own.settings, server.dsn, embedded=True)
        with readable_errors(database), database.connect("cli") as connection:
            return fetch_column(
                connection,
                "SELECT format('%s (backend %s)', coalesce(nullif(application_name, ''), 'unnamed'), pid) "
                "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() "
                "ORDER BY pid",
            )
    return []


def _print_status(database: Database, as_json: bool) -> None:
    from revector.core.connection_strings import without_secrets
    from revector.core.database import readable_errors, schema_error, server_info

    with readable_errors(database), database.connect("cli") as connection:
        info = server_info(connection, database.schema)
        # With only libpq's variables, the open connection knows the resulting values.
        dsn = database.public_dsn or without_secrets(connection.info.dsn)
        wrong = schema_error(connection, info, database.schema)
    found = ServerStatus(
        dsn,
        database.schema,
        info.server,
        info.pgvector,
        info.schema_revision,
        database.embedded,
        info.user,
        info.read_only,
        info.standby,
    )
    words = {None: "—", True: "yes", False: "no"}
    shown = [(field.name.replace("_", " "), getattr(found, field.name)) for field in fields(found)]
    rows = [(name, words.get(value, value)) for name, value in shown]
    answer(found, as_json, aligned(rows, "", "", header=False, wrap=False))
    if wrong:
        note(str(wrong))
