"""The model of the audit log."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import CheckConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from revector.core.models.base import CLIENT, Base


class Lock(Base):
    """What queues one behind another: flips, ingests, grants, and changes of version tables. Any role could hold an
    advisory lock."""

    __tablename__ = "locks"

    name: Mapped[str] = mapped_column(primary_key=True)


class AuditLog(Base):
    """Who did what, when, from where and why, and the outcome. Append only, enforced by a trigger."""

    __tablename__ = "audit_log"
    __table_args__ = (
        CheckConstraint("outcome IN ('done', 'refused', 'failed')", name="outcome"),
        CheckConstraint("action ~ '^[a-z-]+( [a-z0-9-]+)*$'", name="action"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime.datetime] = mapped_column(server_default=text("clock_timestamp()"))
    actor: Mapped[str] = mapped_column(server_default=text("SESSION_USER"))
    client: Mapped[str] = mapped_column(server_default=CLIENT)
    application: Mapped[str] = mapped_column(server_default=text("current_setting('application_name'::text)"))
    action: Mapped[str]
    version_key: Mapped[str | None]
    outcome: Mapped[str]
    reason: Mapped[str] = mapped_column(server_default="")
    detail: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'::jsonb"))
