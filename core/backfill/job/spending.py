"""What a backfill spends. Money is reserved before a batch is sent, so that no batch can overrun the spend cap."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from psycopg import sql

from revector.core.backfill.job.job import Job, worker_lives
from revector.core.database import Connection, fetch_one
from revector.core.encoders import Metered

if TYPE_CHECKING:
    from revector.core.encoders import Encoder


def billed(encoder: Encoder) -> int | None:
    """The tokens billed for this thread's requests since its last call; None if unknown."""
    return encoder.take_usage() if isinstance(encoder, Metered) else None


class Purse:
    """The money reserved for one worker's current batches."""

    def __init__(self, job: Job, worker_id: int) -> None:
        self._job, self._worker_id = job, worker_id
        self._in_hand = 0.0
        self._lock = threading.Lock()

    def reserve(self, connection: Connection, usd: float, cap: float) -> str | None:
        """Reserve money for a batch; returns the reason in words when the cap has no room for it."""
        with self._lock:
            wanted = self._in_hand + usd
        with connection.transaction():
            (spent,) = fetch_one(
                connection, "SELECT spent_usd FROM backfill_jobs WHERE id = %s FOR UPDATE", [self._job.id]
            )
            (others,) = fetch_one(
                connection,
                sql.SQL(
                    """
                    SELECT coalesce(sum(reserved_usd), 0) FROM backfill_workers w
                    WHERE w.job_id = %s AND w.id <> %s AND {}
                    """
                ).format(worker_lives(sql.SQL("w.id"))),
                [self._job.id, self._worker_id],
            )
            if spent + others + wanted > cap:
                return (
                    f"spend cap of ${cap:,.2f}: ${spent:,.4f} spent, ${others + wanted - usd:,.4f} reserved, "
                    f"the next batch costs ${usd:,.4f}"
                )
            connection.execute(
                "UPDATE backfill_workers SET reserved_usd = %s WHERE id = %s", [wanted, self._worker_id]
            )
        with self._lock:
            self._in_hand += usd
        return None

    def release(self, usd: float) -> None:
        """A batch was stored or dropped; the row in the database follows with the next reservation."""
        with self._lock:
            self._in_hand = max(0.0, self._in_hand - usd)


def record_spent(connection: Connection, job: Job, usd: float) -> None:
    """Add what was spent on vectors that were not stored after all."""
    connection.execute("UPDATE backfill_jobs SET spent_usd = spent_usd + %s WHERE id = %s", [usd, job.id])
