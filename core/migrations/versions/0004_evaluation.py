"""Query sets, judges and their judgements, runs and evaluations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "judges",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), server_default="", nullable=False),
        sa.Column("revision", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("created_by", sa.Text(), server_default=sa.text("SESSION_USER"), nullable=False),
        sa.CheckConstraint("kind IN ('person', 'model')", name=op.f("judges_kind_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("judges_pkey")),
        sa.UniqueConstraint("name", name=op.f("judges_name_key")),
    )
    op.create_table(
        "query_sets",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("created_by", sa.Text(), server_default=sa.text("SESSION_USER"), nullable=False),
        sa.Column(
            "updated_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("query_sets_pkey")),
        sa.UniqueConstraint("name", name=op.f("query_sets_name_key")),
    )
    op.create_table(
        "evaluation_runs",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("query_set_id", sa.BigInteger(), nullable=False),
        sa.Column("query_set_revision", sa.Text(), nullable=False),
        sa.Column("embedding_version_id", sa.BigInteger(), nullable=True),
        sa.Column("version_key", sa.Text(), nullable=False),
        sa.Column("encoder", sa.Text(), nullable=False),
        sa.Column("encoder_revision", sa.Text(), nullable=False),
        sa.Column("k", sa.Integer(), nullable=False),
        sa.Column("exact", sa.Boolean(), nullable=False),
        sa.Column("ef_search", sa.Integer(), nullable=True),
        sa.Column("index_settings", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("sample", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("chunks", sa.BigInteger(), nullable=False),
        sa.Column("queries", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), server_default="running", nullable=False),
        sa.Column(
            "started_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("finished_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("seconds", sa.Double(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_by", sa.Text(), server_default=sa.text("SESSION_USER"), nullable=False),
        sa.CheckConstraint("state IN ('running', 'done')", name=op.f("evaluation_runs_state_check")),
        sa.ForeignKeyConstraint(
            ["embedding_version_id"],
            ["embedding_versions.id"],
            name=op.f("evaluation_runs_embedding_version_id_fkey"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["query_set_id"], ["query_sets.id"], name=op.f("evaluation_runs_query_set_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("evaluation_runs_pkey")),
    )
    op.create_index(
        op.f("evaluation_runs_embedding_version_id_idx"), "evaluation_runs", ["embedding_version_id"], unique=False
    )
    op.create_index(op.f("evaluation_runs_query_set_id_idx"), "evaluation_runs", ["query_set_id"], unique=False)
    op.create_table(
        "queries",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("query_set_id", sa.BigInteger(), nullable=False),
        sa.Column("query_id", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("segment", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["query_set_id"], ["query_sets.id"], name=op.f("queries_query_set_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("queries_pkey")),
        sa.UniqueConstraint("query_set_id", "query_id", name=op.f("queries_query_set_id_query_id_key")),
    )
    op.create_table(
        "evaluation_results",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("query_id", sa.Text(), nullable=False),
        sa.Column("chunk_ids", postgresql.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("document_ids", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("distances", postgresql.ARRAY(sa.REAL()), nullable=False),
        sa.Column("encode_ms", sa.REAL(), nullable=False),
        sa.Column("search_ms", sa.REAL(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["evaluation_runs.id"], name=op.f("evaluation_results_run_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "query_id", name=op.f("evaluation_results_pkey")),
    )
    op.create_table(
        "evaluations",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("query_set_id", sa.BigInteger(), nullable=False),
        sa.Column("primary_run_id", sa.BigInteger(), nullable=False),
        sa.Column("candidate_run_id", sa.BigInteger(), nullable=False),
        sa.Column("primary_version", sa.Text(), nullable=False),
        sa.Column("candidate_version", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            postgresql.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("created_by", sa.Text(), server_default=sa.text("SESSION_USER"), nullable=False),
        sa.CheckConstraint("verdict IN ('pass', 'fail', 'inconclusive')", name=op.f("evaluations_verdict_check")),
        sa.ForeignKeyConstraint(
            ["candidate_run_id"],
            ["evaluation_runs.id"],
            name=op.f("evaluations_candidate_run_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["primary_run_id"],
            ["evaluation_runs.id"],
            name=op.f("evaluations_primary_run_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["query_set_id"], ["query_sets.id"], name=op.f("evaluations_query_set_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("evaluations_pkey")),
    )
    op.create_index(op.f("evaluations_candidate_run_id_idx"), "evaluations", ["candidate_run_id"], unique=False)
    op.create_index(op.f("evaluations_query_set_id_idx"), "evaluations", ["query_set_id"], unique=False)
    op.create_index(op.f("evaluations_primary_run_id_idx"), "evaluations", ["primary_run_id"], unique=False)
    op.create_table(
        "judgements",
        sa.Column("query", sa.BigInteger(), nullable=False),
        sa.Column("judge_id", sa.BigInteger(), nullable=False),
        sa.Column("target_kind", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("grade", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column(
            "judged_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.CheckConstraint("target_kind IN ('document', 'chunk')", name=op.f("judgements_target_kind_check")),
        sa.ForeignKeyConstraint(
            ["judge_id"], ["judges.id"], name=op.f("judgements_judge_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["query"], ["queries.id"], name=op.f("judgements_query_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("query", "judge_id", "target_kind", "target", name=op.f("judgements_pkey")),
    )
    op.create_index(op.f("judgements_judge_id_idx"), "judgements", ["judge_id"], unique=False)
