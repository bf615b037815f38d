"""Models of cutovers: their policy, requests, approvals and history."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import Boolean, CheckConstraint, ForeignKey, Index, PrimaryKeyConstraint, text
from sqlalchemy.dialects.postgresql import JSONB, OID
from sqlalchemy.orm import Mapped, mapped_column

from revector.core.models.base import CLIENT, NOW, Base


class CutoverPolicy(Base):
    """The single row of the policy: approvals, thresholds of guards, the watch. Changes are logged."""

    __tablename__ = "cutover_policy"
    __table_args__ = (CheckConstraint("id", name="one_row"),)

    id: Mapped[bool] = mapped_column(Boolean, primary_key=True, server_default=text("true"))
    settings: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    updated_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    updated_by: Mapped[str] = mapped_column(server_default=text("SESSION_USER"))


class CutoverRequest(Base):
    """A request to make a version active. `basis` is what approvers agreed to: when it changes, the request is
    void."""

    __tablename__ = "cutover_requests"
    __table_args__ = (
        CheckConstraint("ended IN ('done', 'void', 'withdrawn', 'expired')", name="ended"),
        Index(
            "cutover_requests_one_open",
            "embedding_version_id",
            unique=True,
            postgresql_where=text("ended IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    embedding_version_id: Mapped[int] = mapped_column(ForeignKey("embedding_versions.id", ondelete="CASCADE"))
    requested_by: Mapped[str] = mapped_column(server_default=text("SESSION_USER"))
    requested_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    client: Mapped[str] = mapped_column(server_default=CLIENT)
    reason: Mapped[str]
    expires_at: Mapped[datetime.datetime]
    basis: Mapped[dict[str, Any]] = mapped_column(JSONB)
    # Guards that need not pass, each with its reason.
    waivers: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    # The figures of all guards at the time of the request.
    guards: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    # Chunks with a vector of the version, counted by the database, and what the count could see.
    vectors: Mapped[int] = mapped_column(server_default=text("0"))
    snapshot: Mapped[str] = mapped_column(server_default=text("(pg_current_snapshot())::text"))
    ended: Mapped[str | None]
    ended_at: Mapped[datetime.datetime | None]
    ended_why: Mapped[str] = mapped_column(server_default="")


class CutoverApproval(Base):
    """An approval of a request by another database role; a trigger sets and checks the role."""

    __tablename__ = "cutover_approvals"
    __table_args__ = (PrimaryKeyConstraint("request_id", "approved_by"),)

    request_id: Mapped[int] = mapped_column(ForeignKey("cutover_requests.id", ondelete="CASCADE"))
    approved_by: Mapped[str] = mapped_column(server_default=text("SESSION_USER"))
    approved_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    client: Mapped[str] = mapped_column(server_default=CLIENT)
    comment: Mapped[str] = mapped_column(server_default="")
    # Another role of the same name, made later, has approved nothing.
    approver: Mapped[int] = mapped_column(OID, server_default=text("0"))


class VectorLoss(Base):
    """A deletion of vectors with their chunks: a request has lost those that its snapshot did not see deleted."""

    __tablename__ = "vector_losses"

    id: Mapped[int] = mapped_column(primary_key=True)
    embedding_version_id: Mapped[int] = mapped_column(index=True)
    transaction: Mapped[int]
    vectors: Mapped[int]


class Cutover(Base):
    """A change of the active version, including from psql: filled by the trigger that logs it."""

    __tablename__ = "cutovers"
    __table_args__ = (CheckConstraint("action IN ('cutover', 'rollback')", name="action"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime.datetime] = mapped_column(server_default=text("clock_timestamp()"), index=True)
    action: Mapped[str]
    from_version: Mapped[str | None]
    to_version: Mapped[str]
    # The version that was active before.
    from_version_id: Mapped[int | None] = mapped_column(
        ForeignKey("embedding_versions.id", ondelete="SET NULL"), index=True
    )
    # The version that became active. Its key is kept when it is dropped, and another version may take the key.
    embedding_version_id: Mapped[int | None] = mapped_column(
        ForeignKey("embedding_versions.id", ondelete="SET NULL"), index=True
    )
    made_by: Mapped[str] = mapped_column(server_default=text("SESSION_USER"))
    reason: Mapped[str] = mapped_column(server_default="")
    request_id: Mapped[int | None] = mapped_column(ForeignKey("cutover_requests.id", ondelete="SET NULL"))
    # What the database found; what the program said of itself is under client_says.
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    # Until when the previous version is watched and kept up to date; when the watch ended earlier, and why.
    watch_until: Mapped[datetime.datetime | None]
    watch_ended_at: Mapped[datetime.datetime | None]
    watch_ended_why: Mapped[str] = mapped_column(server_default="")
