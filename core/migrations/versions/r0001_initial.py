"""The schema: its tables, and the functions and triggers that keep their rules whoever writes."""

from __future__ import annotations

from revector.core.migrations.scripts import run_sql

revision = "r0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create everything, a file for each concern; a table comes after those that it refers to."""
    run_sql("audit", "versions", "chunks", "search", "backfill", "evaluation", "shadow", "cutover", "flip")
