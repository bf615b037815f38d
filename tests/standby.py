"""A real streaming standby of a server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from revector.core import embedded
from revector.core.embedded.programs import service_user
from tests.core.backfill.steps import eventually

PAUSE = """
DO $$ BEGIN
    PERFORM pg_wal_replay_pause();
    WHILE pg_get_wal_replay_pause_state() <> 'paused' LOOP PERFORM pg_sleep(0.01); END LOOP;
END $$"""
"""On a standby: replay nothing from now on. The call alone only asks for it."""


@dataclass(frozen=True)
class Standby:
    """A running standby, by the folder of its socket."""

    sockets: Path

    def run(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run SQL on it; gives the rows."""
        with psycopg.connect(self.dsn(database), autocommit=True) as own:
            found = own.execute(statement)  # type: ignore[call-overload]
            return found.fetchall() if found.description else []

    def dsn(self, database: str) -> str:
        """The connection string of one of its databases."""
        return f"postgresql://postgres@/{database}?host={self.sockets}&port=5433"


@contextlib.contextmanager
def streaming_standby(server: embedded.EmbeddedServer) -> Iterator[Standby]:
    """A standby of that server, by the name `b`."""
    user = service_user()
    with tempfile.TemporaryDirectory(prefix="revector-standby-") as folder:
        data, sockets = Path(folder) / "data", Path(folder) / "s"
        sockets.mkdir()
        for path in (Path(folder), sockets):
            path.chmod(0o755)
            if user is not None:
                os.chown(path, user.pw_uid, user.pw_gid)
        host = psycopg.conninfo.conninfo_to_dict(server.dsn)["host"]
        as_user: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid} if user is not None else {}
        subprocess.run(
            [embedded.binary("pg_basebackup"), "-D", data, "-R", "-c", "fast", "-h", host, "-U", "postgres",
             "-d", "application_name=b"],
            check=True, capture_output=True, **as_user,
        )  # fmt: skip
        process = subprocess.Popen(
            [embedded.binary("postgres"), "-D", data, "-p", "5433", "-k", sockets, "-c", "listen_addresses="],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_user,
        )  # fmt: skip

        standby = Standby(sockets)

        def answers() -> bool:
            assert process.poll() is None
            try:
                standby.run("SELECT 1")
            except psycopg.OperationalError:
                return False
            return True

        try:
            eventually(answers)
            yield standby
        finally:
            process.terminate()
            process.wait()
