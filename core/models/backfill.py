"""Models of backfills and of vectors loaded from files."""

from __future__ import annotations

import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from revector.core.models.base import CLIENT, NOW, Base, sane_amounts, sane_times


class BackfillJob(Base):
    """The backfill of one version. A job is rows, not a process: any process can continue it."""

    __tablename__ = "backfill_jobs"
    __table_args__ = (
        sane_times("throttle_since", "started_at", "finished_at", "run_started_at"),
        sane_amounts("spent_usd"),
        sa.CheckConstraint(
            "state IN ('running', 'pausing', 'paused', 'interrupted', 'proving', 'done', 'failed', 'cancelled')",
            name="state",
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    embedding_version_id: Mapped[int] = mapped_column(
        sa.ForeignKey("embedding_versions.id", ondelete="CASCADE"), unique=True
    )
    state: Mapped[str]
    settings: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=sa.text("'{}'::jsonb"))
    total: Mapped[int]
    outbox_done: Mapped[int] = mapped_column(server_default=sa.text("0"))
    spent_usd: Mapped[float] = mapped_column(server_default=sa.text("0"))
    throttle: Mapped[str | None]
    throttle_since: Mapped[datetime.datetime | None]
    error: Mapped[str | None]
    started_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    finished_at: Mapped[datetime.datetime | None]
    # Counts of the current run, since the job last became running: the basis of the share of failures.
    run_started_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    run_done: Mapped[int] = mapped_column(server_default=sa.text("0"))
    # What workers must agree with: the release of the run's first, and the vector of the job's first.
    run_release: Mapped[str | None]
    probe_vector: Mapped[list[float] | None] = mapped_column(ARRAY(sa.REAL))
    probe_by: Mapped[str | None]
    # When the limits were last measured, and the result: one worker at a time does it for all.
    checked_at: Mapped[datetime.datetime] = mapped_column(server_default=sa.text("'-infinity'::timestamptz"))
    measured: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=sa.text("'{}'::jsonb"))
    proving_worker: Mapped[int | None]


