"""Two other ways to fill a table of vectors from a table of texts: vecshift, and the source pattern's loop.

vecshift (on the package registry) adds a column beside the old one and fills it, row by row, by UPDATE. It runs as
its own program in a virtual environment of its own. Its time is the one it states itself, without its start. It sends
vectors as text: those of its hash encoder are mostly zeros and short, those of a real encoder (and of ours) are not.
The loop is what the pattern that revector grew out of says: select a thousand chunks that lack a vector by an
anti-join, encode them, insert them with executemany, and so on until none is left.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psycopg import sql

from revector.core.database import Connection, Database
from revector.core.registry import Version

if TYPE_CHECKING:
    from revector.core.encoders import Encoder

VECSHIFT = "vecshift==0.4.0"
PATTERN_ROWS = 1_000

_HERE = Path(__file__).parent
_CONSTRAINTS = _HERE.parents[1] / "constraints.txt"

PATTERN_TABLE = """
    CREATE TABLE pattern_embeddings (
        chunk_id bigint NOT NULL REFERENCES document_chunks (id) ON DELETE CASCADE,
        embedding_version_id bigint NOT NULL REFERENCES embedding_versions (id) ON DELETE CASCADE,
        embedding vector({}) NOT NULL,
        PRIMARY KEY (chunk_id, embedding_version_id))
"""
PATTERN_READ = """
    WITH target AS (SELECT id FROM embedding_versions WHERE version_key = %s)
    SELECT dc.id, dc.semantic_key, dc.content
    FROM document_chunks dc
    WHERE NOT EXISTS (
        SELECT 1 FROM pattern_embeddings ce, target t
        WHERE ce.chunk_id = dc.id AND ce.embedding_version_id = t.id)
    ORDER BY dc.id LIMIT 1000
"""
_PATTERN_WRITE = "INSERT INTO pattern_embeddings (chunk_id, embedding_version_id, embedding) VALUES (%s, %s, %s)"


def create_pattern_table(connection: Connection, dimensions: int) -> None:
    """The pattern's table of vectors, empty."""
    connection.execute("DROP TABLE IF EXISTS pattern_embeddings")
    connection.execute(sql.SQL(PATTERN_TABLE).format(sql.Literal(dimensions)))


def pattern_batch(connection: Connection, version: Version, encoder: Encoder) -> int:
    """One batch of the source pattern's way; returns how many chunks it found."""
    rows = connection.execute(PATTERN_READ, [version.version_key]).fetchall()
    if rows:
        vectors = encoder.encode_documents([row[2] for row in rows])
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(
                _PATTERN_WRITE,
                [(row[0], version.id, vector) for row, vector in zip(rows, vectors, strict=True)],
            )
    return len(rows)


def pattern_loop(connection: Connection, version: Version, encoder: Encoder) -> float:
    """The whole backfill the source pattern's way; returns seconds."""
    start = time.perf_counter()
    while pattern_batch(connection, version, encoder):
        pass
    return time.perf_counter() - start


@dataclass(frozen=True)
class Vecshift:
    """An installed vecshift."""

    database: Database
    folder: Path
    matrix: Path
    dimensions: int

    def apply(self, connection: Connection, old: Version, *, free: bool) -> float:
        """Fill a new column of a new table with `old`'s vectors in its first; returns the seconds it states."""
        table = sql.Identifier("peer", "docs")
        with connection.transaction():
            connection.execute("DROP SCHEMA IF EXISTS peer CASCADE")
            connection.execute("CREATE SCHEMA peer")
            connection.execute(
                sql.SQL("CREATE TABLE {} (id bigint PRIMARY KEY, content text, embedding vector({}))").format(
                    table, sql.Literal(self.dimensions)
                )
            )
            connection.execute(
                sql.SQL(
                    "INSERT INTO {} SELECT c.id, c.content, e.embedding FROM document_chunks c "
                    "JOIN {} e ON e.chunk_id = c.id ORDER BY c.id"
                ).format(table, old.table)
            )
        connection.execute(sql.SQL("VACUUM ANALYZE {}").format(table))
        connection.execute("CHECKPOINT")
        job = self.folder / "job" / f"{time.monotonic_ns()}" / "vecshift.json"
        job.parent.mkdir(parents=True)
        job.write_text(
            json.dumps(
                {
                    "source": {"table": "peer.docs", "vector_column": "embedding", "text_column": "content"},
                    "target": {"column": "embedding_v2", "index": "none"},
                    "model": f"hash/{self.dimensions}",
                }
            )
        )
        programs = self.folder / "bin"
        program = (
            [programs / "python", _HERE / "free_vecshift.py", self.matrix] if free else [programs / "vecshift"]
        )
        done = subprocess.run(
            [*program, "apply", job, "--yes", "--no-index", "--json"],
            env=os.environ | {"VECSHIFT_DSN": self.database.dsn},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"vecshift ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        result = json.loads(done.stdout.splitlines()[-1])
        filled = connection.execute("SELECT count(embedding_v2), count(*) FROM peer.docs").fetchone()
        if filled is None or filled[0] != filled[1]:
            raise RuntimeError(f"vecshift filled {filled} rows: {result}")
        return float(result["seconds"])


def install_vecshift(database: Database, folder: Path, matrix: Path, dimensions: int) -> Vecshift | None:
    """vecshift with the versions of its dependencies that revector uses too; None when it cannot be had here."""
    venv.create(folder, with_pip=True)
    options = ["--quiet", "--disable-pip-version-check", "--constraint", str(_CONSTRAINTS)]
    command = [folder / "bin" / "python", "-m", "pip", "install", *options, VECSHIFT]
    if subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode:
        return None
    return Vecshift(database, folder, matrix, dimensions)
