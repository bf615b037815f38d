"""Connections: one way to open them, with the schema on the search path, and errors that say what to do."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, LiteralString, Self, TypeVar

import psycopg
from psycopg import errors as pg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow, class_row

from revector.core.connection_strings import parts_of, public_parts, secrets_of, without_secrets
from revector.core.errors import (
    BusyError,
    DatabaseUnreachableError,
    RefusedError,
    RevectorError,
    UnreachableError,
    UsageError,
)
from revector.core.revisions import DEVELOPMENT_REVISIONS, HEAD, REVISIONS, TABLE
from revector.core.secrets import hide
from revector.core.sessions import Session, SessionSettings, require_own_session, standby_error

log = logging.getLogger(__name__)

Connection = psycopg.Connection[TupleRow]
T = TypeVar("T")

MINIMUM_PGVECTOR = (0, 7, 0)
"""halfvec, on which every version above 2,000 dimensions relies, came with pgvector 0.7.0."""
SOUND_PGVECTOR = (0, 8, 4)
"""Before 0.8.4 vacuuming an HNSW index could lose or corrupt entries."""

_DEAD_PEER = {
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""Detects a server that vanished within half a minute, not within the two hours of TCP's defaults."""


@dataclass(frozen=True)
class ServerInfo:
    """The server and the schema. `schema_revision` is None before the first `revector db upgrade`."""

    server: str
    pgvector: str | None
    schema_revision: str | None
    user: str
    read_only: bool
    """A standby, or a session that may not write."""
    closed_schema: str | None = None
    """The schema that pgvector is in, when the role may not use it."""
    standby: bool = False


@dataclass(frozen=True)
class Database:
    """One collection: a Postgres database and a schema in it. It only opens connections."""

    dsn: str = field(repr=False)  # may hold a password
    schema: str = "revector"
    read_only: bool = False
    embedded: bool = False
    connect_timeout_s: int = 5

    @classmethod
    def from_env(cls, schema: str | None = None) -> Self:
        """The database that revector's commands use here, by the environment and `revector.toml`.

        `schema` defaults to REVECTOR_SCHEMA, or else `revector`. Raises UsageError when neither REVECTOR_DSN,
        DATABASE_URL nor libpq's PG* variables name one: an application does not start the embedded server.
        """
        from revector.core.settings import configured_dsn, load_settings

        settings = load_settings(schema=schema)
        dsn = configured_dsn(settings)
        if dsn is None:
            raise UsageError(
                "The environment names no database.", "Set REVECTOR_DSN, DATABASE_URL or libpq's PG* variables."
            )
        return cls(
            dsn, settings.schema, read_only=settings.read_only, connect_timeout_s=settings.connect_timeout_s
        )

    @property
    def public_dsn(self) -> str:
        """The connection string without secrets."""
        return without_secrets(self.dsn)

    @property
    def name(self) -> str:
        """`host/database`, as a header shows it."""
        return self._named()

    @property
    def place(self) -> str:
        """`host:port/database`, for errors: a wrong port is a common one."""
        return self._named(port=True)

    def _named(self, *, port: bool = False) -> str:
        try:
            parts = public_parts(self.dsn)
        except UsageError:
            return "?"
        host = "embedded" if self.embedded else parts.get("host") or os.environ.get("PGHOST") or "local"
        if port and not self.embedded and not str(host).startswith(("/", "@")):
            host = f"{host}:{parts.get('port') or os.environ.get('PGPORT') or 5432}"
        return f"{host}/{parts.get('dbname') or os.environ.get('PGDATABASE') or 'postgres'}"

    def connect(self, purpose: str, *, statement_timeout_s: float = 0, own_session: bool = False) -> Connection:
        """An autocommit connection whose search path is this schema and pgvector's.

        `purpose` (cli, console, backfill …) becomes part of application_name, which others see. `own_session` is for
        what a pooler in transaction mode cannot carry. Raises UnreachableError when the server cannot be reached or
        refuses us, RefusedError when `own_session` is not to be had.
        """
        try:
            connection = Session.connect(**self.connect_options(purpose))
        except psycopg.OperationalError as error:
            log.debug("%s: cannot connect to %s", purpose, self.name)
            raise unreachable(error, self) from None
        log.debug("%s: connected to %s", purpose, self.name)
        try:
            settings = self.session_settings(statement_timeout_s)
            settings.begin(connection, connection.execute(*settings.statement(connection)).fetchone())
            if own_session:
                require_own_session(connection, purpose)
        except psycopg.OperationalError as error:  # lost right after it was opened
            connection.close()
            raise unreachable(error, self) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def connect_options(self, purpose: str) -> dict[str, Any]:
        """The arguments of psycopg.connect. Raises UsageError for a malformed connection string."""
        parts = parts_of(self.dsn)
        for secret in secrets_of(parts):
            hide(secret)
        conninfo = make_conninfo("", **_DEAD_PEER | parts)
        return {
            "conninfo": conninfo,
            "autocommit": True,
            "connect_timeout": self.connect_timeout_s,
            "application_name": f"revector {purpose}",
            "client_encoding": "UTF8",
        }

    def session_settings(self, statement_timeout_s: float = 0) -> SessionSettings:
        """What a new session is set to."""
        return SessionSettings(self.place, self.schema, self.read_only, statement_timeout_s, client_name())

    @contextlib.contextmanager
    def session(
        self, purpose: str, *, statement_timeout_s: float = 0, own_session: bool = False
    ) -> Iterator[Connection]:
        """A connection to a schema that exists and is at this revision; closed at the end.

        Raises what `connect` and `require_schema` do, and UnreachableError for a connection lost half-way.
        """
        connection = self.connect(purpose, statement_timeout_s=statement_timeout_s, own_session=own_session)
        try:
            with readable_errors(self):
                standby = require_schema(connection, self.schema).standby
                try:
                    yield connection
                except pg.ReadOnlySqlTransaction:
                    if standby:
                        raise standby_error(self.place) from None
                    raise
        finally:
            connection.close()


