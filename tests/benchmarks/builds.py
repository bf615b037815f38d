"""How long writers of chunks wait while a version's index is built: by an operator, by the owner, and as one would.

An operator's build is a plain one in a function of the owner, without the version's foreign key; the owner's is
CONCURRENTLY; "plain, with its key" is what the foreign key would make of an operator's. A writer inserts a chunk and
deletes another all the while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import LiteralString

from psycopg.conninfo import make_conninfo

from revector.core import index
from revector.core.database import Connection, Database, fetch_one
from revector.core.registry import Version, get_version
from revector.core.roles import granting
from revector.core.settings import Settings
from tests.benchmarks import corpus
from tests.benchmarks.measure import own_database, show_table

CHUNKS = 20_000
DIMENSIONS = 384
STATEMENTS: dict[str, LiteralString] = {
    "INSERT": "INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256, source_id) "
    "SELECT word, gen_random_uuid(), 0, word, sha256(word::bytea), word "
    "FROM (SELECT gen_random_uuid()::text AS word) AS made",
    "DELETE": "DELETE FROM document_chunks WHERE id = (SELECT min(id) FROM document_chunks)",
}


def run(rounds: int) -> None:
    """Measure, and print the longest waits of all builds of a kind."""
    with own_database("bench") as database, database.session("bench") as connection:
        corpus.fill(connection, CHUNKS, words=5)
        key = corpus.fresh_version(connection, DIMENSIONS).version_key
        encoder = corpus.FreeEncoder(corpus.random_vectors(CHUNKS, DIMENSIONS))
        corpus.backfill(database, get_version(connection, key), encoder)
        version = get_version(connection, key)
        connection.execute("CREATE ROLE bench_operator LOGIN")
        granting.grant(connection, "bench_operator", "operator")
        operator = Database(make_conninfo(database.dsn, user="bench_operator"), database.schema)
        kinds: dict[str, Callable[[Connection], object]] = {
            "operator": lambda own: index.build(own, version, Settings()),
            "owner": lambda own: index.build(own, version, Settings()),
            "plain, with its key": lambda own: _plain(own, version),
        }
        rows = []
        for name, build in kinds.items():
            seconds, inserts, deletes = [], [], []
            for _ in range(rounds):
                index.drop(connection, version)
                index.key_table(connection, version)
                with (operator if name == "operator" else database).session("bench") as own:
                    began = time.perf_counter()
                    waits = _while(database, lambda own=own, build=build: build(own))
                    seconds.append(time.perf_counter() - began)
                inserts += waits["INSERT"]
                deletes += waits["DELETE"]
            rows.append([name, f"{max(seconds):.1f}", f"{len(inserts):,}", *(_ms(w) for w in (inserts, deletes))])
        show_table(
            f"{CHUNKS:,} × {DIMENSIONS}, {rounds} builds each",
            ("s, longest", "writes", "ms of an INSERT:\nmedian, longest", "ms of a DELETE:\nmedian, longest"),
            rows,
        )


def _plain(connection: Connection, version: Version) -> None:
    (statement,) = fetch_one(connection, "SELECT index_statement(%s, '')", [version.id])
    connection.execute(statement)


def _while(database: Database, build: Callable[[], object]) -> dict[str, list[float]]:
    """The seconds of each INSERT and DELETE of a chunk while `build` runs."""
    waits: dict[str, list[float]] = {"INSERT": [], "DELETE": []}
    over = threading.Event()

    def write() -> None:
        with database.session("bench") as connection:
            while not over.is_set():
                for verb, statement in STATEMENTS.items():
                    began = time.perf_counter()
                    connection.execute(statement)
                    waits[verb].append(time.perf_counter() - began)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        build()
    finally:
        over.set()
        writer.join()
    return waits


def _ms(seconds: list[float]) -> str:
    middle = sorted(seconds)[len(seconds) // 2]
    return f"{1000 * middle:.1f}, {1000 * max(seconds):.0f}"
