"""Models of what search services use: counts of searches, and the hosts that encoders may send texts to."""

from __future__ import annotations

import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Integer, PrimaryKeyConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from revector.core.models.base import NOW, Base, readable_time


class SearchCount(Base):
    """Searches of one process by one version from `at` on: how many, how many found nothing, how long they took.

    `latencies` is a histogram of whole searches, encoding included, `cached_latencies` of those whose query was
    encoded before; the bounds are the program's and never change.
    """

    __tablename__ = "search_counts"
    __table_args__ = (
        PrimaryKeyConstraint("embedding_version_id", "at", "process"),
        *(CheckConstraint(readable_time(name), name=name) for name in ("at", "first_error", "last_error")),
        *(
            CheckConstraint(
                f"coalesce(array_dims({name}), '') = '[1:160]' AND array_position({name}, NULL) IS NULL "
                f"AND 0 <= ALL ({name})",
                name=name,
            )
            for name in ("latencies", "cached_latencies")
        ),
        CheckConstraint(
            "empty >= 0 AND errors >= 0 AND searches BETWEEN empty + errors AND 1000000000000", name="counts"
        ),
    )

    embedding_version_id: Mapped[int] = mapped_column(ForeignKey("embedding_versions.id", ondelete="CASCADE"))
    at: Mapped[datetime.datetime] = mapped_column(index=True)
    process: Mapped[str]
    searches: Mapped[int]
    empty: Mapped[int]
    errors: Mapped[int]
    latencies: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    cached_latencies: Mapped[list[int]] = mapped_column(
        ARRAY(Integer), server_default=text("array_fill(0, '{160}'::integer[])")
    )
    first_error: Mapped[datetime.datetime | None]
    last_error: Mapped[datetime.datetime | None]


class EncoderHost(Base):
    """A host that encoders may send texts to, with the variable whose key they may send. The owner's list."""

    __tablename__ = "encoder_hosts"
    __table_args__ = (PrimaryKeyConstraint("host", "key_env"), CheckConstraint("host <> ''", name="host"))

    host: Mapped[str]
    key_env: Mapped[str] = mapped_column(server_default=text("''"))
    added_at: Mapped[datetime.datetime] = mapped_column(server_default=NOW)
    created_by: Mapped[str] = mapped_column(server_default=text("SESSION_USER"))
