"""Models of cutovers: what is required of one, who asked for it, who approved it, and those that happened."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import Boolean, CheckConstraint, ForeignKey, Index, PrimaryKeyConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from revector.core.models.base import NOW, Base


class CutoverPolicy(Base):
    """The one row of what a cutover requires: approvals, thresholds of guards, the watch. Changes are logged."""

    __tablename__ = "cutover_policy"
    __table_args__ = (CheckConstraint("id", name="one_row"),)

    id: Mapped[bool] = mapped_column(Boolean, primary_key=True, server_default=text("true"))
    settings: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    updated_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    updated_by: Mapped[str] = mapped_column(server_default=text("SESSION_USER"))


class CutoverRequest(Base):
    """A request to make a version active. `basis` is what approvers sign: when it changes, the request is void."""

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
    client: Mapped[str] = mapped_column(
        server_default=text("COALESCE(current_setting('revector.client'::text, true), ''::text)")
    )
    reason: Mapped[str]
    expires_at: Mapped[datetime.datetime]
    basis: Mapped[dict[str, Any]] = mapped_column(JSONB)
    # Guards that need not pass, each with the reason.
    waivers: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    # The figures of all guards when it was asked for.
    guards: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    ended: Mapped[str | None]
    ended_at: Mapped[datetime.datetime | None]
    ended_why: Mapped[str] = mapped_column(server_default="")


class CutoverApproval(Base):
    """An approval of a request by somebody else: the database role is who approves, and a trigger sees to it."""

    __tablename__ = "cutover_approvals"
    __table_args__ = (PrimaryKeyConstraint("request_id", "approved_by"),)

    request_id: Mapped[int] = mapped_column(ForeignKey("cutover_requests.id", ondelete="CASCADE"))
    approved_by: Mapped[str] = mapped_column(server_default=text("SESSION_USER"))
    approved_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    client: Mapped[str] = mapped_column(
        server_default=text("COALESCE(current_setting('revector.client'::text, true), ''::text)")
    )
    comment: Mapped[str] = mapped_column(server_default="")


class Cutover(Base):
    """A change of the active version, from psql too: filled by the trigger that writes it to the log."""

    __tablename__ = "cutovers"
    __table_args__ = (Index(None, "at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime.datetime] = mapped_column(server_default=text("clock_timestamp()"))
    # What did it: cutover, rollback, or flip for an UPDATE that somebody typed.
    action: Mapped[str]
    from_version: Mapped[str | None]
    to_version: Mapped[str]
    # The version that became active. Its key outlives it, and another version may take that key.
    embedding_version_id: Mapped[int | None] = mapped_column(
        ForeignKey("embedding_versions.id", ondelete="SET NULL"), index=True
    )
    made_by: Mapped[str] = mapped_column(server_default=text("SESSION_USER"))
    reason: Mapped[str] = mapped_column(server_default="")
    request_id: Mapped[int | None] = mapped_column(ForeignKey("cutover_requests.id", ondelete="SET NULL"))
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
    # Until when the version before is watched and kept up to date; when it ended earlier, and why.
    watch_until: Mapped[datetime.datetime | None]
    watch_ended_at: Mapped[datetime.datetime | None]
    watch_ended_why: Mapped[str] = mapped_column(server_default="")
