"""What a cutover requires, requests with their approvals, and the history of flips."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from revector.core.migrations.scripts import run_script_of

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables, and the rules that hold whoever writes."""
    op.create_table(
        "cutover_policy",
        sa.Column("id", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "settings",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "updated_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("updated_by", sa.Text(), server_default=sa.text("SESSION_USER"), nullable=False),
        sa.CheckConstraint("id", name=op.f("cutover_policy_one_row_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("cutover_policy_pkey")),
    )
    op.create_table(
        "cutover_requests",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("embedding_version_id", sa.BigInteger(), nullable=False),
        sa.Column("requested_by", sa.Text(), server_default=sa.text("SESSION_USER"), nullable=False),
        sa.Column(
            "requested_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column(
            "client",
            sa.Text(),
            server_default=sa.text("COALESCE(current_setting('revector.client'::text, true), ''::text)"),
            nullable=False,
        ),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("expires_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("basis", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "waivers",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "guards",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("ended", sa.Text(), nullable=True),
        sa.Column("ended_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("ended_why", sa.Text(), server_default="", nullable=False),
        sa.CheckConstraint(
            "ended IN ('done', 'void', 'withdrawn', 'expired')", name=op.f("cutover_requests_ended_check")
        ),
        sa.ForeignKeyConstraint(
            ["embedding_version_id"],
            ["embedding_versions.id"],
            name=op.f("cutover_requests_embedding_version_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("cutover_requests_pkey")),
    )
    op.create_index(
        "cutover_requests_one_open",
        "cutover_requests",
        ["embedding_version_id"],
        unique=True,
        postgresql_where=sa.text("ended IS NULL"),
    )
    op.create_table(
        "cutover_approvals",
        sa.Column("request_id", sa.BigInteger(), nullable=False),
        sa.Column("approved_by", sa.Text(), server_default=sa.text("SESSION_USER"), nullable=False),
        sa.Column(
            "approved_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column(
            "client",
            sa.Text(),
            server_default=sa.text("COALESCE(current_setting('revector.client'::text, true), ''::text)"),
            nullable=False,
        ),
        sa.Column("comment", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["cutover_requests.id"],
            name=op.f("cutover_approvals_request_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("request_id", "approved_by", name=op.f("cutover_approvals_pkey")),
    )
    op.create_table(
        "cutovers",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column(
            "at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("from_version", sa.Text(), nullable=True),
        sa.Column("to_version", sa.Text(), nullable=False),
        sa.Column("embedding_version_id", sa.BigInteger(), nullable=True),
        sa.Column("made_by", sa.Text(), server_default=sa.text("SESSION_USER"), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("request_id", sa.BigInteger(), nullable=True),
        sa.Column(
            "detail",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("watch_until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("watch_ended_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("watch_ended_why", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["embedding_version_id"],
            ["embedding_versions.id"],
            name=op.f("cutovers_embedding_version_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["request_id"], ["cutover_requests.id"], name=op.f("cutovers_request_id_fkey"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("cutovers_pkey")),
    )
    op.create_index(op.f("cutovers_at_idx"), "cutovers", ["at"], unique=False)
    op.create_index(op.f("cutovers_embedding_version_id_idx"), "cutovers", ["embedding_version_id"], unique=False)
    run_script_of(__file__)
