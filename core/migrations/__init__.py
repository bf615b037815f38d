"""The schema's revisions (Alembic), and the one call that brings a database up to them.

Alembic and SQLAlchemy take half a second to import, so that only `upgrade` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from revector.core.database import Database


def upgrade(database: Database) -> str:
    """Create the extension and the schema, and bring its tables to HEAD; returns the revision before ('' if none).

    Runs as one transaction under a lock, so that two at once do it once. Raises UnreachableError when pgvector
    is not installed on the server or too old, and when the schema is ahead of this program or of a development version.
    """
    from revector.core.migrations._run import run_upgrade

    return run_upgrade(database)
