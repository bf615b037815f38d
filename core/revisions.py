"""The revisions of the schema that this program knows, without importing Alembic: every start needs the newest."""

from __future__ import annotations

REVISIONS = ("r0001",)
"""All revisions, oldest first; a test compares them with the scripts."""

HEAD = REVISIONS[-1]

DEVELOPMENT_REVISIONS = frozenset(f"{number:04}" for number in range(1, 9))
"""Revisions of development versions, before the first release. They cannot be upgraded."""
