"""The loader: core.loader.copy_vectors against the other ways of getting vectors into a version's table.

All of them fill the same table, which core.registry made (primary key, STORAGE PLAIN), over one connection, in one
transaction of their own. It is emptied and a CHECKPOINT is made before each run, outside of the timing.

- `psql \\copy` sends the same vectors as bytes that lie ready in a file: nothing has to be computed, so this
  is the limit of one connection. Its time is that of the whole process; how long psql takes to start, connect and
  end without a COPY is shown beside it, and not subtracted.
- `write_row` is the way of pgvector-python's own documentation: `set_types`, and one row at a time.
- `executemany` is an INSERT a row, sent by psycopg in a pipeline; on fewer rows, so compare its rate only.

The loader checks every vector on the way (finite, not zero, the right shape); the others do not.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pgvector.psycopg import register_vector
from psycopg import sql

from revector.core import embedded
from revector.core.database import Connection, Database
from revector.core.loader import copy_vectors
from revector.core.registry import Version, create_table, get_version
from tests.benchmarks.measure import Contender, in_turns, own_database, show_rates, stopwatch, tell

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZES = ((100_000, 384), (25_000, 1_536))
EXECUTEMANY_ROWS = 5_000


def run(rounds: int) -> None:
    """Measure at both sizes, and print a table for each."""
    with own_database("bench") as database, database.session("bench") as connection:
        register_vector(connection)
        _tell_bare_start(database)
        for rows, dimensions in SIZES:
            _measure(database, connection, rows, dimensions, rounds)


def _measure(database: Database, connection: Connection, rows: int, dimensions: int, rounds: int) -> None:
    version = _version(connection, dimensions)
    chunk_ids = np.arange(1, rows + 1, dtype=np.int64)
    vectors = np.random.default_rng(dimensions).standard_normal((rows, dimensions), dtype=np.float32)
    few = min(rows, EXECUTEMANY_ROWS)
    with tempfile.NamedTemporaryFile(prefix="revector-bench-", suffix=".copy") as file:
        copy_vectors(connection, version, chunk_ids, vectors)
        _export(connection, version, Path(file.name))
        contenders = [
            Contender(
                "copy_vectors", stopwatch(lambda: copy_vectors(connection, version, chunk_ids, vectors)), rows
            ),
            Contender("psql \\copy", stopwatch(lambda: _psql_copy(database, version, file.name)), rows),
            Contender("write_row", stopwatch(lambda: _write_row(connection, version, chunk_ids, vectors)), rows),
            Contender(
                f"executemany ({few:,} rows)",
                stopwatch(lambda: _executemany(connection, version, chunk_ids[:few], vectors[:few])),
                few,
            ),
        ]

        def empty() -> None:
            connection.execute(sql.SQL("TRUNCATE {}").format(version.table))
            connection.execute("CHECKPOINT")

        results = in_turns(contenders, rounds, empty)
        empty()
    show_rates(f"{rows:,} × {dimensions} float32", "rows/s", results)


def _psql_copy(database: Database, version: Version, file: str) -> None:
    table = f'"{database.schema}".{version.table_name}'
    _run_psql(database, f"\\copy {table} (chunk_id, embedding) from '{file}' with (format binary)")


def _write_row(
    connection: Connection, version: Version, chunk_ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    statement = sql.SQL("COPY {} (chunk_id, embedding) FROM STDIN WITH (FORMAT BINARY)").format(version.table)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(["int8", "vector"])
        for row in zip(chunk_ids.tolist(), vectors, strict=True):
            copy.write_row(row)


def _executemany(
    connection: Connection, version: Version, chunk_ids: NDArray[np.int64], vectors: NDArray[np.float32]
) -> None:
    statement = sql.SQL("INSERT INTO {} (chunk_id, embedding) VALUES (%s, %s)").format(version.table)
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(statement, zip(chunk_ids.tolist(), vectors, strict=True))


def _export(connection: Connection, version: Version, file: Path) -> None:
    """What the table holds, as the bytes that psql will send."""
    statement = sql.SQL("COPY {} (chunk_id, embedding) TO STDOUT WITH (FORMAT BINARY)").format(version.table)
    with file.open("wb") as out, connection.cursor() as cursor, cursor.copy(statement) as copy:
        for data in copy:
            out.write(data)


def _tell_bare_start(database: Database) -> None:
    bare = stopwatch(lambda: _run_psql(database, "SELECT 1"))
    tell(f"psql that only says SELECT 1 takes {1000 * statistics.median(bare() for _ in range(9)):.0f} ms")


def _run_psql(database: Database, command: str) -> None:
    psql = str(embedded.binary("psql"))
    subprocess.run([psql, "-qX", "-d", database.dsn, "-c", command], check=True, stdout=subprocess.DEVNULL)


def _version(connection: Connection, dimensions: int) -> Version:
    key = f"bench-{dimensions}"
    connection.execute(
        """
        INSERT INTO embedding_versions (version_key, encoder_name, encoder_revision, dimensions, distance_metric)
        VALUES (%s, 'random', '1', %s, 'cosine')
        """,
        [key, dimensions],
    )
    version = get_version(connection, key)
    create_table(connection, version)
    return version
