"""Which revisions of the schema this program knows, without importing Alembic: every start asks for the newest."""

from __future__ import annotations

from pathlib import Path

HEAD = "0008"
"""The newest one; a test holds it to the scripts."""


def revision_order() -> list[str]:
    """All revisions, by the names of their scripts (`0001_initial.py`), oldest first."""
    scripts = (Path(__file__).parent / "migrations" / "versions").glob("[0-9]*_*.py")
    return sorted(path.name.partition("_")[0] for path in scripts)
