"""What holds whichever role writes: the log's own columns, and functions that lend no right of the owner."""

from __future__ import annotations

from revector.core.migrations.scripts import run_script_of

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the triggers and functions."""
    run_script_of(__file__)
