"""Opens the database that settings name: a server of the user, or the embedded one, started if needed."""

from __future__ import annotations

from collections.abc import Callable

from revector.core import embedded
from revector.core.database import Database, server_info
from revector.core.migrations import upgrade
from revector.core.revisions import REVISIONS
from revector.core.settings import Settings, configured_dsn


def open_database(settings: Settings, *, on_wait: Callable[[str], None] | None = None) -> Database:
    """The database that the settings name; reports through `on_wait` what it waits for.

    Only the embedded server is started and set up here, and of its schemas only the default one: another name may be
    mistyped. Anything else is changed only by `revector db upgrade`. Raises UnreachableError when the server cannot
    be started.
    """
    dsn = configured_dsn(settings)
    if dsn is not None:
        return named_database(settings, dsn)
    server = embedded.start(settings.home, on_wait=on_wait)
    database = named_database(settings, server.dsn, embedded=True)
    with database.connect("cli") as connection:
        revision = server_info(connection, settings.schema).schema_revision
    behind = revision in REVISIONS[:-1] or (revision is None and settings.schema == Settings().schema)
    if behind and not settings.read_only:
        if on_wait:
            on_wait(f"setting up the schema {settings.schema}")
        upgrade(database)
    return database


def named_database(settings: Settings, dsn: str, *, embedded: bool = False) -> Database:
    """A Database with these settings at a connection string."""
    return Database(
        dsn, settings.schema, settings.read_only, embedded, connect_timeout_s=settings.connect_timeout_s
    )
