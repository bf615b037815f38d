"""What is counted of searches, filters on metadata, and the way in for services that encode by themselves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from revector.core.migrations.scripts import run_script_of

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables, and the rules that hold whoever writes."""
    op.create_table(
        "search_counts",
        sa.Column("embedding_version_id", sa.BigInteger(), nullable=False),
        sa.Column("minute", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("searches", sa.BigInteger(), nullable=False),
        sa.Column("empty", sa.BigInteger(), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.Column("latencies", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.ForeignKeyConstraint(
            ["embedding_version_id"],
            ["embedding_versions.id"],
            name=op.f("search_counts_embedding_version_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("embedding_version_id", "minute", "process", name=op.f("search_counts_pkey")),
    )
    op.create_index(op.f("search_counts_minute_idx"), "search_counts", ["minute"], unique=False)
    # Filters of searches: what a rare value matches is found without looking at every chunk.
    op.create_index(
        op.f("document_chunks_metadata_idx"),
        "document_chunks",
        ["metadata"],
        unique=False,
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
    )
    run_script_of(__file__)
