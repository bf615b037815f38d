"""A disk that is full, really: a small file system under the vectors, and one under the whole server."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from revector.core import embedded
from revector.core.database import Database
from revector.core.migrations import upgrade
from tests.databases import drop
from tests.faults.conftest import Prepare, fill
from tests.faults.numbers import NUMBERS
from tests.faults.servers import FaultyServer, faulty_server, grow_disk, may_mount, small_disk
from tests.faults.truth import assert_whole
from tests.faults.watch import Watch, wait_until
from tests.faults.workers import Processes

READABLE = re.compile(r"\b(disk|space|room)\b", re.IGNORECASE)


@pytest.fixture
def small_tablespace(faulty: FaultyServer, target: Database) -> Iterator[Path]:
    """A file system of one megabyte, on which the tables made from here on lie."""
    name = str(conninfo_to_dict(target.dsn)["dbname"])
    with small_disk(1) as folder, psycopg.connect(faulty.dsn, autocommit=True) as connection:
        space = folder / "space"
        space.mkdir(mode=0o700)
        owner = faulty.running.data_dir.stat()
        os.chown(space, owner.st_uid, owner.st_gid)
        connection.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(sql.Literal(str(space))))
        put = sql.SQL("ALTER DATABASE {} SET default_tablespace = small")
        connection.execute(put.format(sql.Identifier(name)))
        yield folder
        drop(target, name)
        connection.execute("DROP TABLESPACE small")


MakeRoom = Callable[[], object]


@pytest.fixture
def full_disk(request: pytest.FixtureRequest, prepare: Prepare, watch: Watch) -> MakeRoom:
    """A corpus, and a version whose table finds no room for it; what is returned makes room.

    Where nothing may be mounted, the server gives the same error without a full disk.
    """
    if may_mount():
        folder = request.getfixturevalue("small_tablespace")
        prepare(NUMBERS.run_chunks)
        return lambda: grow_disk(folder, 2_000)
    version = prepare(NUMBERS.run_chunks)
    watch.connection.execute(
        """
        CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF pg_relation_size(TG_RELID) > 1000000 THEN
                RAISE disk_full USING MESSAGE = 'could not extend file: No space left on device';
            END IF;
            RETURN NULL;
        END $$
        """
    )
    table = sql.Identifier(version.table_name)
    watch.connection.execute(
        sql.SQL("CREATE TRIGGER no_room BEFORE INSERT ON {} EXECUTE FUNCTION no_room()").format(table)
    )
    return lambda: watch.connection.execute(sql.SQL("DROP TRIGGER no_room ON {}").format(table))


def test_a_backfill_waits_for_room_and_says_so(
    full_disk: MakeRoom, target: Database, watch: Watch, processes: Processes
) -> None:
    fleet = processes.workers(2)

    def reason() -> str:
        status = watch.status()
        return "" if status is None else " ".join(filter(None, [status.throttle, status.error]))

    wait_until("a reason that tells of the full disk", lambda: READABLE.search(reason()))
    assert 0 < watch.done() < NUMBERS.run_chunks
    assert all(worker.alive for worker in fleet), [worker.text() for worker in fleet]
    full_disk()
    for worker in fleet:
        worker.finish()
    assert_whole(target)
    assert reason() == ""


@pytest.fixture
def server_disk() -> Iterator[Path]:
    """A file system for a server with all that it has; where nothing may be mounted, a folder."""
    with contextlib.ExitStack() as held:
        if may_mount():
            yield held.enter_context(small_disk(250 + NUMBERS.chunks // 100))
        else:
            yield Path(held.enter_context(tempfile.TemporaryDirectory(prefix="revector-fault-disk-")))


def fill_up(folder: Path) -> Path:
    """Fill a disk but for a few megabytes: less than the server wants for another file of its log. The filler."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        while (free := shutil.disk_usage(folder).free) > 8_000_000:
            file.write(bytes(min(free - 7_000_000, 10_000_000)))
            file.flush()
    return filler


def test_a_server_that_a_full_disk_brings_down_is_waited_for(
    server_disk: Path, chance: random.Random, tmp_path: Path
) -> None:
    """Without room for its log of changes (WAL) Postgres ends itself, and cannot start until there is some."""
    with contextlib.ExitStack() as held:
        server = held.enter_context(faulty_server(server_disk / "home"))
        database = Database(server.dsn, "full")
        upgrade(database)
        watch = held.enter_context(contextlib.closing(Watch(database)))
        processes = held.enter_context(contextlib.closing(Processes(database, tmp_path, batch_size=2)))
        fill(database, chance, NUMBERS.chunks)
        filler = fill_up(server_disk) if may_mount() else None
        fleet = processes.workers(2)
        watch.past(NUMBERS.chunks // 10, *fleet)
        if filler is not None:
            with contextlib.suppress(psycopg.OperationalError):
                watch.connection.execute("SELECT pg_switch_wal()")  # to another file, sooner or later
            wait_until("the server is down", lambda: embedded.status(server.home) is None)
            filler.unlink()
        else:
            server.stop_immediately()  # which is what its workers see of it
        assert all(worker.alive for worker in fleet), [worker.text() for worker in fleet]
        server.restart()
        for worker in fleet:
            worker.finish()
        assert_whole(database)
