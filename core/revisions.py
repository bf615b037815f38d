"""The revisions of the schema that this program knows, without importing Alembic: every start needs the newest."""

from __future__ import annotations

REVISIONS = ("r1",)
"""All revisions, oldest first; a test compares them with the scripts."""

HEAD = REVISIONS[-1]

DEVELOPMENT_REVISIONS = frozenset({*(f"{number:04}" for number in range(1, 9)), "r0001"})
"""Revisions of development versions, before the first release, in Alembic's own table. They cannot be upgraded."""

TABLE = "revector_revision"
"""Where the revision is kept: not in alembic_version, which the user's application may have in the same schema."""
