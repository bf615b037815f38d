"""Which texts stand in several chunks, so that a backfill looks for a twin of these only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from revector.core.migrations.scripts import run_script_of

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table, filled from the chunks that are there, and see to it in the trigger of new chunks."""
    op.create_table(
        "repeated_texts",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("content_sha256", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("repeated_texts_pkey")),
    )
    op.create_index(
        op.f("repeated_texts_content_sha256_idx"), "repeated_texts", ["content_sha256"], postgresql_using="hash"
    )
    run_script_of(__file__)
