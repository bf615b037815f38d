"""A session of the server, or what a pooler gives in its place.

pgbouncer and its like, in transaction mode, give a client another session for each transaction. So nothing is kept in
such a session: each transaction is set up by itself, with settings that end with it, and no statement is prepared.
What cannot be done that way asks `require_own_session`, which is content with a pooler in session mode.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, LiteralString, Self, TypeAlias

import psycopg
from psycopg import errors, sql
from psycopg.abc import Params, Query
from psycopg.pq import Format, TransactionStatus
from psycopg.rows import Row, TupleRow

from revector.core.errors import RefusedError

Settings: TypeAlias = Mapping[str, str | tuple[str, ...]]
"""Values of settings by name; a tuple is a list, such as search_path."""

_LOOKS = 5
_WAIT_S = 2.0
"""How long another client of a pooler waits for a session: with all of them taken, it gets none."""

SET_SESSION = """
SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS given (name, value)
WHERE name NOT IN ('hnsw.iterative_scan', 'hnsw.max_scan_tuples')
   OR (SELECT string_to_array(extversion, '.')::int[] >= '{0,8}' FROM pg_extension WHERE extname = 'vector')
"""
"""Sets those of the settings that this server's pgvector supports."""
_ITERATIVE = {"hnsw.iterative_scan", "hnsw.max_scan_tuples"}


@dataclass(frozen=True)
class Pooler:
    """A pooler between this process and a server, which itself listens on `server_port`."""

    place: str
    server_port: str
    read_only: bool
    iterates: bool
    """Whether the server's pgvector has iterative scans."""

    def begin(self, settings: Settings) -> bytes:
        """The statements that set a transaction up. None is a query: the isolation level can still be changed."""
        mode = sql.SQL(
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED" + (", READ ONLY" if self.read_only else "")
        )
        known = {name: value for name, value in settings.items() if self.iterates or name not in _ITERATIVE}
        return sql.SQL("; ").join([mode, *_set("SET LOCAL {} = {}", known), sql.SQL("")]).as_bytes(None)

    def take(self, settings: Settings) -> sql.Composed:
        """The statements that set a whole session up."""
        kept = {**settings, "default_transaction_isolation": "read committed"}
        return sql.SQL("; ").join(
            _set("SET {} = {}", kept | ({"default_transaction_read_only": "on"} if self.read_only else {}))
        )


def _set(form: Any, settings: Settings) -> list[sql.Composed]:
    return [
        sql.SQL(form).format(
            sql.Identifier(*name.split(".")),
            sql.SQL(", ").join(map(sql.Literal, (value,) if isinstance(value, str) else value)),
        )
        for name, value in settings.items()
    ]


class _Pooled:
    """What connections of both kinds know of a pooler."""

    pooler: Pooler | None = None
    begin = b""
    """Sets a transaction up."""
    local: Settings = MappingProxyType({})
    """The settings of each transaction."""

    def begin_pooled(self, pooler: Pooler, settings: Settings) -> None:
        """Set each transaction up from now on."""
        self.pooler = pooler
        self.set_in_each(settings)

    def set_in_each(self, settings: Settings) -> None:
        """Set these too in each transaction, behind a pooler."""
        if self.pooler is not None:
            self.local = {**self.local, **settings}
            self.begin = self.pooler.begin(self.local)


class Session(_Pooled, psycopg.Connection[TupleRow]):
    """A connection, which may lead to a pooler."""

    def begin_pooled(self, pooler: Pooler, settings: Settings) -> None:
        """Set each transaction up from now on."""
        super().begin_pooled(pooler, settings)
        self.cursor_factory, self.prepare_threshold = _PooledCursor, None

    def own(self) -> None:
        """Keep to this one session, which a pooler in session mode gives."""
        if self.pooler is not None:
            statements = self.pooler.take(self.local)
            self.pooler, self.cursor_factory, self.begin = None, psycopg.Cursor, b""
            self.execute(statements)

    @contextlib.contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        """As psycopg's, and set up."""
        begins = self.pooler is not None and self.info.transaction_status == TransactionStatus.IDLE
        with super().transaction(savepoint_name, force_rollback) as transaction:
            if begins:
                self.execute(self.begin)
            yield transaction


class AsyncSession(_Pooled, psycopg.AsyncConnection[TupleRow]):
    """The same for asyncio, for statements that are a transaction each."""

    def begin_pooled(self, pooler: Pooler, settings: Settings) -> None:
        """Set each transaction up from now on."""
        super().begin_pooled(pooler, settings)
        self.cursor_factory, self.prepare_threshold = _AsyncPooledCursor, None


