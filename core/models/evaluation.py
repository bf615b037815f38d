"""Models of query sets, judgements and evaluations."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL
from sqlalchemy.orm import Mapped, mapped_column

from revector.core.models.base import NOW, Base, sane_amounts, sane_times


class QuerySetRow(Base):
    """A set of queries for evaluating versions. `revision` is a digest of them: runs on the same revision can be
    compared."""

    __tablename__ = "query_sets"
    __table_args__ = (
        sane_times("created_at", "updated_at"),
        sa.CheckConstraint("name NOT LIKE '% (hybrid)'", name="name"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    revision: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    created_by: Mapped[str] = mapped_column(server_default=sa.text("SESSION_USER"))
    updated_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)


class QueryRow(Base):
    """A query of a set, with its author's id. `segment` groups queries that are reported together."""

    __tablename__ = "queries"
    __table_args__ = (sa.UniqueConstraint("query_set_id", "query_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    query_set_id: Mapped[int] = mapped_column(sa.ForeignKey("query_sets.id", ondelete="CASCADE"))
    query_id: Mapped[str]
    text: Mapped[str]
    segment: Mapped[str]


class JudgeRow(Base):
    """A judge of relevance: a person by name, or a cross-encoder by its spec and revision."""

    __tablename__ = "judges"
    __table_args__ = (
        sane_times("created_at"),
        sa.CheckConstraint("kind IN ('person', 'model')", name="kind"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    spec: Mapped[str] = mapped_column(server_default="")
    revision: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    created_by: Mapped[str] = mapped_column(server_default=sa.text("SESSION_USER"))


class JudgementRow(Base):
    """A grade (0 is not relevant) by one judge for a document (its source id) or a chunk (its semantic key).

    Never for a row id, which changes with every import. The target need not be in the collection.
    """

    __tablename__ = "judgements"
    __table_args__ = (
        sane_times("judged_at"),
        sane_amounts("score"),
        sa.PrimaryKeyConstraint("query", "judge_id", "target_kind", "target"),
        sa.CheckConstraint("target_kind IN ('document', 'chunk')", name="target_kind"),
    )

    query: Mapped[int] = mapped_column(sa.ForeignKey("queries.id", ondelete="CASCADE"))
    judge_id: Mapped[int] = mapped_column(sa.ForeignKey("judges.id", ondelete="CASCADE"), index=True)
    target_kind: Mapped[str]
    target: Mapped[str]
    grade: Mapped[int] = mapped_column(sa.Integer)
    # The model's score, from which the grade was made.
    score: Mapped[float | None]
    judged_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)


class EvaluationRun(Base):
    """The top-k of one version for every query of a set, with everything needed to repeat it."""

    __tablename__ = "evaluation_runs"
    __table_args__ = (
        sane_times("started_at", "finished_at"),
        sane_amounts("seconds"),
        sa.CheckConstraint("state IN ('running', 'done')", name="state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    query_set_id: Mapped[int] = mapped_column(sa.ForeignKey("query_sets.id", ondelete="CASCADE"), index=True)
    query_set_revision: Mapped[str]
    # The key is kept when the version is dropped.
    embedding_version_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("embedding_versions.id", ondelete="SET NULL"), index=True
    )
    version_key: Mapped[str]
    encoder: Mapped[str]
    encoder_revision: Mapped[str]
    k: Mapped[int] = mapped_column(sa.Integer)
    exact: Mapped[bool]
    hybrid: Mapped[bool] = mapped_column(server_default=sa.text("false"))
    ef_search: Mapped[int | None] = mapped_column(sa.Integer)
    index_settings: Mapped[dict[str, Any]] = mapped_column(JSONB)
    # For a pilot: how its chunks were sampled. Otherwise the whole collection was searched.
    sample: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    chunks: Mapped[int]
    queries: Mapped[int]
    state: Mapped[str] = mapped_column(server_default="running")
    started_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    finished_at: Mapped[datetime.datetime | None]
    seconds: Mapped[float] = mapped_column(server_default=sa.text("0"))
    created_by: Mapped[str] = mapped_column(server_default=sa.text("SESSION_USER"))


class EvaluationResult(Base):
    """The top-k for one query of a run: chunks, their documents and distances, best first."""

    __tablename__ = "evaluation_results"
    __table_args__ = (
        sane_amounts("encode_ms", "search_ms"),
        sa.PrimaryKeyConstraint("run_id", "query_id"),
    )

    run_id: Mapped[int] = mapped_column(sa.ForeignKey("evaluation_runs.id", ondelete="CASCADE"))
    query_id: Mapped[str]
    chunk_ids: Mapped[list[int]] = mapped_column(ARRAY(sa.BigInteger))
    document_ids: Mapped[list[uuid.UUID]] = mapped_column(ARRAY(sa.Uuid))
    distances: Mapped[list[float]] = mapped_column(ARRAY(REAL))
    encode_ms: Mapped[float] = mapped_column(REAL)
    search_ms: Mapped[float] = mapped_column(REAL)


class EvaluationRow(Base):
    """Two runs compared: measures, gates and the verdict, unchanged since they were shown."""

    __tablename__ = "evaluations"
    __table_args__ = (
        sa.CheckConstraint("verdict IN ('pass', 'fail', 'inconclusive')", name="verdict"),
        sa.CheckConstraint(
            "jsonb_typeof(report) = 'object' AND jsonb_typeof(report -> 'gates') = 'array'", name="report"
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    query_set_id: Mapped[int] = mapped_column(sa.ForeignKey("query_sets.id", ondelete="CASCADE"), index=True)
    primary_run_id: Mapped[int] = mapped_column(
        sa.ForeignKey("evaluation_runs.id", ondelete="CASCADE"), index=True
    )
    candidate_run_id: Mapped[int] = mapped_column(
        sa.ForeignKey("evaluation_runs.id", ondelete="CASCADE"), index=True
    )
    primary_version: Mapped[str]
    candidate_version: Mapped[str]
    # None without gates.
    verdict: Mapped[str | None]
    report: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime.datetime] = mapped_column(server_default=sa.text("clock_timestamp()"))
    created_by: Mapped[str] = mapped_column(server_default=sa.text("SESSION_USER"))