@contextlib.contextmanager
def readable_errors(database: Database) -> Iterator[None]:
    """Turn errors of Postgres into errors for people; our own errors pass through."""
    try:
        yield
    except RevectorError:
        raise
    except pg.ReadOnlySqlTransaction:
        raise RefusedError(
            "This session is read-only: nothing was changed.",
            "To change anything, start without --read-only (REVECTOR_READ_ONLY), on a primary, where no "
            "default_transaction_read_only of the role or the database holds.",
        ) from None
    except pg.InsufficientPrivilege as error:
        raise RefusedError(
            f"The current role may not do this: {error.diag.message_primary}.",
            "See what it may do: revector db roles. The owner of the schema gives rights: revector db grant ROLE RIGHT",
        ) from None
    except pg.QueryCanceled as error:
        raise BusyError(
            f"Postgres cancelled the statement: {error.diag.message_primary}.",
            "Try again when the server is less busy, or raise the timeout.",
        ) from None
    except (pg.DiskFull, pg.OutOfMemory) as error:
        if lacks_shared_memory(error):
            raise UnreachableError(
                f"The server has too little shared memory: {error.diag.message_primary}.",
                "Give it more (Docker: --shm-size, in a compose file shm_size), or set max_parallel_workers_per_gather "
                "and index_workers to 0.",
            ) from None
        if isinstance(error, pg.OutOfMemory):
            raise unreachable(error, database) from None
        raise UnreachableError(
            f"The server's disk is full: {error.diag.message_primary}.", "Make room and try again."
        ) from None
    except pg.RaiseException as error:
        raise RefusedError(error.diag.message_primary or str(error), error.diag.message_hint or "") from None
    except (
        pg.UndefinedTable, pg.UndefinedColumn, pg.UndefinedFunction, pg.UndefinedObject, pg.DatatypeMismatch
    ) as error:  # fmt: skip
        log.debug("the schema is not as expected", exc_info=error)
        raise UnreachableError(
            f"The schema {database.schema!r} is not as revector set it up: {error.diag.message_primary}.",
            "See what differs, and what to do: revector doctor",
        ) from None
    except psycopg.DataError as error:
        raise RefusedError(
            f"A stored value cannot be read: {error.diag.message_primary or error}.",
            "It was written by SQL: an infinite time, for example. A role that may write that table can correct it.",
        ) from None
    except psycopg.OperationalError as error:
        raise unreachable(error, database) from None


def lacks_shared_memory(error: psycopg.Error) -> bool:
    """Whether a statement with parallel workers got no memory to share: not the disk is full, but /dev/shm."""
    # By the server's source file: messages are in the server's language, and the codes are those of a full disk.
    return error.diag.source_file == "dsm_impl.c"


