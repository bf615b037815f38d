"""The fixed tables, and the triggers and functions that keep their rules (0001_initial.sql)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from revector.core.migrations.scripts import run_script_of

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column(
            "at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("actor", sa.Text(), server_default=sa.text("SESSION_USER"), nullable=False),
        sa.Column(
            "client",
            sa.Text(),
            server_default=sa.text("COALESCE(current_setting('revector.client'::text, true), ''::text)"),
            nullable=False,
        ),
        sa.Column(
            "application",
            sa.Text(),
            server_default=sa.text("current_setting('application_name'::text)"),
            nullable=False,
        ),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("version_key", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "detail",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.CheckConstraint("outcome IN ('done', 'refused', 'failed')", name=op.f("audit_log_outcome_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("audit_log_pkey")),
    )
    op.create_table(
        "document_chunks",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("semantic_key", sa.Text(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("chunk_no", sa.Integer(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("content_sha256", sa.LargeBinary(), nullable=False),
        sa.Column(
            "created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("source_id", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "content_tsv",
            postgresql.TSVECTOR(),
            sa.Computed("to_tsvector('english'::regconfig, content)", persisted=True),
            nullable=True,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("document_chunks_pkey")),
        sa.UniqueConstraint("semantic_key", name=op.f("document_chunks_semantic_key_key")),
    )
    op.create_index(
        op.f("document_chunks_content_sha256_idx"), "document_chunks", ["content_sha256"], unique=False
    )
    op.create_index(
        op.f("document_chunks_content_tsv_idx"),
        "document_chunks",
        ["content_tsv"],
        unique=False,
        postgresql_using="gin",
    )
    op.create_index(op.f("document_chunks_document_id_idx"), "document_chunks", ["document_id"], unique=False)
    op.create_table(
        "embedding_versions",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("version_key", sa.Text(), nullable=False),
        sa.Column("encoder_name", sa.Text(), nullable=False),
        sa.Column("encoder_revision", sa.Text(), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column("distance_metric", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("state", sa.Text(), server_default="registered", nullable=False),
        sa.Column("encoder_spec", sa.Text(), server_default="", nullable=False),
        sa.Column("storage", sa.Text(), server_default="vector", nullable=False),
        sa.Column(
            "index_settings",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("created_by", sa.Text(), server_default=sa.text("SESSION_USER"), nullable=False),
        sa.Column("notes", sa.Text(), server_default="", nullable=False),
        sa.Column("completed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("proven_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("activated_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("deactivated_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        postgresql.ExcludeConstraint(
            (sa.column("active"), "="),
            where=sa.text("active"),
            deferrable=True,
            initially="IMMEDIATE",
            using="btree",
            name="embedding_versions_one_active",
        ),
        sa.CheckConstraint(
            "distance_metric IN ('cosine', 'l2', 'ip')", name=op.f("embedding_versions_distance_metric_check")
        ),
        sa.CheckConstraint(
            "state IN ('registered', 'backfilling', 'loaded', 'ready', 'active', 'previous', 'retired')",
            name=op.f("embedding_versions_state_check"),
        ),
        sa.CheckConstraint("storage IN ('vector', 'halfvec')", name=op.f("embedding_versions_storage_check")),
        sa.CheckConstraint("dimensions BETWEEN 1 AND 16000", name=op.f("embedding_versions_dimensions_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("embedding_versions_pkey")),
        sa.UniqueConstraint("version_key", name=op.f("embedding_versions_version_key_key")),
    )
    op.create_table(
        "row_counts",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("scope", sa.BigInteger(), nullable=False),
        sa.Column("delta", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("row_counts_pkey")),
    )
    op.create_index(op.f("row_counts_scope_idx"), "row_counts", ["scope"], unique=False)
    op.create_table(
        "backfill_jobs",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("embedding_version_id", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column(
            "settings",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("outbox_done", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("spent_usd", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("throttle", sa.Text(), nullable=True),
        sa.Column("throttle_since", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column(
            "started_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("finished_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('running', 'pausing', 'paused', 'interrupted', 'proving', 'done', 'failed', 'cancelled')",
            name=op.f("backfill_jobs_state_check"),
        ),
        sa.ForeignKeyConstraint(
            ["embedding_version_id"],
            ["embedding_versions.id"],
            name=op.f("backfill_jobs_embedding_version_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("backfill_jobs_pkey")),
        sa.UniqueConstraint("embedding_version_id", name=op.f("backfill_jobs_embedding_version_id_key")),
    )
    op.create_table(
        "chunk_outbox",
        sa.Column("embedding_version_id", sa.BigInteger(), nullable=False),
        sa.Column("chunk_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "queued_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("leased_until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["embedding_version_id"],
            ["embedding_versions.id"],
            name=op.f("chunk_outbox_embedding_version_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("embedding_version_id", "chunk_id", name=op.f("chunk_outbox_pkey")),
    )
    op.create_table(
        "dead_letters",
        sa.Column("embedding_version_id", sa.BigInteger(), nullable=False),
        sa.Column("chunk_id", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column(
            "failed_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("waived_by", sa.Text(), nullable=True),
        sa.Column("waived_reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["chunk_id"], ["document_chunks.id"], name=op.f("dead_letters_chunk_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["embedding_version_id"],
            ["embedding_versions.id"],
            name=op.f("dead_letters_embedding_version_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("embedding_version_id", "chunk_id", name=op.f("dead_letters_pkey")),
    )
    op.create_index(op.f("dead_letters_chunk_id_idx"), "dead_letters", ["chunk_id"], unique=False)
    op.create_table(
        "backfill_ranges",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("first_chunk_id", sa.BigInteger(), nullable=False),
        sa.Column("last_chunk_id", sa.BigInteger(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("done", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_token", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease_worker", sa.BigInteger(), nullable=True),
        sa.Column("lease_until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('waiting', 'leased', 'done')", name=op.f("backfill_ranges_state_check")),
        sa.ForeignKeyConstraint(
            ["job_id"], ["backfill_jobs.id"], name=op.f("backfill_ranges_job_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("backfill_ranges_pkey")),
    )
    op.create_index(op.f("backfill_ranges_job_id_state_idx"), "backfill_ranges", ["job_id", "state"], unique=False)
    op.create_table(
        "backfill_samples",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["backfill_jobs.id"], name=op.f("backfill_samples_job_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("backfill_samples_pkey")),
    )
    op.create_index(op.f("backfill_samples_job_id_at_idx"), "backfill_samples", ["job_id", "at"], unique=False)
    op.create_table(
        "backfill_workers",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column(
            "started_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("seen_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["backfill_jobs.id"], name=op.f("backfill_workers_job_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("backfill_workers_pkey")),
    )
    op.create_index(op.f("backfill_workers_job_id_idx"), "backfill_workers", ["job_id"], unique=False)
    run_script_of(__file__)