class BackfillTransition(Base):
    """A change of a job's state: filled by a trigger, so that none is left out."""

    __tablename__ = "backfill_transitions"
    __table_args__ = (sane_times("at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(sa.ForeignKey("backfill_jobs.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime.datetime] = mapped_column(server_default=sa.text("clock_timestamp()"))
    from_state: Mapped[str | None]
    to_state: Mapped[str]
    reason: Mapped[str | None]
    client: Mapped[str] = mapped_column(server_default=CLIENT)


class BackfillProof(Base):
    """The result of one proof: how many chunks the version lacked and had, and how long the proof took."""

    __tablename__ = "backfill_proofs"
    __table_args__ = (sa.Index(None, "embedding_version_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    embedding_version_id: Mapped[int] = mapped_column(sa.ForeignKey("embedding_versions.id", ondelete="CASCADE"))
    at: Mapped[datetime.datetime] = mapped_column(server_default=sa.text("clock_timestamp()"))
    missing: Mapped[int]
    embedded: Mapped[int]
    dead_letters: Mapped[int]
    seconds: Mapped[float]
    missing_chunks: Mapped[list[int] | None] = mapped_column(ARRAY(sa.BigInteger))


class VectorLoad(Base):
    """A file of vectors made elsewhere, and how far it has been loaded: rows before `cursor` are finished."""

    __tablename__ = "vector_loads"
    __table_args__ = (
        sane_times("started_at", "updated_at", "finished_at"),
        sa.UniqueConstraint("embedding_version_id", "fingerprint"),
        sa.CheckConstraint("state IN ('running', 'done')", name="state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    embedding_version_id: Mapped[int] = mapped_column(sa.ForeignKey("embedding_versions.id", ondelete="CASCADE"))
    source: Mapped[str]
    # Of the file's content, so that a load continues only with the same file.
    fingerprint: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="running")
    total: Mapped[int]
    cursor: Mapped[int] = mapped_column(server_default=sa.text("0"))
    # Of the vectors that it stored: the span of their chunks.
    first_chunk_id: Mapped[int | None]
    last_chunk_id: Mapped[int | None]
    stored: Mapped[int] = mapped_column(server_default=sa.text("0"))
    present: Mapped[int] = mapped_column(server_default=sa.text("0"))
    unknown: Mapped[int] = mapped_column(server_default=sa.text("0"))
    started_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    updated_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    finished_at: Mapped[datetime.datetime | None]


class BackfillRange(Base):
    """A range of chunk ids. The worker that holds the lease moves the cursor; the token fences it."""

    __tablename__ = "backfill_ranges"
    __table_args__ = (
        sane_times("lease_until"),
        sa.CheckConstraint("state IN ('waiting', 'leased', 'done')", name="state"),
        sa.Index(None, "job_id", "state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(sa.ForeignKey("backfill_jobs.id", ondelete="CASCADE"))
    first_chunk_id: Mapped[int]
    last_chunk_id: Mapped[int]
    cursor: Mapped[int]
    state: Mapped[str] = mapped_column(server_default="waiting")
    done: Mapped[int] = mapped_column(server_default=sa.text("0"))
    lease_token: Mapped[int] = mapped_column(server_default=sa.text("0"))
    lease_worker: Mapped[int | None]
    lease_until: Mapped[datetime.datetime | None]


class BackfillWorkerRow(Base):
    """A process that works on a job. Its session holds an advisory lock on its id while it lives."""

    __tablename__ = "backfill_workers"
    __table_args__ = (
        sane_times("started_at", "seen_at", "ended_at", "throttle_since"),
        sane_amounts("reserved_usd"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(sa.ForeignKey("backfill_jobs.id", ondelete="CASCADE"), index=True)
    client: Mapped[str]
    started_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    seen_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    ended_at: Mapped[datetime.datetime | None]
    engine: Mapped[str] = mapped_column(server_default="local")
    pid: Mapped[int | None] = mapped_column(sa.Integer)
    # Process ids of its sessions on the server: other workers end those of a frozen worker.
    sessions: Mapped[list[int]] = mapped_column(ARRAY(sa.Integer), server_default=sa.text("'{}'::integer[]"))
    done: Mapped[int] = mapped_column(server_default=sa.text("0"))
    batch_size: Mapped[int | None] = mapped_column(sa.Integer)
    # Why its encoder's provider makes it wait.
    throttle: Mapped[str | None]
    throttle_since: Mapped[datetime.datetime | None]
    # Money reserved for its current batches: no worker starts a batch that would exceed the spend cap.
    reserved_usd: Mapped[float] = mapped_column(server_default=sa.text("0"))
    error: Mapped[str | None]


class BackfillSample(Base):
    """Chunks done by a worker in about a second: the data for rates and their chart."""

    __tablename__ = "backfill_samples"
    __table_args__ = (
        sane_times("at"),
        sane_amounts("seconds"),
        sa.Index(None, "job_id", "at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(sa.ForeignKey("backfill_jobs.id", ondelete="CASCADE"))
    at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    done: Mapped[int]
    seconds: Mapped[float]


class DeadLetter(Base):
    """A chunk that could not be embedded, with its error. A waived one no longer blocks a cutover."""

    __tablename__ = "dead_letters"
    __table_args__ = (
        sane_times("failed_at"),
        sa.PrimaryKeyConstraint("embedding_version_id", "chunk_id"),
        sa.CheckConstraint("waived_reason ~ '[^[:space:]]'", name="waived_reason"),
    )

    embedding_version_id: Mapped[int] = mapped_column(sa.ForeignKey("embedding_versions.id", ondelete="CASCADE"))
    chunk_id: Mapped[int] = mapped_column(sa.ForeignKey("document_chunks.id", ondelete="CASCADE"), index=True)
    error: Mapped[str]
    attempts: Mapped[int] = mapped_column(server_default=sa.text("1"))
    failed_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    waived_by: Mapped[str | None]
    waived_reason: Mapped[str | None]
