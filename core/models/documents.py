"""Models of chunks, embedding versions, and what keeps the two in sync."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR, ExcludeConstraint
from sqlalchemy.orm import Mapped, mapped_column

from revector.core.models.base import NOW, Base, sane_times


class DocumentChunk(Base):
    """A piece of a document. It never changes: edited text becomes a new chunk, and the old one is deleted."""

    __tablename__ = "document_chunks"
    __table_args__ = (
        sa.Index(None, "document_id"),
        sa.Index(None, "content_sha256", postgresql_using="hash"),
        sa.Index(None, "content_tsv", postgresql_using="gin"),
        sa.Index(None, "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}),
        {"postgresql_with": {"toast_tuple_target": 8160}},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    semantic_key: Mapped[str] = mapped_column(unique=True)
    document_id: Mapped[uuid.UUID] = mapped_column(sa.Uuid)
    chunk_no: Mapped[int] = mapped_column(sa.Integer)
    content: Mapped[str]
    content_sha256: Mapped[bytes]
    created_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    source_id: Mapped[str] = mapped_column(server_default="")
    # "metadata" is taken by SQLAlchemy's declarative base
    extra: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB, server_default=sa.text("'{}'::jsonb"))
    origin_id: Mapped[int | None]
    content_tsv: Mapped[str] = mapped_column(
        TSVECTOR, sa.Computed("to_tsvector('english'::regconfig, content)", persisted=True), nullable=True
    )


class IngestOrigin(Base):
    """A folder that documents were read from: as it was named, and in full."""

    __tablename__ = "ingest_origins"

    id: Mapped[int] = mapped_column(primary_key=True)
    given: Mapped[str]
    path: Mapped[str]
    prefix: Mapped[str] = mapped_column(server_default="")


class RepeatedText(Base):
    """A text that was in several chunks at once: filled by a trigger on document_chunks, never emptied.

    Only for these does a backfill look for a vector to copy.
    """

    __tablename__ = "repeated_texts"
    __table_args__ = (sa.Index(None, "content_sha256", postgresql_using="hash"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    content_sha256: Mapped[bytes]


class WordStatistics(Base):
    """How common words are, from a sample: taken by a trigger whenever as many chunks came as there were."""

    __tablename__ = "word_statistics"
    __table_args__ = (
        sa.CheckConstraint("chunks >= 0", name="chunks"),
        sa.CheckConstraint("average_length > 0", name="average_length"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    taken_at: Mapped[datetime.datetime] = mapped_column(server_default=sa.text("clock_timestamp()"))
    chunks: Mapped[int]
    last_chunk_id: Mapped[int]
    average_length: Mapped[float]


class WordCount(Base):
    """In how many chunks a word is, about. Words that are not here are rare."""

    __tablename__ = "word_counts"
    __table_args__ = (
        sa.PrimaryKeyConstraint("statistics_id", "word"),
        sa.CheckConstraint("chunks > 0", name="chunks"),
    )

    statistics_id: Mapped[int] = mapped_column(sa.ForeignKey("word_statistics.id", ondelete="CASCADE"))
    word: Mapped[str]
    chunks: Mapped[int]


class EmbeddingVersion(Base):
    """An encoder at one revision, and its vectors. At most one version is active."""

    __tablename__ = "embedding_versions"
    __table_args__ = (
        sa.CheckConstraint("version_key ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'", name="version_key"),
        sa.CheckConstraint("dimensions BETWEEN 1 AND 16000", name="dimensions"),
        sa.CheckConstraint("distance_metric IN ('cosine', 'l2', 'ip')", name="distance_metric"),
        sa.CheckConstraint("storage IN ('vector', 'halfvec')", name="storage"),
        sa.CheckConstraint(
            "jsonb_typeof(index_settings) = 'object' "
            "AND NOT jsonb_path_exists(index_settings, '$.* ? (@.type() != \"number\")') "
            "AND coalesce((index_settings ->> 'ef_search')\\:\\:int, 100) BETWEEN 1 AND 1000 "
            "AND coalesce((index_settings ->> 'ef_construction')\\:\\:int, 64) BETWEEN 4 AND 1000 "
            "AND coalesce((index_settings ->> 'm')\\:\\:int, 16) BETWEEN 2 AND 100",
            name="index_settings",
        ),
        sa.CheckConstraint(
            "state IN ('registered', 'backfilling', 'loaded', 'ready', 'active', 'previous', 'retired')",
            name="state",
        ),
        # Deferrable on purpose: a plain partial unique index is checked row by row, so that the flip
        # UPDATE … SET active = CASE … END fails whenever the new row comes before the old one.
        ExcludeConstraint(
            ("active", "="),
            name="embedding_versions_one_active",
            using="btree",
            where=sa.text("active"),
            deferrable=True,
            initially="IMMEDIATE",
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    version_key: Mapped[str] = mapped_column(unique=True)
    encoder_name: Mapped[str]
    encoder_revision: Mapped[str]
    dimensions: Mapped[int] = mapped_column(sa.Integer)
    distance_metric: Mapped[str]
    active: Mapped[bool] = mapped_column(server_default=sa.text("false"))
    created_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    state: Mapped[str] = mapped_column(server_default="registered")
    encoder_spec: Mapped[str] = mapped_column(server_default="")
    storage: Mapped[str] = mapped_column(server_default="vector")
    index_settings: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=sa.text("'{}'::jsonb"))
    created_by: Mapped[str] = mapped_column(server_default=sa.text("SESSION_USER"))
    notes: Mapped[str] = mapped_column(server_default="")
    completed_at: Mapped[datetime.datetime | None]
    proven_at: Mapped[datetime.datetime | None]
    activated_at: Mapped[datetime.datetime | None]
    deactivated_at: Mapped[datetime.datetime | None]


class ChunkOutbox(Base):
    """Chunks that a live version still lacks: filled by a trigger on document_chunks, emptied by a backfill."""

    __tablename__ = "chunk_outbox"
    __table_args__ = (
        sane_times("queued_at", "leased_until"),
        sa.PrimaryKeyConstraint("embedding_version_id", "chunk_id"),
    )

    embedding_version_id: Mapped[int] = mapped_column(sa.ForeignKey("embedding_versions.id", ondelete="CASCADE"))
    chunk_id: Mapped[int]
    queued_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    leased_until: Mapped[datetime.datetime | None]
    lease_worker: Mapped[int | None]


class RowCount(Base):
    """Row counts as a sum of deltas: no large table is counted, and no writer waits for another.

    Scope 0 is document_chunks, a positive scope the embedding version with that id, a negative one its outbox.
    """

    __tablename__ = "row_counts"
    __table_args__ = (sa.CheckConstraint("delta BETWEEN -1000000000000 AND 1000000000000", name="delta"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    scope: Mapped[int] = mapped_column(index=True)
    delta: Mapped[int]
