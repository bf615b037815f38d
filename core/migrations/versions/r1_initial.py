"""The schema: its tables, and the functions and triggers that enforce their rules for every writer."""

from __future__ import annotations

from revector.core.migrations.scripts import run_sql

revision = "r1"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create everything, one file for each concern; tables come after those that they refer to."""
    run_sql(
        "audit",
        "versions",
        "chunks",
        "filters",
        "words",
        "search",
        "backfill",
        "evaluation",
        "shadow",
        "cutover",
        "flip",
        "version_tables",
        "retire",
        "encoders",
    )
