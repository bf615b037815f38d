"""Runs Alembic on one of our connections, in one transaction."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from psycopg import errors as pg
from psycopg import sql

from revector.core import audit
from revector.core.database import (
    Connection,
    Database,
    fetch_column,
    fetch_one,
    foreign_content,
    lost_revision,
    readable_errors,
    require_pgvector,
    require_schema,
    server_info,
)
from revector.core.errors import RefusedError, UnreachableError, UsageError
from revector.core.migrations.drift import Difference, differences, named_parts
from revector.core.migrations.sources import Place, place_of, read_sources
from revector.core.revisions import HEAD, REVISIONS, TABLE
from revector.core.roles import granting
from revector.core.sessions import standby_error

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection as AlchemyConnection

log = logging.getLogger(__name__)

_LOCK = 0x7265766563746F72
"""The advisory lock of schema changes: 'revector' in ASCII."""


def run_upgrade(database: Database, text_search: str | None = None) -> str:
    """See core.migrations.upgrade."""
    if database.read_only:
        raise RefusedError("This session is read-only: the schema was not touched.", "Leave out --read-only.")
    with readable_errors(database), alchemy_connection(database) as alchemy:
        raw = _raw(alchemy)
        if fetch_one(raw, "SELECT pg_is_in_recovery()")[0]:
            raise standby_error(database.place)
        encoding = raw.info.parameter_status("server_encoding")
        if encoding not in ("UTF8", "SQL_ASCII"):
            raise RefusedError(
                f"This database's encoding is {encoding}, which lacks most characters that documents have.",
                "Use a database in UTF8: CREATE DATABASE NAME ENCODING 'UTF8' TEMPLATE template0",
            )
        raw.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        _create_extension(raw)
        info = server_info(raw, database.schema)
        require_pgvector(info)
        if info.schema_revision is not None and info.schema_revision not in REVISIONS:
            require_schema(raw, database.schema)  # raises an error that says which revision it is
        if info.schema_revision is None and (lost := lost_revision(raw, database.schema)):
            raise lost
        configuration = _configuration(raw, text_search) if text_search else None
        if info.schema_revision == HEAD and configuration:
            _change_configuration(raw, configuration)
        if info.schema_revision != HEAD:
            raw.execute("SELECT set_config('revector.text_search', %s, true)", [configuration or ""])
            # A schema that an administrator made is used by a role that may not make one.
            if fetch_one(raw, "SELECT to_regnamespace(quote_ident(%s))", [database.schema])[0] is None:
                raw.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(database.schema)))
            elif info.schema_revision is None and (found := _in_the_way(raw, database.schema)):
                raise foreign_content(database.schema, ", ".join(found))
            config = alembic_config()
            config.attributes["connection"] = alchemy
            command.upgrade(config, "head")
            granting.renew_grants(raw)
        alchemy.commit()
        raw.commit()  # where SQLAlchemy executed nothing, it commits nothing
        log.info("schema %s: at revision %s, was %s", database.schema, HEAD, info.schema_revision)
        return info.schema_revision or ""


def _configuration(raw: Connection, name: str) -> str:
    """The text search configuration of that name, as it is written on any search path."""
    known = raw.execute(
        """
        SELECT CASE nspname WHEN 'pg_catalog' THEN quote_ident(cfgname)
                            ELSE format('%%I.%%I', nspname, cfgname) END
        FROM pg_ts_config JOIN pg_namespace n ON n.oid = cfgnamespace
        WHERE %(name)s IN (cfgname::text, nspname || '.' || cfgname)
        ORDER BY nspname <> 'pg_catalog', 1 LIMIT 1
        """,
        {"name": name},
    ).fetchone()
    if known is None:
        names = fetch_column(raw, "SELECT DISTINCT cfgname::text FROM pg_ts_config ORDER BY 1")
        raise UsageError(
            f"The server has no text search configuration {name!r}.",
            f"It has: {', '.join(names)}. For languages that it does not know: simple",
        )
    return str(known[0])


def _change_configuration(raw: Connection, configuration: str) -> None:
    """Read all chunks again by another text search configuration, and count their words."""
    before = place_of(raw).configuration
    if before == configuration:
        return
    raw.execute("ALTER TABLE document_chunks DROP COLUMN content_tsv")
    raw.execute(
        sql.SQL(
            "ALTER TABLE document_chunks ADD COLUMN content_tsv tsvector "
            "GENERATED ALWAYS AS (to_tsvector({}::regconfig, content)) STORED"
        ).format(configuration)
    )
    raw.execute("CREATE INDEX ON document_chunks USING gin (content_tsv)")
    functions = {one.name for one in read_sources(place_of(raw)).functions}
    for one in differences(raw):
        if one.object in functions and one.repair:
            raw.execute(one.repair.encode())
    raw.execute("DELETE FROM word_statistics")
    raw.execute("INSERT INTO document_chunks (content) SELECT '' WHERE false")  # its trigger counts words
    detail = {"text_search": configuration, "before": before}
    audit.record(raw, "db upgrade", None, detail=detail)


def _in_the_way(raw: Connection, schema: str) -> list[str]:
    """What of others has the name of an object that revector makes. For functions the name is enough: with other
    arguments, a call of one could be taken for a call of the other."""
    from revector.core.models import Base

    tables = [*Base.metadata.tables, TABLE, "chunk_embeddings"]
    functions = [one.name for one in read_sources(Place(schema, "public")).functions]
    return fetch_column(
        raw,
        """
        SELECT format('%%s %%s', CASE relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence'
                                              WHEN 'i' THEN 'index' ELSE 'relation' END, relname)
        FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(%(schema)s))
          AND (relname = ANY(%(tables)s) OR relname = ANY(%(parts)s) OR relname ~ '^chunk_embeddings_[0-9]+(_|$)'
               OR relname = ANY(ARRAY(SELECT format('%%s_id_seq', t) FROM unnest(%(tables)s::text[]) AS t)))
        UNION ALL
        SELECT format('type %%s', typname) FROM pg_type
        WHERE typnamespace = to_regnamespace(quote_ident(%(schema)s)) AND typname = ANY(%(tables)s) AND typrelid = 0
        UNION ALL
        SELECT format('function %%s(%%s)', proname, pg_get_function_identity_arguments(oid)) FROM pg_proc
        WHERE pronamespace = to_regnamespace(quote_ident(%(schema)s)) AND proname = ANY(%(functions)s)
        ORDER BY 1
        """,
        {
            "schema": schema,
            "tables": tables,
            "functions": functions,
            "parts": [name for _, name, *_ in named_parts(Base.metadata.sorted_tables)],
        },
    )


def run_repair(database: Database) -> list[Difference]:
    """See core.migrations.repair."""
    mended: list[Difference] = []
    failed: dict[tuple[str, str], str] = {}
    with database.session("migrations") as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        # Functions that call each other may be made in any order.
        connection.execute("SET LOCAL check_function_bodies = off")
        left = differences(connection)
        # What was made, a view say, needs its rights: look again.
        while todo := [one for one in left if one.repair and (one.object, one.detail) not in failed]:
            for one in todo:
                try:
                    with connection.transaction():
                        connection.execute(one.repair.encode())
                    mended.append(one)
                except (pg.ProgrammingError, pg.IntegrityError, pg.RaiseException) as error:
                    failed[one.object, one.detail] = f" ({error.diag.message_primary})"
            left = differences(connection)
            failed |= {(one.object, one.detail): "" for one in left if one in mended}
        if mended:
            names = [f"{one.object}: {one.detail}" for one in mended]
            log.info("schema %s: mended %d differences", database.schema, len(mended))
            with suppress(psycopg.Error), connection.transaction():
                audit.record(connection, "db upgrade", None, detail={"mended": names})
    if left := [one for one in left if one.severity == "error"]:
        named = "; ".join(f"{one.object}: {one.detail}{failed.get((one.object, one.detail), '')}" for one in left)
        raise RefusedError(
            f"The schema {database.schema!r} differs from what revector sets up: {named}.",
            "What could be mended was. What to do about these: revector doctor",
        )
    return mended


def alembic_config() -> Config:
    """Alembic's configuration without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    return config


def alchemy_connection(database: Database) -> AlchemyConnection:
    """A SQLAlchemy connection over one of ours: same search path, same errors."""

    def connect() -> Connection:
        connection = database.connect("migrations", own_session=True)
        connection.autocommit = False
        return connection

    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=connect, poolclass=sqlalchemy.NullPool)
    return engine.connect()


def _raw(alchemy: AlchemyConnection) -> Connection:
    raw = alchemy.connection.driver_connection
    if not isinstance(raw, psycopg.Connection):
        raise TypeError(f"expected a psycopg connection, not {type(raw)!r}")
    return raw


def _create_extension(raw: Connection) -> None:
    try:
        with raw.transaction():
            raw.execute("CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public")
    except (pg.FeatureNotSupported, pg.UndefinedFile):
        raise UnreachableError(
            "pgvector is not installed on this server.",
            "Install it (package postgresql-NN-pgvector, or image pgvector/pgvector), then try again.",
        ) from None
    except pg.InsufficientPrivilege:
        raise UnreachableError(
            "The current role may not create the vector extension in this database.",
            "Ask an administrator to run once: CREATE EXTENSION vector",
        ) from None
