"""A revision's SQL: triggers and functions stand in a file of their own beside it."""

from __future__ import annotations

from pathlib import Path

from alembic import op


def run_script_of(revision: str) -> None:
    """Run the SQL file that stands beside a revision (its `__file__`), in the revision's transaction."""
    # Straight to psycopg: the script has several statements, and percent signs that are no placeholders.
    connection = op.get_bind().connection.driver_connection
    assert connection is not None  # noqa: S101  (a checked-out connection has one)
    connection.execute(Path(revision).with_suffix(".sql").read_text(encoding="utf-8"))