@dataclass(frozen=True)
class SessionSettings:
    """What a new session is set to. `client` is for the audit log."""

    place: str
    schema: str
    read_only: bool
    timeout_s: float
    client: str

    def statement(self, connection: Session | AsyncSession) -> tuple[LiteralString, dict[str, str | int]]:
        """The first statement, and its parameters; its row is for `begin`.

        A role or a database may have settings that our statements or psycopg do not expect. One is respected:
        default_transaction_read_only is a brake of somebody's. Behind a pooler, whose process is not the server's,
        nothing is set beyond the statement.
        """
        # pgvector may live in a schema of its own (managed services do that): that one joins the path, and no other.
        return (
            """
            SELECT pooled, vector_schema, current_setting('port'),
                   string_to_array(extversion, '.')::int[] >= '{0,8}',
                   set_config('search_path', concat_ws(', ', quote_ident(%(schema)s), quote_ident(vector_schema)),
                              pooled),
                   set_config('statement_timeout', %(timeout)s, pooled),
                   set_config('default_transaction_read_only', CASE WHEN %(read_only)s::bool THEN 'on'
                       ELSE current_setting('default_transaction_read_only') END, pooled),
                   set_config('default_transaction_isolation', 'read committed', pooled),
                   set_config('datestyle', 'ISO, YMD', pooled), set_config('intervalstyle', 'postgres', pooled),
                   set_config('standard_conforming_strings', 'on', pooled),
                   set_config('bytea_output', 'hex', pooled), set_config('revector.client', %(client)s, pooled)
            FROM (SELECT pg_backend_pid() <> %(pid)s AS pooled, coalesce(nspname::text, 'public') AS vector_schema,
                         extversion
                  FROM (SELECT) one LEFT JOIN (pg_extension e JOIN pg_namespace n ON n.oid = extnamespace)
                       ON extname = 'vector') found
            """,
            {
                "schema": self.schema,
                "timeout": self._timeout,
                "read_only": self.read_only,
                "client": self.client,
                "pid": connection.info.backend_pid,
            },
        )

    def begin(self, connection: Session | AsyncSession, row: TupleRow | None) -> None:
        """Take note of what the first statement found: behind a pooler, each transaction is set up by itself."""
        pooled, vector_schema, port, iterates, *_ = row or (False, "", "", False)
        if pooled:
            connection.begin_pooled(
                Pooler(self.place, port, self.read_only, bool(iterates)),
                {
                    "search_path": (self.schema, vector_schema),
                    "statement_timeout": self._timeout,
                    "datestyle": ("ISO", "YMD"),
                    "intervalstyle": "postgres",
                    "standard_conforming_strings": "on",
                    "bytea_output": "hex",
                    "revector.client": self.client,
                },
            )

    @property
    def _timeout(self) -> str:
        return f"{round(self.timeout_s * 1000)}ms"


def _whole(connection: Any, query: Any, params: Params | None) -> Any:
    """The statement, after those that set its transaction up where none is open."""
    if not connection.begin or connection.info.transaction_status != TransactionStatus.IDLE:
        return query
    if isinstance(query, sql.Composable):
        query = query.as_bytes(connection)
    elif isinstance(query, str):
        query = query.encode()
    return (connection.begin if params is None else connection.begin.replace(b"%", b"%%")) + query


class _PooledCursor(psycopg.ClientCursor[Row]):
    """Sends a statement and its settings in one round trip, in which they are one transaction."""

    def execute(
        self,
        query: Query,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
    ) -> Self:
        """As psycopg's; what it answers is text."""
        self.format = Format.TEXT
        super().execute(_whole(self.connection, query, params), params)
        return self.set_result(-1)

    def executemany(self, query: Query, params_seq: Iterable[Params], *, returning: bool = False) -> None:
        """As psycopg's, without its pipeline."""
        with self.connection.transaction():
            for params in params_seq:
                self.execute(query, params)


class _AsyncPooledCursor(psycopg.AsyncClientCursor[Row]):
    """The same for asyncio."""

    async def execute(
        self,
        query: Query,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
    ) -> Self:
        """As psycopg's; what it answers is text."""
        self.format = Format.TEXT
        await super().execute(_whole(self.connection, query, params), params)
        return await self.set_result(-1)


def keep_settings(connection: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
    """Set these for the statements that follow on this connection."""
    if isinstance(connection, Session) and connection.pooler is not None:
        connection.set_in_each(settings)
    else:
        connection.execute(SET_SESSION, [list(settings), list(settings.values())])


def listen(connection: psycopg.Connection[Any], channel: str) -> None:
    """Be told of notifications. On a standby and behind a pooler nothing is told: whoever listens polls as well."""
    if isinstance(connection, Session) and connection.pooler is not None:
        return
    with contextlib.suppress(errors.ReadOnlySqlTransaction, errors.FeatureNotSupported):
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))


def require_own_session(connection: psycopg.Connection[Any], purpose: str) -> None:
    """Make sure that this connection keeps one session of the server. Raises RefusedError behind a pooler that may
    give it another."""
    if not isinstance(connection, Session) or (pooler := connection.pooler) is None:
        return
    if connection.info.transaction_status != TransactionStatus.IDLE:  # as long as it lasts, it has one
        return
    if not _keeps(connection):
        raise RefusedError(
            f"{purpose.capitalize()} needs a session of its own, and {pooler.place} is a pooler in transaction mode.",
            f"Name the server itself with --dsn or REVECTOR_DSN: it listens on port {pooler.server_port}.",
        )
    connection.own()


def _keeps(connection: Session) -> bool:
    """Whether the pooler leaves a session to its client: another client never gets the same one.

    In transaction mode a session that is idle goes to whoever asks next, so the other one gets it, or, where sessions
    are busy, this one another.
    """
    with psycopg.connect(**parameters_of(connection), autocommit=True) as other:
        first = _backend(connection)
        for _ in range(_LOOKS):
            second = _backend(other)
            if second is None or second == first or _backend(connection) != first:
                return False
    return True


def standby_error(place: str) -> RefusedError:
    """The error for a change on a standby."""
    return RefusedError(
        f"{place} is a standby, which can only be read: nothing was changed.",
        "Name the primary with --dsn or REVECTOR_DSN.",
    )


def parameters_of(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """What opens another connection like this one, with the password. Never shown."""
    info = connection.info
    return info.get_parameters() | ({"password": info.password} if info.password else {})


def _backend(connection: psycopg.Connection[Any]) -> bytes | None:
    """The process that serves this connection now; None when none does in time."""
    raw = connection.pgconn
    raw.send_query(b"SELECT pg_backend_pid()")
    raw.flush()
    if not select.select([raw.socket], [], [], _WAIT_S)[0]:
        return None
    result = raw.get_result()
    while raw.get_result() is not None:
        pass
    return result.get_value(0, 0) if result is not None and result.ntuples else None
