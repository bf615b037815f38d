"""Which revisions of the schema this program knows, without importing Alembic: every start asks for the newest."""

from __future__ import annotations

REVISIONS = ("r0001",)
"""All of them, oldest first; a test compares them with the scripts."""

HEAD = REVISIONS[-1]

DEVELOPMENT_REVISIONS = frozenset(f"{number:04}" for number in range(1, 9))
"""Those of development versions, before the first release. No revision leads from them to a newer one."""
