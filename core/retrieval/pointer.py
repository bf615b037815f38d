"""Which version this process serves: one thread with its own connection follows the flips.

It listens on the channel `revector`, and also polls every `poll_s` seconds, since a pooler may swallow
notifications. Its application_name says what is served (core.serving). Losing its connection changes nothing for
users: the known version stays, searches check it themselves, and the thread reconnects.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator

import psycopg
from psycopg import errors as pg
from psycopg import sql

from revector.core.database import Database
from revector.core.errors import PinnedVersionError, RevectorError
from revector.core.registry import VERSION_COLUMNS, Version
from revector.core.retrieval.connections import SearchConnection
from revector.core.retrieval.counts import FRESH_S, Counter
from revector.core.retrieval.encoding import EncoderCache
from revector.core.serving import served_name
from revector.core.sessions import listen
from revector.core.wakeup import WakeUp

log = logging.getLogger(__name__)

ROLLBACK_VARIABLE = "RETRIEVAL_ROLLBACK_VERSION"
"""Pins a process to a version, whatever the registry says and the program asks for."""
FLUSH_S = 10.0
_FLUSH_SOON_S = 1.0
"""While a limit of the watch may be near: right after a flip, and after an error."""
_CONNECT_AGAIN_S = 1.0
_LIMIT_S = 5.0
"""For each statement of the thread: a frozen server must not keep it from connecting to another."""

ACTIVE_VERSION = sql.SQL("SELECT {} FROM embedding_versions WHERE active").format(VERSION_COLUMNS).as_bytes(None)
NAMED_VERSION = (
    sql.SQL("SELECT {} FROM embedding_versions WHERE version_key = %(key)s").format(VERSION_COLUMNS).as_bytes(None)
)

NEXT_VERSIONS = (
    sql.SQL("SELECT {} FROM embedding_versions WHERE id IN (SELECT next_versions()) AND encoder_spec <> ''")
    .format(VERSION_COLUMNS)
    .as_bytes(None)
)
"""The versions that the next flip can make active. Others are not opened: nobody has approved what their rows name."""


def pinned_to_nothing(key: str) -> PinnedVersionError:
    """The error for a process that is pinned to a version that does not exist, or no longer."""
    return PinnedVersionError(
        f"This process is pinned to version {key} ({ROLLBACK_VARIABLE}, or `pinned`), which does not exist.",
        "Unset the variable, or name an existing version (revector versions list), and restart the process.",
    )


class Pointer:
    """Follows the active version, or stays with the pinned one."""

    def __init__(
        self, database: Database, counter: Counter, encoders: EncoderCache, *,
        program: str, pinned: str | None, poll_s: float,
    ) -> None:  # fmt: skip
        self.pinned = os.environ.get(ROLLBACK_VARIABLE) or pinned
        self._database, self._counter, self._program = database, counter, program
        self._poll_s = poll_s
        self._encoders = encoders
        self.version: Version | None = None
        """The version served as far as this process knows; None before it knows one."""
        self._warmer: threading.Thread | None = None
        self._shown: str | None = None
        self._ended = False
        self._wake = WakeUp()
        self._thread = threading.Thread(target=self._follow_on, name="revector-pointer", daemon=True)
        self._thread.start()

    def follow(self, version: Version) -> None:
        """Serve this version, which a search found before the thread did."""
        if self.version is None or self.version.id != version.id:
            self.version = version
            self.look()

    def look(self) -> None:
        """Make the thread check now."""
        self._wake.ring()

    def forked(self) -> None:
        """In a forked child, which does not have the thread: it must not wake the parent's."""
        self._ended = True
        self._wake.close()

    @property
    def schema(self) -> str:
        """The collection's schema."""
        return self._database.schema

    def close(self) -> None:
        """Stop the thread; counts are written first, if the database can be reached."""
        if self._ended:
            return
        self._ended = True
        self.look()
        self._thread.join(2 * _LIMIT_S)

    # -- the thread ----------------------------------------------------------------------------------------

    def _follow_on(self) -> None:
        while not self._ended:
            try:
                with self._connected() as connection:
                    self._follow_by(connection)
            except (psycopg.Error, RevectorError, OSError) as error:
                log.log(
                    logging.WARNING if self._shown else logging.DEBUG, "database lost: %s", type(error).__name__
                )
            self._shown = None
            if not self._ended:
                self._wake.wait(min(self._poll_s, _CONNECT_AGAIN_S))
        self._wake.close()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[SearchConnection]:
        connection = SearchConnection.connect(
            **self._database.connect_options(self._program),
            database=self._database,
            failed=lambda error, began: None,
            limit_s=_LIMIT_S,
        )
        try:
            yield connection
        finally:
            connection.close()

    def _follow_by(self, connection: SearchConnection) -> None:
        connection.deadline = time.monotonic() + _LIMIT_S
        row = connection.execute(
            "SELECT oid::bigint FROM pg_namespace WHERE nspname = %s", [self._database.schema]
        ).fetchone()
        schema = int(row[0]) if row else 0
        listen(connection, "revector")
        flushed = warmed = time.monotonic()
        while True:
            connection.deadline = time.monotonic() + _LIMIT_S
            self._refresh(connection, schema)
            soon = self._counter.failing or self._is_fresh()
            now = time.monotonic()
            if self._ended or now - flushed >= (_FLUSH_SOON_S if soon else FLUSH_S):
                # Without the right to write, or on a standby, searches are served but not counted.
                with contextlib.suppress(pg.InsufficientPrivilege, pg.ReadOnlySqlTransaction):
                    self._counter.flush(connection)
                flushed = now
            if now - warmed >= FLUSH_S:
                self._warm(connection)
                warmed = now
            if self._ended:
                return
            # A notification only says that something changed; the registry is always read. A notification that
            # arrived together with an answer is found here, and would not end the wait.
            if not list(connection.notifies(timeout=0)):
                self._wake.wait(min(self._poll_s, _FLUSH_SOON_S) if soon else self._poll_s, connection)

    def _is_fresh(self) -> bool:
        """Whether the version became active a short while ago."""
        activated_at = self.version.activated_at if self.version else None
        return activated_at is not None and time.time() - activated_at.timestamp() < FRESH_S

    def _refresh(self, connection: SearchConnection, schema: int) -> None:
        if self.pinned:
            row = connection.execute(NAMED_VERSION, {"key": self.pinned}).fetchone()
        else:
            row = connection.execute(ACTIVE_VERSION).fetchone()
        version = Version(*row) if row else None
        self.version = version
        missing = self.pinned if self.pinned and version is None else ""
        name = served_name(
            self._program, version.id if version else 0, schema, pinned=bool(self.pinned), missing=missing
        )
        if name != self._shown:
            first, self._shown = self._shown is None, name
            log.info("%s serves %s", self._program, version.version_key if version else "no version")
            if missing:
                log.error("%s", pinned_to_nothing(missing).problem)
            # A pooler's session would keep the name when others use it, and show what is no longer served.
            if connection.pooler is None:
                connection.execute("SELECT set_config('application_name', %s, false)", [name])
            # After a flip, the version served before is the target of a rollback, and already open.
            if first or version is None or not self._encoders.opened(version):
                self._warm(connection)

    def _warm(self, connection: SearchConnection) -> None:
        """Open the encoders that are needed now or after the next flip, so that no search has to wait for them."""
        versions = [self.version] if self.version and self.version.encoder_spec else []
        try:
            versions += (Version(*row) for row in connection.execute(NEXT_VERSIONS).fetchall())
        except psycopg.Error as error:  # the right may be missing; none of it may keep the thread from following
            log.debug("the next versions are not known: %s", type(error).__name__)
        closed = [version for version in versions if not self._encoders.opened(version)]
        if closed and not self._ended and not (self._warmer and self._warmer.is_alive()):
            self._warmer = threading.Thread(
                target=self._open_all, args=[closed], name="revector-warm", daemon=True
            )
            self._warmer.start()

    def _open_all(self, versions: list[Version]) -> None:
        for version in versions:
            if not self._ended:
                # Errors are reported by the search that needs the encoder.
                with contextlib.suppress(Exception):
                    self._encoders.encoder(version)
