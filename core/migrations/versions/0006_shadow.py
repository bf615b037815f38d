"""Shadow traffic: what is mirrored to a candidate, and what came of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from revector.core.migrations.scripts import run_script_of

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables, and the rules that hold whoever writes."""
    op.create_table(
        "shadows",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("embedding_version_id", sa.BigInteger(), nullable=False),
        sa.Column("sample", sa.Double(), nullable=False),
        sa.Column("query_text", sa.Text(), server_default="hashed", nullable=False),
        sa.Column("retention_days", sa.Double(), server_default=sa.text("14"), nullable=False),
        sa.Column(
            "started_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("started_by", sa.Text(), server_default=sa.text("SESSION_USER"), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("stopped_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("query_text IN ('stored', 'hashed', 'omitted')", name=op.f("shadows_query_text_check")),
        sa.CheckConstraint("retention_days > 0", name=op.f("shadows_retention_days_check")),
        sa.CheckConstraint("sample > 0 AND sample <= 1", name=op.f("shadows_sample_check")),
        sa.ForeignKeyConstraint(
            ["embedding_version_id"],
            ["embedding_versions.id"],
            name=op.f("shadows_embedding_version_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("shadows_pkey")),
    )
    op.create_index(op.f("shadows_embedding_version_id_idx"), "shadows", ["embedding_version_id"], unique=False)
    op.create_index(
        "shadows_one_runs",
        "shadows",
        [sa.literal_column("(stopped_at IS NULL)")],
        unique=True,
        postgresql_where=sa.text("stopped_at IS NULL"),
    )
    op.create_table(
        "shadow_queries",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("shadow_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("primary_version", sa.Text(), nullable=False),
        sa.Column("query", sa.Text(), nullable=True),
        sa.Column("query_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("segment", sa.Text(), server_default="", nullable=False),
        sa.Column("k", sa.Integer(), nullable=False),
        sa.Column("primary_keys", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("candidate_keys", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("overlap", sa.REAL(), nullable=True),
        sa.Column("jaccard", sa.REAL(), nullable=True),
        sa.Column("rbo", sa.REAL(), nullable=True),
        sa.Column("kendall_tau", sa.REAL(), nullable=True),
        sa.Column("primary_ms", sa.REAL(), nullable=False),
        sa.Column("candidate_ms", sa.REAL(), nullable=True),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["shadow_id"], ["shadows.id"], name=op.f("shadow_queries_shadow_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("shadow_queries_pkey")),
    )
    op.create_index(op.f("shadow_queries_at_idx"), "shadow_queries", ["at"], unique=False)
    op.create_index(op.f("shadow_queries_shadow_id_at_idx"), "shadow_queries", ["shadow_id", "at"], unique=False)
    op.create_table(
        "shadow_counts",
        sa.Column("shadow_id", sa.BigInteger(), nullable=False),
        sa.Column("process", sa.Text(), nullable=False),
        sa.Column("seen", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("drawn", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("done", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("dropped", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("failed", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("open_since", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "updated_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["shadow_id"], ["shadows.id"], name=op.f("shadow_counts_shadow_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("shadow_id", "process", name=op.f("shadow_counts_pkey")),
    )
    run_script_of(__file__)