def unreachable(error: psycopg.Error, database: Database) -> UnreachableError:
    """The error for a server that does not answer or rejects the connection."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The last line of libpq's message is the reason when it could not connect, unless it asks one of us, but a guess
    # when it lost the connection.
    lost = next((line for line in lines if "closed the connection unexpectedly" in line), None)
    said = next((line for line in reversed(lines) if not line.endswith("?")), type(error).__name__)
    reason = error.diag.message_primary or lost or said
    reason = reason.removeprefix("connection failed:").strip().removeprefix("FATAL:").strip()
    kind: type[UnreachableError] = DatabaseUnreachableError
    if "too many" in reason or "connection slots" in reason:
        kind, remedy = BusyError, "Use fewer connections (pool_size), or raise the server's max_connections."
    elif "password" in reason or "authentication" in reason:
        remedy = "Check the user and the password (PGPASSWORD, ~/.pgpass or the connection string)."
    elif "startup parameter" in reason:
        remedy = (
            "A pooler refuses it: leave it out (--dsn, PGOPTIONS), or add it to ignore_startup_parameters there."
        )
    elif "does not exist" in reason:
        remedy = "Create it, or name another one in --dsn."
    elif database.embedded:
        remedy = "Start the embedded server with `revector db up`."
    else:
        remedy = "Check --dsn (or REVECTOR_DSN, DATABASE_URL, PG*), the network, and that the server is running."
    return kind(f"Cannot reach the database {database.place}: {reason}", remedy)


def server_info(connection: Connection, schema: str) -> ServerInfo:
    """Server and extension versions and the schema's revision, in one round trip each.

    Raises RefusedError when the schema has a table of the revision's name and another shape.
    """
    row = fetch_one(
        connection,
        """
        SELECT current_setting('server_version'), (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
               (SELECT relkind = 'r' AND ARRAY['version_num character varying'] =
                           (SELECT array_agg(attname::text || ' ' || format_type(atttypid, NULL)) FROM pg_attribute
                            WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
                FROM pg_class c WHERE oid = to_regclass(format('%%I.%%I', %s::text, %s::text))),
               to_regclass(format('%%I.alembic_version', %s::text)) IS NOT NULL
                   AND to_regclass(format('%%I.embedding_versions', %s::text)) IS NOT NULL,
               current_user, current_setting('transaction_read_only')::bool,
               (SELECT extnamespace::regnamespace::text FROM pg_extension
                WHERE extname = 'vector' AND NOT has_schema_privilege(extnamespace, 'USAGE')),
               pg_is_in_recovery()
        """,
        [schema, TABLE, schema, schema],
    )
    ours, older = row[2:4]
    if ours is False:
        raise foreign_content(schema, f"{TABLE} is not the table that revector would create")
    revision = None
    if ours or older:
        table = sql.Identifier(schema, TABLE if ours else "alembic_version")
        found = connection.execute(sql.SQL("SELECT * FROM {}").format(table)).fetchone()
        revision = found[0] if found and (ours or found[0] in DEVELOPMENT_REVISIONS) else None
    return ServerInfo(row[0].split()[0], row[1], revision, *row[4:])


def foreign_content(schema: str, found: str) -> RefusedError:
    """The error for a schema that another program uses; `found` names what is in the way."""
    return RefusedError(
        f"The schema {schema!r} holds tables or functions that are not revector's: {found}.",
        "Nothing was changed. Name another schema, which revector creates: revector --schema NAME db upgrade",
    )


def require_schema(connection: Connection, schema: str) -> ServerInfo:
    """Make sure that pgvector is installed and new enough and that the schema is at this program's revision.

    Raises UnreachableError naming what is missing, too old or ahead, and what to do.
    """
    info = server_info(connection, schema)
    require_pgvector(info)
    wrong = schema_error(connection, info, schema)
    if wrong:
        raise wrong
    return info


def schema_error(connection: Connection, info: ServerInfo, schema: str) -> UnreachableError | None:
    """Why this program cannot use the schema as it is, and what to do; None when it is at this program's revision."""
    revision = info.schema_revision
    if info.closed_schema is not None:
        return UnreachableError(
            f"The role {info.user} may not use the schema {info.closed_schema}, which pgvector is in.",
            f"Its owner allows it: GRANT USAGE ON SCHEMA {info.closed_schema} TO {info.user}",
        )
    if revision == HEAD:
        return None
    if revision is None:
        if lost := lost_revision(connection, schema):
            return lost
        others = fetch_column(
            connection,
            "SELECT relnamespace::regnamespace::text FROM pg_class "
            "WHERE relname = 'embedding_versions' AND relkind = 'r' ORDER BY 1",
        )
        remedy = f"Set it up: revector --schema {schema} db upgrade"
        if others:
            remedy += f". Or name one that holds a collection (--schema, REVECTOR_SCHEMA): {', '.join(others)}"
        return UnreachableError(f"The schema {schema!r} has not been set up in this database.", remedy)
    if revision in REVISIONS:
        return UnreachableError(
            f"The schema {schema!r} is at revision {revision}; this program needs {HEAD}.",
            "Upgrade it: revector db upgrade",
        )
    if revision in DEVELOPMENT_REVISIONS:
        drop = sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)).as_string()
        return UnreachableError(
            f"The schema {schema!r} was made by a development version of revector (revision {revision}), which this "
            f"program ({HEAD}) cannot upgrade.",
            "Set up another schema and ingest again: revector --schema NAME db upgrade. Or drop this one with all that "
            f"is in it ({drop}), then revector db upgrade. The demo replaces its own: revector demo.",
        )
    return UnreachableError(
        f"The schema {schema!r} is at revision {revision}, which this program ({HEAD}) does not know.",
        "Use the revector that upgraded it, or a newer one.",
    )


