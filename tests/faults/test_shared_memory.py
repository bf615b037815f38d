"""A server with little shared memory, really: its /dev/shm is a small file system, as Docker's is."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import psycopg
import pytest

from revector.core import embedded, index
from revector.core.audit import entries
from revector.core.database import Database, readable_errors
from revector.core.errors import UnreachableError
from revector.core.migrations import upgrade
from revector.core.registry import Version
from revector.core.roles import granting
from revector.core.settings import Settings
from tests.core.retrieval.collections import chunks_with_metadata, drawn_version
from tests.faults.servers import faulty_server

START = """
import pathlib, sys
from revector.core import embedded
embedded.start(pathlib.Path(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def small() -> Iterator[tuple[Database, int]]:
    """A collection on a server whose /dev/shm has 8 MB, and the server's process."""
    with faulty_server() as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET dynamic_shared_memory_type = posix")  # the default of servers
        embedded.stop(server.home)
        mount = 'mount -t tmpfs -o size=8m,mode=1777 small /dev/shm && exec "$@"'
        start = [sys.executable, "-W", "ignore", "-c", START, server.home]
        subprocess.run(["unshare", "-m", "sh", "-c", mount, "sh", *start], check=True)
        database = Database(server.dsn, "docs")
        upgrade(database)
        pid = int((server.running.data_dir / "postmaster.pid").read_text().split()[0])
        yield database, pid


def resize(pid: int, megabytes: int) -> None:
    command = ["nsenter", "-m", "-t", str(pid), "mount", "-o", f"remount,size={megabytes}m", "/dev/shm"]  # noqa: S108
    subprocess.run(command, check=True)


def unindexed(connection: psycopg.Connection[tuple[object, ...]], key: str) -> Version:
    vectors = np.random.default_rng(1).standard_normal((3000, 32), dtype=np.float32)
    if not connection.execute("SELECT 1 FROM document_chunks LIMIT 1").fetchone():
        chunks_with_metadata(connection, len(vectors), "'{}'")
    version = drawn_version(connection, key, vectors)
    index.drop(connection, version)
    return version


@pytest.mark.parametrize("by", ["the owner", "an operator"])
def test_a_build_does_without_workers_where_there_is_too_little_to_share(
    small: tuple[Database, int], by: str, logged: list[str]
) -> None:
    database, pid = small
    resize(pid, 8)
    with database.session("test") as connection, contextlib.ExitStack() as held:
        builder = connection
        version = unindexed(connection, f"v-{by.split()[1]}")
        if by == "an operator":
            connection.execute("CREATE ROLE ann LOGIN")
            granting.grant(connection, "ann", "operator")
            own = Database(psycopg.conninfo.make_conninfo(database.dsn, user="ann"), database.schema)
            builder = held.enter_context(own.session("test"))
        built = index.build(builder, version, Settings())
        assert built.valid
        assert "too little shared memory" in built.note
        assert entries(connection, limit=1)[0].detail["note"] == built.note
    assert any("again without workers" in line for line in logged)


def test_a_build_asks_for_what_it_needs_and_not_for_all_that_it_may_have(small: tuple[Database, int]) -> None:
    database, pid = small
    resize(pid, 64)
    with database.session("test") as connection:
        built = index.build(connection, unindexed(connection, "v-docker"), Settings(maintenance_work_mem="1GB"))
        assert (built.valid, built.note) == (True, "")


def test_what_a_search_or_another_statement_lacks_is_not_called_a_full_disk(small: tuple[Database, int]) -> None:
    database, pid = small
    resize(pid, 8)
    with database.session("test") as connection:
        version = unindexed(connection, "v-raw")
        connection.execute("SELECT set_config('maintenance_work_mem', '256MB', false)")
        with (
            pytest.raises(UnreachableError, match=r"(?s)too little shared memory.*could not.*--shm-size"),
            readable_errors(database),
        ):
            connection.execute(index.create_statement(connection, version).encode())
