"""Runs Alembic on one of our connections, in one transaction."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import sqlalchemy
from alembic import command
from alembic.config import Config
from psycopg import errors as pg
from psycopg import sql

from revector.core.database import (
    Connection,
    Database,
    foreign_content,
    readable_errors,
    require_pgvector,
    require_schema,
    server_info,
)
from revector.core.errors import RefusedError, UnreachableError
from revector.core.revisions import HEAD, REVISIONS
from revector.core.roles import granting

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection as AlchemyConnection

log = logging.getLogger(__name__)

_LOCK = 0x7265766563746F72
"""The advisory lock of schema changes: 'revector' in ASCII."""


def run_upgrade(database: Database) -> str:
    """See core.migrations.upgrade."""
    if database.read_only:
        raise RefusedError("This session is read-only: the schema was not touched.", "Leave out --read-only.")
    with readable_errors(database), alchemy_connection(database) as alchemy:
        raw = _raw(alchemy)
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
        if info.schema_revision != HEAD:
            raw.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(database.schema)))
            config = alembic_config()
            config.attributes["connection"] = alchemy
            try:
                command.upgrade(config, "head")
            except (pg.DuplicateTable, pg.DuplicateObject, pg.DuplicateFunction) as error:
                raise foreign_content(database.schema, error.diag.message_primary or str(error)) from None
            granting.renew_grants(raw)
        alchemy.commit()
        log.info("schema %s: at revision %s, was %s", database.schema, HEAD, info.schema_revision)
        return info.schema_revision or ""


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
