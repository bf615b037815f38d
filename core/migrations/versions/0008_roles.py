"""What viewers, operators and approvers may do, enforced by Postgres itself."""

from __future__ import annotations

from core.migrations.scripts import run_script_of

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables, and the rules that hold whoever writes."""
    run_script_of(__file__)
