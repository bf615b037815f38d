"""Whether a flip whose connection was lost was committed: asks the database on another connection."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from revector.core import audit
from revector.core.database import Connection
from revector.core.sessions import Pooler, Session, Settings, parameters_of

_PAUSE_S = 0.05


@dataclass(frozen=True)
class Address:
    """How to reach the database of a connection that may be lost."""

    parameters: dict[str, Any] = field(repr=False)
    """libpq's, with the password. Never shown."""
    search_path: str
    pooled: tuple[Pooler, Settings] | None = None

    @staticmethod
    def of(connection: Connection) -> Address:
        """The address of an open connection."""
        path = connection.execute("SELECT current_setting('search_path')").fetchone()
        pooler = connection.pooler if isinstance(connection, Session) else None
        pooled = (pooler, connection.local) if isinstance(connection, Session) and pooler else None
        return Address(parameters_of(connection), path[0] if path else "", pooled)

    def connect(self) -> Connection:
        """Open a new connection. Raises psycopg.OperationalError."""
        parameters = {**self.parameters, "connect_timeout": 2}
        connection = Session.connect(**parameters, autocommit=True)
        if self.pooled:
            connection.begin_pooled(*self.pooled)
        else:
            connection.execute("SELECT set_config('search_path', %s, false)", [self.search_path])
        return connection


def how_it_ended(
    address: Address, action: str, key: str, token: str, *, sent: bool, patience_s: float
) -> bool | None:
    """Whether the flip with this token was committed; None when unknown.

    `sent` says whether the COMMIT may have been sent: if not, nothing was committed. A flip that did not happen is
    logged, if the database can be reached within `patience_s` seconds.
    """
    end = time.monotonic() + (patience_s if sent else 0)
    while True:
        try:
            with address.connect() as connection:
                if sent and _committed(connection, token, patience_s):
                    return True
                audit.record(connection, action, key, "failed", detail={"problem": "the connection was lost"})
                return False
        except psycopg.Error:
            if time.monotonic() > end:
                return None if sent else False
            time.sleep(_PAUSE_S)


def _committed(connection: Connection, token: str, patience_s: float) -> bool:
    """Look once the flip's lock is free: the transaction that held it is then over."""
    with connection.transaction():
        (standby,) = connection.execute("SELECT pg_is_in_recovery()").fetchone() or (True,)
        if standby:  # the server may not have noticed the lost connection yet
            raise psycopg.OperationalError("This is a standby.")
        connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(f"{round(patience_s * 1000)}ms"))
        connection.execute("SELECT lock_flip()")
        found = connection.execute(
            "SELECT 1 FROM cutovers WHERE detail #>> '{client_says,flip}' = %s", [token]
        ).fetchone()
        return found is not None