def lost_revision(connection: Connection, schema: str) -> UnreachableError | None:
    """The error for a schema that holds a collection and has lost its revision, as by a restore of some tables."""
    (there,) = fetch_one(
        connection,
        "SELECT count(*) = 2 FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(%s)) "
        "AND relname IN ('embedding_versions', 'chunk_outbox') AND relkind = 'r'",
        [schema],
    )
    if not there:
        return None
    table = sql.Identifier(schema, TABLE)
    made = sql.SQL("CREATE TABLE IF NOT EXISTS {} (version_num varchar(32) PRIMARY KEY)").format(table)
    filled = sql.SQL("INSERT INTO {} VALUES ({})").format(table, sql.Literal(HEAD))
    return UnreachableError(
        f"The schema {schema!r} holds a collection without its revision: {TABLE} is missing or empty.",
        f"If this release set it up: {made.as_string()}; {filled.as_string()}. Then: revector doctor",
    )


def require_pgvector(info: ServerInfo) -> None:
    """Raise UnreachableError when the vector extension is absent or older than MINIMUM_PGVECTOR."""
    if info.pgvector is None:
        raise UnreachableError(
            "This database has no pgvector extension.",
            "Install pgvector on the server, then: revector db upgrade (it runs CREATE EXTENSION vector).",
        )
    if version_tuple(info.pgvector) < MINIMUM_PGVECTOR:
        needed = ".".join(map(str, MINIMUM_PGVECTOR))
        raise UnreachableError(
            f"pgvector is at {info.pgvector}; revector needs {needed} or newer (for halfvec).",
            "Install a newer pgvector on the server, then: ALTER EXTENSION vector UPDATE",
        )


def version_tuple(text: str) -> tuple[int, ...]:
    """`0.8.6` as (0, 8, 6); a part that is not a number counts as 0."""
    return tuple(int(part) if part.isdigit() else 0 for part in text.split("."))


def client_name() -> str:
    """`user@host` of the operating system user, for the audit log in addition to the database role."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def fetch_one(connection: Connection, query: LiteralString | sql.Composed, params: Any = None) -> TupleRow:
    """The single row of a statement that always returns one."""
    row = connection.execute(query, params).fetchone()
    if row is None:
        raise RevectorError("A statement that always answers with a row answered with none.")
    return row


def fetch_column(connection: Connection, query: LiteralString | sql.Composed, params: Any = None) -> list[Any]:
    """The first column of a statement's rows."""
    return [row[0] for row in connection.execute(query, params).fetchall()]


def fetch_as(
    connection: Connection, kind: type[T], query: LiteralString | sql.Composed, params: Any = None
) -> list[T]:
    """A statement's rows as objects of a dataclass whose fields are the columns."""
    with connection.cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(query, params).fetchall()


Progress = Callable[[str, int, int], None]
"""Called as progress(step, done, total) by long operations; total is 0 when unknown."""
