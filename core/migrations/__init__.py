"""The schema's revisions (Alembic), and the call that upgrades a database to them.

Alembic and SQLAlchemy take half a second to import, so only `upgrade` imports them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from revector.core.database import Database
    from revector.core.migrations.drift import Difference


def upgrade(database: Database, *, text_search: str | None = None) -> str:
    """Create the extension and the schema, and upgrade its tables to HEAD; returns the previous revision ('' if
    none).

    `text_search` is the collection's text search configuration, as the server knows it (`german`, `simple` …). Given
    for a collection that has another one, its chunks are read again, and searches wait until that is done.

    Runs as one transaction under a lock, so two concurrent calls upgrade once. Raises UnreachableError when
    pgvector is not installed on the server or too old, and when the schema is newer than this program or of a
    development version; UsageError for a configuration that the server lacks; RefusedError when the schema holds
    a table or a function of another program in the way.
    """
    from revector.core.migrations._run import run_upgrade

    return run_upgrade(database, text_search)


def repair(database: Database) -> list[Difference]:
    """Mend what differs in a schema at HEAD and can be mended without losing anything; returns what was mended.

    Raises RefusedError when something is left, naming it, after all else was mended.
    """
    from revector.core.migrations._run import run_repair

    return run_repair(database)
