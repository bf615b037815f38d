"""Models of shadow traffic: a sample of users' queries that a candidate searches too."""

from __future__ import annotations

import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, Integer, LargeBinary, PrimaryKeyConstraint, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, REAL
from sqlalchemy.orm import Mapped, mapped_column

from revector.core.models.base import NOW, Base, readable_time


class Shadow(Base):
    """A shadow of users' traffic: its candidate, its sample, and what is stored. At most one runs."""

    __tablename__ = "shadows"
    __table_args__ = (
        CheckConstraint("sample > 0 AND sample <= 1", name="sample"),
        CheckConstraint("query_text IN ('stored', 'hashed', 'omitted')", name="query_text"),
        CheckConstraint("retention_days > 0 AND retention_days <= 3650", name="retention_days"),
        CheckConstraint(readable_time("started_at"), name="started_at"),
        CheckConstraint(readable_time("stopped_at"), name="stopped_at"),
        Index(
            "shadows_one_runs",
            text("(stopped_at IS NULL)"),
            unique=True,
            postgresql_where=text("stopped_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    embedding_version_id: Mapped[int] = mapped_column(
        ForeignKey("embedding_versions.id", ondelete="CASCADE"), index=True
    )
    sample: Mapped[float]
    query_text: Mapped[str] = mapped_column(server_default="hashed")
    retention_days: Mapped[float] = mapped_column(server_default=text("14"))
    started_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    started_by: Mapped[str] = mapped_column(server_default=text("SESSION_USER"))
    reason: Mapped[str] = mapped_column(server_default="")
    stopped_at: Mapped[datetime.datetime | None]


class ShadowQuery(Base):
    """One mirrored query: both top-k as semantic keys, their overlap, and the latency of both searches.

    The shadow's `query_text` decides whether `query` and `query_sha256` are stored, which is keyed: see QueryKey.
    `error` is the candidate's error.
    """

    __tablename__ = "shadow_queries"
    __table_args__ = (
        Index(None, "shadow_id", "at"),
        Index(None, "at"),
        CheckConstraint(readable_time("at"), name="at"),
        CheckConstraint(
            "coalesce(array_ndims(primary_keys), 1) = 1 AND array_position(primary_keys, NULL) IS NULL "
            "AND coalesce(array_ndims(candidate_keys), 1) = 1 AND array_position(candidate_keys, NULL) IS NULL",
            name="keys",
        ),
        CheckConstraint(
            "k BETWEEN 1 AND 1000 AND greatest(overlap, jaccard, rbo, abs(kendall_tau), 0) <= 1 "
            "AND least(overlap, jaccard, rbo, primary_ms, candidate_ms) >= 0 "
            "AND greatest(primary_ms, candidate_ms) <= 1000000000",
            name="figures",
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    shadow_id: Mapped[int] = mapped_column(ForeignKey("shadows.id", ondelete="CASCADE"))
    at: Mapped[datetime.datetime] = mapped_column(server_default=text("clock_timestamp()"))
    # The version that answered the user. Its key is kept when it is dropped.
    primary_version: Mapped[str]
    query: Mapped[str | None]
    query_sha256: Mapped[bytes | None] = mapped_column(LargeBinary)
    segment: Mapped[str] = mapped_column(server_default="")
    k: Mapped[int] = mapped_column(Integer)
    primary_keys: Mapped[list[str]] = mapped_column(ARRAY(Text))
    candidate_keys: Mapped[list[str]] = mapped_column(ARRAY(Text))
    overlap: Mapped[float | None] = mapped_column(REAL)
    jaccard: Mapped[float | None] = mapped_column(REAL)
    rbo: Mapped[float | None] = mapped_column(REAL)
    kendall_tau: Mapped[float | None] = mapped_column(REAL)
    primary_ms: Mapped[float] = mapped_column(REAL)
    candidate_ms: Mapped[float | None] = mapped_column(REAL)
    error: Mapped[str] = mapped_column(server_default="")


class ShadowCount(Base):
    """Counts of one process: queries seen, sampled, searched, dropped by a full queue, failed."""

    __tablename__ = "shadow_counts"
    __table_args__ = (
        PrimaryKeyConstraint("shadow_id", "process"),
        CheckConstraint(readable_time("open_since"), name="open_since"),
        CheckConstraint(readable_time("updated_at"), name="updated_at"),
        CheckConstraint(
            "least(seen, drawn, done, dropped, failed) >= 0 "
            "AND greatest(seen, drawn, done, dropped, failed) <= 1000000000000",
            name="counts",
        ),
    )

    shadow_id: Mapped[int] = mapped_column(ForeignKey("shadows.id", ondelete="CASCADE"))
    process: Mapped[str]
    seen: Mapped[int] = mapped_column(server_default=text("0"))
    drawn: Mapped[int] = mapped_column(server_default=text("0"))
    done: Mapped[int] = mapped_column(server_default=text("0"))
    dropped: Mapped[int] = mapped_column(server_default=text("0"))
    failed: Mapped[int] = mapped_column(server_default=text("0"))
    # Since when the circuit breaker is open, and why.
    open_since: Mapped[datetime.datetime | None]
    error: Mapped[str] = mapped_column(server_default="")
    updated_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)


class QueryKey(Base):
    """The key by which queries are hashed, as the two pads of HMAC. One row, which only the owner reads."""

    __tablename__ = "query_key"
    __table_args__ = (
        CheckConstraint("id", name="id"),
        CheckConstraint("octet_length(inner_pad) = 64", name="inner_pad"),
        CheckConstraint("octet_length(outer_pad) = 64", name="outer_pad"),
    )

    id: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    inner_pad: Mapped[bytes] = mapped_column(LargeBinary)
    outer_pad: Mapped[bytes] = mapped_column(LargeBinary)
