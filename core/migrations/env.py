"""Alembic's environment: runs on the given connection, inside its transaction."""

from __future__ import annotations

from typing import Any

from alembic import context
from pgvector.sqlalchemy import BIT, HALFVEC, SPARSEVEC, VECTOR
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import base as postgresql

from revector.core.models import Base, is_version_table
from revector.core.revisions import TABLE

# Without these, reflection does not know pgvector's types and autogenerate would propose to drop the columns.
postgresql.ischema_names.update({"vector": VECTOR, "halfvec": HALFVEC, "sparsevec": SPARSEVEC, "bit": BIT})


def ours(_object: Any, name: str | None, kind: str, _reflected: bool, _compare_to: Any) -> bool:
    """Exclude the table of the revision, and the version tables, which are created and dropped with their versions."""
    return not (kind == "table" and name is not None and (name == TABLE or is_version_table(name)))


connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    version_table=TABLE,
    version_table_schema=connection.scalar(select(func.current_schema())),
    target_metadata=Base.metadata,
    include_object=ours,
    compare_type=True,
    compare_server_default=True,
)
context.run_migrations()
