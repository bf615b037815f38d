"""The control plane of a backfill: transitions, proofs, loads of ready-made vectors (and 0002_backfill_control.sql)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from revector.core.migrations.scripts import run_script_of

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables and columns; what was there keeps its rows."""
    op.create_table(
        "backfill_proofs",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("embedding_version_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("missing", sa.BigInteger(), nullable=False),
        sa.Column("embedded", sa.BigInteger(), nullable=False),
        sa.Column("dead_letters", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["embedding_version_id"],
            ["embedding_versions.id"],
            name=op.f("backfill_proofs_embedding_version_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("backfill_proofs_pkey")),
    )
    op.create_index(
        op.f("backfill_proofs_embedding_version_id_idx"), "backfill_proofs", ["embedding_version_id"], unique=False
    )
    op.create_table(
        "vector_loads",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("embedding_version_id", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="running", nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("stored", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("present", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("unknown", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "started_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column(
            "updated_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("finished_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('running', 'done')", name=op.f("vector_loads_state_check")),
        sa.ForeignKeyConstraint(
            ["embedding_version_id"],
            ["embedding_versions.id"],
            name=op.f("vector_loads_embedding_version_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("vector_loads_pkey")),
        sa.UniqueConstraint(
            "embedding_version_id", "fingerprint", name=op.f("vector_loads_embedding_version_id_fingerprint_key")
        ),
    )
    op.create_table(
        "backfill_transitions",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("from_state", sa.Text(), nullable=True),
        sa.Column("to_state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column(
            "client",
            sa.Text(),
            server_default=sa.text("COALESCE(current_setting('revector.client'::text, true), ''::text)"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["backfill_jobs.id"], name=op.f("backfill_transitions_job_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("backfill_transitions_pkey")),
    )
    op.create_index(op.f("backfill_transitions_job_id_idx"), "backfill_transitions", ["job_id"], unique=False)
    op.add_column(
        "backfill_jobs",
        sa.Column(
            "run_started_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
    )
    op.add_column(
        "backfill_jobs", sa.Column("run_done", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column(
        "backfill_jobs",
        sa.Column(
            "checked_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("'-infinity'::timestamptz"),
            nullable=False,
        ),
    )
    op.add_column(
        "backfill_jobs",
        sa.Column(
            "measured",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
    )
    op.add_column("chunk_outbox", sa.Column("lease_worker", sa.BigInteger(), nullable=True))
    op.add_column("backfill_jobs", sa.Column("proving_worker", sa.BigInteger(), nullable=True))
    op.add_column("backfill_workers", sa.Column("engine", sa.Text(), server_default="local", nullable=False))
    op.add_column("backfill_workers", sa.Column("pid", sa.Integer(), nullable=True))
    op.add_column(
        "backfill_workers",
        sa.Column(
            "sessions", postgresql.ARRAY(sa.Integer()), server_default=sa.text("'{}'::integer[]"), nullable=False
        ),
    )
    op.add_column(
        "backfill_workers", sa.Column("done", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column("backfill_workers", sa.Column("batch_size", sa.Integer(), nullable=True))
    op.add_column("backfill_workers", sa.Column("throttle", sa.Text(), nullable=True))
    op.add_column(
        "backfill_workers", sa.Column("throttle_since", postgresql.TIMESTAMP(timezone=True), nullable=True)
    )
    op.add_column(
        "backfill_workers", sa.Column("reserved_usd", sa.Double(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column("backfill_workers", sa.Column("error", sa.Text(), nullable=True))
    # Looked up for every chunk that is read: a hash index costs half as much as a b-tree, at any size.
    op.drop_index("document_chunks_content_sha256_idx", "document_chunks")
    op.create_index(
        op.f("document_chunks_content_sha256_idx"), "document_chunks", ["content_sha256"], postgresql_using="hash"
    )
    run_script_of(__file__)
