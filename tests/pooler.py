"""A real pgbouncer in front of a server."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from revector.core.database import Database
from revector.core.embedded.programs import service_user
from tests.core.backfill.steps import eventually


@contextlib.contextmanager
def pgbouncer(database: Database, mode: str, *, sessions: int = 4, **settings: object) -> Iterator[Database]:
    """That database behind pgbouncer in a pool mode, with that many sessions of the server for each user."""
    server, user = conninfo_to_dict(database.dsn), service_user()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="revector-pgbouncer-") as folder:
        users, configuration = Path(folder) / "users", Path(folder) / "pgbouncer.ini"
        users.write_text(f'"{server["user"]}" ""\n')
        options = {
            "listen_addr": "127.0.0.1", "listen_port": port, "unix_socket_dir": "", "auth_type": "trust",
            "auth_file": users, "pool_mode": mode, "default_pool_size": sessions, "max_client_conn": 200,
            "admin_users": server["user"], "log_connections": 0, "log_disconnections": 0, **settings,
        }  # fmt: skip
        lines = [f"* = host={server['host']} port={server.get('port', 5432)}", "[pgbouncer]"]
        configuration.write_text("\n".join(["[databases]", *lines, *(f"{k} = {v}" for k, v in options.items())]))
        as_user: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid} if user is not None else {}
        for path in (Path(folder), users, configuration):
            path.chmod(0o755)
            if user is not None:
                os.chown(path, user.pw_uid, user.pw_gid)
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program is not None, "these tests need pgbouncer: see the Makefile"
        process = subprocess.Popen(
            [program, "-q", str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_user
        )
        there = {"host": "127.0.0.1", "port": port, "user": server["user"]}

        def answers() -> bool:
            assert process.poll() is None
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(**there, dbname="pgbouncer", autocommit=True).close()
                return True
            return False

        try:
            eventually(answers)
            name = server["dbname"]
            yield replace(database, dsn=psycopg.conninfo.make_conninfo(**there, dbname=name), embedded=False)
        finally:
            process.terminate()
            process.wait()


def left_behind(pooled: Database, *, sessions: int = 4) -> list[tuple[str, str]]:
    """What other clients of the pooler find in the server's sessions that a new session does not have."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(psycopg.connect(pooled.dsn)) for _ in range(sessions)]
        # All at once, each in a transaction: so each gets another session.
        found = {row for client in clients for row in client.execute(_KEPT).fetchall()}
        assert len({client.execute("SELECT pg_backend_pid()").fetchone() for client in clients}) == sessions
    return sorted(found)


_KEPT = """
SELECT name, setting FROM pg_settings
WHERE source = 'session' AND name NOT LIKE 'transaction%'
  -- The pooler itself sets these to what each of its clients asked for.
  AND name NOT IN ('application_name', 'client_encoding')
UNION ALL SELECT 'revector.client', client FROM current_setting('revector.client', true) client WHERE client <> ''
UNION ALL SELECT 'prepared', statement FROM pg_prepared_statements
UNION ALL SELECT 'listens', channel FROM pg_listening_channels() channel
UNION ALL SELECT 'locks', locktype FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
"""
