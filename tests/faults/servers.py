"""A Postgres server for one test, which may kill it in any way."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from revector.core import embedded


class FaultyServer:
    """An embedded server in its own folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.running = embedded.start(home)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            # Whatever ends the server here, the machine stays: what it wrote is safe without being flushed, and a
            # recovery need not flush every file first, which takes seconds.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")

    @property
    def dsn(self) -> str:
        """The same after every restart."""
        return self.running.dsn

    def stop_immediately(self) -> None:
        """As when its machine loses power: no session ends in order, and the next start recovers."""
        pg_ctl = str(embedded.binary("pg_ctl"))
        command = [pg_ctl, "stop", "--wait", "-m", "immediate", "-D", str(self.running.data_dir)]
        subprocess.run(command, check=True, capture_output=True, cwd="/", **self.as_its_user())

    def restart(self) -> None:
        """Start it again; it runs, and has recovered, when this returns."""
        before = self.dsn
        self.running = embedded.start(self.home)
        assert self.dsn == before

    def as_its_user(self) -> dict[str, Any]:
        """Options for subprocess: Postgres's programs refuse to run as root."""
        if os.geteuid() != 0:
            return {}
        owner = self.running.data_dir.stat()
        return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}


@contextlib.contextmanager
def faulty_server(folder: Path | None = None) -> Iterator[FaultyServer]:
    """Started and, whatever was done to it, stopped at the end. Not in pytest's folder: see tests/conftest.py."""
    with contextlib.ExitStack() as held:
        home = folder or Path(held.enter_context(tempfile.TemporaryDirectory(prefix="revector-fault-")))
        try:
            yield FaultyServer(home)
        finally:
            embedded.stop(home)


@cache
def may_mount() -> bool:
    """Whether a file system of one's own may be had here: root may, if its container lets it."""
    try:
        with small_disk(1):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextlib.contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """The folder at which a real file system of that size is mounted."""
    with tempfile.TemporaryDirectory(prefix="revector-fault-disk-") as folder:
        path = Path(folder)
        options = ["-t", "tmpfs", "-o", f"size={megabytes}m,mode=755"]
        subprocess.run(["mount", *options, "revector-test", folder], check=True, capture_output=True)
        try:
            yield path
        finally:
            subprocess.run(["umount", folder], check=True)


def grow_disk(folder: Path, megabytes: int) -> None:
    """Make room."""
    subprocess.run(["mount", "-o", f"remount,size={megabytes}m", str(folder)], check=True)
