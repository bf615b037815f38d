"""The schema's one source: SQLAlchemy models of the fixed tables, and of a version's table on request.

Revisions are generated from these and checked against them by a test. The program itself talks SQL through
psycopg; the models are for Alembic and for applications that use SQLAlchemy.
"""

from __future__ import annotations

import datetime
import re
import uuid
from typing import Any

from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL, TIMESTAMP, TSVECTOR, ExcludeConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_VERSION_TABLE = re.compile(r"chunk_embeddings_\d+$")

Timestamp = TIMESTAMP(timezone=True)
NOW = text("now()")


class Base(DeclarativeBase):
    """The fixed tables. They carry no schema name: the search path says which collection is meant."""

    metadata = MetaData(
        naming_convention={
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "pk": "%(table_name)s_pkey",
        }
    )
    type_annotation_map = {str: Text, int: BigInteger, datetime.datetime: Timestamp, bytes: LargeBinary}  # noqa: RUF012


class DocumentChunk(Base):
    """A piece of a document. Never changes: edited text is a new chunk, and its predecessor is deleted."""

    __tablename__ = "document_chunks"
    __table_args__ = (
        Index(None, "document_id"),
        Index(None, "content_sha256", postgresql_using="hash"),
        Index(None, "content_tsv", postgresql_using="gin"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    semantic_key: Mapped[str] = mapped_column(unique=True)
    document_id: Mapped[uuid.UUID] = mapped_column(Uuid)
    chunk_no: Mapped[int] = mapped_column(Integer)
    content: Mapped[str]
    content_sha256: Mapped[bytes]
    created_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    source_id: Mapped[str] = mapped_column(server_default="")
    # "metadata" is taken by SQLAlchemy's declarative base
    extra: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB, server_default=text("'{}'::jsonb"))
    content_tsv: Mapped[str] = mapped_column(
        TSVECTOR, Computed("to_tsvector('english'::regconfig, content)", persisted=True), nullable=True
    )


class RepeatedText(Base):
    """A text that stood in several chunks at once: filled by a trigger on document_chunks, never emptied.

    Only for these does a backfill look for a chunk whose vector it can take.
    """

    __tablename__ = "repeated_texts"
    __table_args__ = (Index(None, "content_sha256", postgresql_using="hash"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    content_sha256: Mapped[bytes]


class EmbeddingVersion(Base):
    """An encoder at one revision, and the vectors it made. At most one is active: it answers users."""

    __tablename__ = "embedding_versions"
    __table_args__ = (
        CheckConstraint("dimensions BETWEEN 1 AND 16000", name="dimensions"),
        CheckConstraint("distance_metric IN ('cosine', 'l2', 'ip')", name="distance_metric"),
        CheckConstraint("storage IN ('vector', 'halfvec')", name="storage"),
        CheckConstraint(
            "state IN ('registered', 'backfilling', 'loaded', 'ready', 'active', 'previous', 'retired')",
            name="state",
        ),
        # Deferrable on purpose: a plain partial unique index is checked row by row, so that the flip
        # UPDATE … SET active = CASE … END fails whenever the new row comes before the old one.
        ExcludeConstraint(
            ("active", "="),
            name="embedding_versions_one_active",
            using="btree",
            where=text("active"),
            deferrable=True,
            initially="IMMEDIATE",
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    version_key: Mapped[str] = mapped_column(unique=True)
    encoder_name: Mapped[str]
    encoder_revision: Mapped[str]
    dimensions: Mapped[int] = mapped_column(Integer)
    distance_metric: Mapped[str]
    active: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    state: Mapped[str] = mapped_column(server_default="registered")
    encoder_spec: Mapped[str] = mapped_column(server_default="")
    storage: Mapped[str] = mapped_column(server_default="vector")
    index_settings: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    created_by: Mapped[str] = mapped_column(server_default=text("SESSION_USER"))
    notes: Mapped[str] = mapped_column(server_default="")
    completed_at: Mapped[datetime.datetime | None]
    proven_at: Mapped[datetime.datetime | None]
    activated_at: Mapped[datetime.datetime | None]
    deactivated_at: Mapped[datetime.datetime | None]


class ChunkOutbox(Base):
    """Chunks that a live version still lacks: filled by a trigger on document_chunks, drained by a backfill."""

    __tablename__ = "chunk_outbox"
    __table_args__ = (PrimaryKeyConstraint("embedding_version_id", "chunk_id"),)

    embedding_version_id: Mapped[int] = mapped_column(ForeignKey("embedding_versions.id", ondelete="CASCADE"))
    chunk_id: Mapped[int]
    queued_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    leased_until: Mapped[datetime.datetime | None]
    lease_worker: Mapped[int | None]


class RowCount(Base):
    """Row counts as a sum of deltas, so that nobody counts a large table and no writer waits for another.

    Scope 0 is document_chunks, a positive one the embedding version of that id, and a negative one its outbox.
    """

    __tablename__ = "row_counts"
    __table_args__ = (Index(None, "scope"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    scope: Mapped[int]
    delta: Mapped[int]


class BackfillJob(Base):
    """The backfill of one version. A job is these rows and not a process: any process can go on with it."""

    __tablename__ = "backfill_jobs"
    __table_args__ = (
        CheckConstraint(
            "state IN ('running', 'pausing', 'paused', 'interrupted', 'proving', 'done', 'failed', 'cancelled')",
            name="state",
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    embedding_version_id: Mapped[int] = mapped_column(
        ForeignKey("embedding_versions.id", ondelete="CASCADE"), unique=True
    )
    state: Mapped[str]
    settings: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    total: Mapped[int]
    outbox_done: Mapped[int] = mapped_column(server_default=text("0"))
    spent_usd: Mapped[float] = mapped_column(server_default=text("0"))
    throttle: Mapped[str | None]
    throttle_since: Mapped[datetime.datetime | None]
    error: Mapped[str | None]
    started_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    finished_at: Mapped[datetime.datetime | None]
    # Of the present run, which began when the job last became running: what its share of failures is taken of.
    run_started_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    run_done: Mapped[int] = mapped_column(server_default=text("0"))
    # When the limits were last looked at, and what was found: one worker at a time does that for all of them.
    checked_at: Mapped[datetime.datetime] = mapped_column(server_default=text("'-infinity'::timestamptz"))
    measured: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    proving_worker: Mapped[int | None]


class BackfillTransition(Base):
    """A change of a job's state: filled by a trigger, so that none is left out."""

    __tablename__ = "backfill_transitions"
    __table_args__ = (Index(None, "job_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("backfill_jobs.id", ondelete="CASCADE"))
    at: Mapped[datetime.datetime] = mapped_column(server_default=text("clock_timestamp()"))
    from_state: Mapped[str | None]
    to_state: Mapped[str]
    reason: Mapped[str | None]
    client: Mapped[str] = mapped_column(
        server_default=text("COALESCE(current_setting('revector.client'::text, true), ''::text)")
    )


class BackfillProof(Base):
    """The result of one proof: how many chunks the version lacked, of how many, and how long it took."""

    __tablename__ = "backfill_proofs"
    __table_args__ = (Index(None, "embedding_version_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    embedding_version_id: Mapped[int] = mapped_column(ForeignKey("embedding_versions.id", ondelete="CASCADE"))
    at: Mapped[datetime.datetime] = mapped_column(server_default=text("clock_timestamp()"))
    missing: Mapped[int]
    embedded: Mapped[int]
    dead_letters: Mapped[int]
    seconds: Mapped[float]


class VectorLoad(Base):
    """A file of vectors made elsewhere, and how far it has been loaded: rows before `cursor` are dealt with."""

    __tablename__ = "vector_loads"
    __table_args__ = (
        UniqueConstraint("embedding_version_id", "fingerprint"),
        CheckConstraint("state IN ('running', 'done')", name="state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    embedding_version_id: Mapped[int] = mapped_column(ForeignKey("embedding_versions.id", ondelete="CASCADE"))
    source: Mapped[str]
    # Of the file's content, so that a load is gone on with for the same file only.
    fingerprint: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="running")
    total: Mapped[int]
    cursor: Mapped[int] = mapped_column(server_default=text("0"))
    stored: Mapped[int] = mapped_column(server_default=text("0"))
    present: Mapped[int] = mapped_column(server_default=text("0"))
    unknown: Mapped[int] = mapped_column(server_default=text("0"))
    started_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    updated_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    finished_at: Mapped[datetime.datetime | None]


class BackfillRange(Base):
    """A range of chunk ids. The worker that holds the lease moves the cursor; the token fences it."""

    __tablename__ = "backfill_ranges"
    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'leased', 'done')", name="state"),
        Index(None, "job_id", "state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("backfill_jobs.id", ondelete="CASCADE"))
    first_chunk_id: Mapped[int]
    last_chunk_id: Mapped[int]
    cursor: Mapped[int]
    state: Mapped[str] = mapped_column(server_default="waiting")
    done: Mapped[int] = mapped_column(server_default=text("0"))
    lease_token: Mapped[int] = mapped_column(server_default=text("0"))
    lease_worker: Mapped[int | None]
    lease_until: Mapped[datetime.datetime | None]


class BackfillWorker(Base):
    """A process at work on a job. Its session holds an advisory lock on its id for as long as it lives."""

    __tablename__ = "backfill_workers"
    __table_args__ = (Index(None, "job_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("backfill_jobs.id", ondelete="CASCADE"))
    client: Mapped[str]
    started_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    seen_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    ended_at: Mapped[datetime.datetime | None]
    engine: Mapped[str] = mapped_column(server_default="local")
    pid: Mapped[int | None] = mapped_column(Integer)
    # Process ids of its sessions on the server: those of a frozen worker are ended by the others.
    sessions: Mapped[list[int]] = mapped_column(ARRAY(Integer), server_default=text("'{}'::integer[]"))
    done: Mapped[int] = mapped_column(server_default=text("0"))
    batch_size: Mapped[int | None] = mapped_column(Integer)
    # What its encoder's provider makes it wait for.
    throttle: Mapped[str | None]
    throttle_since: Mapped[datetime.datetime | None]
    # Money that its batches in hand will have cost: no worker starts what the spend cap has no room for.
    reserved_usd: Mapped[float] = mapped_column(server_default=text("0"))
    error: Mapped[str | None]


class BackfillSample(Base):
    """Chunks done by a worker in about a second: what rates and their chart are made of."""

    __tablename__ = "backfill_samples"
    __table_args__ = (Index(None, "job_id", "at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("backfill_jobs.id", ondelete="CASCADE"))
    at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    done: Mapped[int]
    seconds: Mapped[float]


class DeadLetter(Base):
    """A chunk that could not be embedded, with its error. A waived one no longer stands in a cutover's way."""

    __tablename__ = "dead_letters"
    __table_args__ = (PrimaryKeyConstraint("embedding_version_id", "chunk_id"),)

    embedding_version_id: Mapped[int] = mapped_column(ForeignKey("embedding_versions.id", ondelete="CASCADE"))
    chunk_id: Mapped[int] = mapped_column(ForeignKey("document_chunks.id", ondelete="CASCADE"), index=True)
    error: Mapped[str]
    attempts: Mapped[int] = mapped_column(server_default=text("1"))
    failed_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    waived_by: Mapped[str | None]
    waived_reason: Mapped[str | None]


class QuerySet(Base):
    """Queries by which versions are judged. `revision` is a digest of them: runs of one revision can be compared."""

    __tablename__ = "query_sets"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    revision: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    created_by: Mapped[str] = mapped_column(server_default=text("SESSION_USER"))
    updated_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)


class Query(Base):
    """A query of a set, by the id that its author gave it. `segment` groups queries that are judged as one."""

    __tablename__ = "queries"
    __table_args__ = (UniqueConstraint("query_set_id", "query_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    query_set_id: Mapped[int] = mapped_column(ForeignKey("query_sets.id", ondelete="CASCADE"))
    query_id: Mapped[str]
    text: Mapped[str]
    segment: Mapped[str]


class Judge(Base):
    """Who says what is relevant: a person by name, or a cross-encoder by its spec and revision."""

    __tablename__ = "judges"
    __table_args__ = (CheckConstraint("kind IN ('person', 'model')", name="kind"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]
    spec: Mapped[str] = mapped_column(server_default="")
    revision: Mapped[str] = mapped_column(server_default="")
    created_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    created_by: Mapped[str] = mapped_column(server_default=text("SESSION_USER"))


class Judgement(Base):
    """A grade (0 is not relevant) by one judge for a document (its source id) or a chunk (its semantic key).

    Never for a row id: those change with every import. The target need not be in the collection.
    """

    __tablename__ = "judgements"
    __table_args__ = (
        PrimaryKeyConstraint("query", "judge_id", "target_kind", "target"),
        CheckConstraint("target_kind IN ('document', 'chunk')", name="target_kind"),
    )

    query: Mapped[int] = mapped_column(ForeignKey("queries.id", ondelete="CASCADE"))
    judge_id: Mapped[int] = mapped_column(ForeignKey("judges.id", ondelete="CASCADE"), index=True)
    target_kind: Mapped[str]
    target: Mapped[str]
    grade: Mapped[int] = mapped_column(Integer)
    # What a model answered, before it was made a grade.
    score: Mapped[float | None]
    judged_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)


class EvaluationRun(Base):
    """The top-k of one version for every query of a set, with all that is needed to repeat it."""

    __tablename__ = "evaluation_runs"
    __table_args__ = (
        CheckConstraint("state IN ('running', 'done')", name="state"),
        Index(None, "query_set_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    query_set_id: Mapped[int] = mapped_column(ForeignKey("query_sets.id", ondelete="CASCADE"))
    query_set_revision: Mapped[str]
    # The key outlives the version.
    embedding_version_id: Mapped[int | None] = mapped_column(
        ForeignKey("embedding_versions.id", ondelete="SET NULL"), index=True
    )
    version_key: Mapped[str]
    encoder: Mapped[str]
    encoder_revision: Mapped[str]
    k: Mapped[int] = mapped_column(Integer)
    exact: Mapped[bool]
    ef_search: Mapped[int | None] = mapped_column(Integer)
    index_settings: Mapped[dict[str, Any]] = mapped_column(JSONB)
    # Of a pilot: how its chunks were drawn. Otherwise the whole collection was searched.
    sample: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    chunks: Mapped[int]
    queries: Mapped[int]
    state: Mapped[str] = mapped_column(server_default="running")
    started_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    finished_at: Mapped[datetime.datetime | None]
    seconds: Mapped[float] = mapped_column(server_default=text("0"))
    created_by: Mapped[str] = mapped_column(server_default=text("SESSION_USER"))


class EvaluationResult(Base):
    """The top-k for one query of a run: chunks, their documents and distances, best first."""

    __tablename__ = "evaluation_results"
    __table_args__ = (PrimaryKeyConstraint("run_id", "query_id"),)

    run_id: Mapped[int] = mapped_column(ForeignKey("evaluation_runs.id", ondelete="CASCADE"))
    query_id: Mapped[str]
    chunk_ids: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    document_ids: Mapped[list[uuid.UUID]] = mapped_column(ARRAY(Uuid))
    distances: Mapped[list[float]] = mapped_column(ARRAY(REAL))
    encode_ms: Mapped[float] = mapped_column(REAL)
    search_ms: Mapped[float] = mapped_column(REAL)


class Evaluation(Base):
    """Two runs compared: measures, gates and the verdict, as they were shown to whoever signed."""

    __tablename__ = "evaluations"
    __table_args__ = (
        CheckConstraint("verdict IN ('pass', 'fail', 'inconclusive')", name="verdict"),
        Index(None, "query_set_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    query_set_id: Mapped[int] = mapped_column(ForeignKey("query_sets.id", ondelete="CASCADE"))
    primary_run_id: Mapped[int] = mapped_column(ForeignKey("evaluation_runs.id", ondelete="CASCADE"), index=True)
    candidate_run_id: Mapped[int] = mapped_column(ForeignKey("evaluation_runs.id", ondelete="CASCADE"), index=True)
    primary_version: Mapped[str]
    candidate_version: Mapped[str]
    # None without gates: nothing was asked, so that nothing is answered.
    verdict: Mapped[str | None]
    report: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime.datetime] = mapped_column(server_default=text("clock_timestamp()"))
    created_by: Mapped[str] = mapped_column(server_default=text("SESSION_USER"))


class AuditLog(Base):
    """Who did what, when, from where and why, and what came of it. Append only: a trigger sees to it."""

    __tablename__ = "audit_log"
    __table_args__ = (CheckConstraint("outcome IN ('done', 'refused', 'failed')", name="outcome"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime.datetime] = mapped_column(server_default=text("clock_timestamp()"))
    actor: Mapped[str] = mapped_column(server_default=text("SESSION_USER"))
    client: Mapped[str] = mapped_column(
        server_default=text("COALESCE(current_setting('revector.client'::text, true), ''::text)")
    )
    application: Mapped[str] = mapped_column(server_default=text("current_setting('application_name'::text)"))
    action: Mapped[str]
    version_key: Mapped[str | None]
    outcome: Mapped[str]
    reason: Mapped[str] = mapped_column(server_default="")
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))


def is_version_table(name: str) -> bool:
    """Whether a table's name is that of a version's table (`chunk_embeddings_7`)."""
    return _VERSION_TABLE.match(name) is not None


def version_model(version_id: int, dimensions: int, storage: str = "vector") -> type[DeclarativeBase]:
    """A mapped class for one version's table, for applications that search with SQLAlchemy.

    Each call makes a class on a registry of its own; keep it. Columns: `chunk_id`, `embedding`.
    """

    class VersionBase(DeclarativeBase):
        pass

    kind = {"vector": VECTOR, "halfvec": HALFVEC}[storage]

    class ChunkEmbedding(VersionBase):
        __tablename__ = f"chunk_embeddings_{int(version_id)}"
        chunk_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
        embedding: Mapped[Any] = mapped_column(kind(dimensions), nullable=False)

    return ChunkEmbedding
