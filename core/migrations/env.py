"""Alembic's environment: runs on the connection it is given, inside that connection's transaction."""

from __future__ import annotations

from typing import Any

from alembic import context
from pgvector.sqlalchemy import BIT, HALFVEC, SPARSEVEC, VECTOR
from sqlalchemy.dialects.postgresql import base as postgresql

from revector.core.models import Base, is_version_table

# Without these, reflection does not know pgvector's types and autogenerate would propose to drop the columns.
postgresql.ischema_names.update({"vector": VECTOR, "halfvec": HALFVEC, "sparsevec": SPARSEVEC, "bit": BIT})


def ours(_object: Any, name: str | None, kind: str, _reflected: bool, _compare_to: Any) -> bool:
    """Leave the version tables alone: they are made and dropped with their versions, not by revisions."""
    return not (kind == "table" and name is not None and is_version_table(name))


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    include_object=ours,
    compare_type=True,
    compare_server_default=True,
)
context.run_migrations()
