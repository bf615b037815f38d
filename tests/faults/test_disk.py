"""A disk that is full, really: a small file system under the vectors, and one under the whole server."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from core import embedded
from core.database import Database
from core.migrations import upgrade
from tests.faults.conftest import Prepare, drop, fill
from tests.faults.numbers import NUMBERS
from tests.faults.servers import FaultyServer, faulty_server, grow_disk, small_disk
from tests.faults.truth import assert_whole
from tests.faults.watch import Watch, wait_until
from tests.faults.workers import Processes

READABLE = re.compile(r"\b(disk|space|room)\b", re.IGNORECASE)


@pytest.fixture
def disk(faulty: FaultyServer, target: Database) -> Iterator[Path]:
    """A file system of two megabytes, on which the tables made from here on lie."""
    # The name is not one of revector's: `drop` ends those.
    with small_disk(2) as folder, psycopg.connect(target.dsn, autocommit=True) as connection:
        space = folder / "space"
        space.mkdir(mode=0o700)
        owner = faulty.running.data_dir.stat()
        os.chown(space, owner.st_uid, owner.st_gid)
        connection.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(sql.Literal(str(space))))
        connection.execute("ALTER DATABASE postgres SET default_tablespace = small")
        yield folder
        connection.execute("ALTER DATABASE postgres RESET default_tablespace")
        drop(target)
        connection.execute("DROP TABLESPACE small")


def test_a_backfill_waits_for_room_and_says_so(
    disk: Path, target: Database, prepare: Prepare, watch: Watch, processes: Processes
) -> None:
    prepare(NUMBERS.kills_chunks)
    fleet = processes.workers(2)

    def reason() -> str:
        status = watch.status()
        return "" if status is None else " ".join(filter(None, [status.throttle, status.error]))

    wait_until("a reason that tells of the full disk", lambda: READABLE.search(reason()))
    assert 0 < watch.done() < NUMBERS.kills_chunks
    assert all(worker.alive for worker in fleet), [worker.text() for worker in fleet]
    grow_disk(disk, 2_000)
    for worker in fleet:
        worker.finish()
    assert_whole(target)
    assert reason() == ""


@pytest.fixture
def server_disk() -> Iterator[Path]:
    """A file system for a server with all that it has."""
    with small_disk(250 + NUMBERS.chunks // 100) as folder:
        yield folder


@pytest.fixture
def faulty_on_disk(server_disk: Path) -> Iterator[FaultyServer]:
    with faulty_server(server_disk / "home") as server:
        yield server


def test_a_server_that_a_full_disk_brings_down_is_waited_for(
    server_disk: Path, faulty_on_disk: FaultyServer, chance: random.Random, tmp_path: Path
) -> None:
    """Without room for its log of changes (WAL) Postgres ends itself, and cannot start until there is some."""
    database = Database(faulty_on_disk.dsn, "full")
    upgrade(database)
    with (
        contextlib.closing(Watch(database)) as watch,
        contextlib.closing(Processes(database, tmp_path)) as processes,
    ):
        fill(database, chance, NUMBERS.chunks)
        fleet = processes.workers(2)
        watch.past(NUMBERS.chunks // 10, *fleet)
        filler = server_disk / "filler"
        with filler.open("wb") as file:
            while (free := shutil.disk_usage(server_disk).free) > 500_000:
                file.write(bytes(min(free - 100_000, 10_000_000)))
                file.flush()
        # It has to begin another file of its log now.
        with contextlib.suppress(psycopg.OperationalError):
            watch.connection.execute("SELECT pg_switch_wal()")
        wait_until("the server is down", lambda: embedded.status(faulty_on_disk.home) is None)
        filler.unlink()
        faulty_on_disk.restart()
        for worker in fleet:
            worker.finish()
        assert_whole(database)
