"""What the tests of shadow traffic share: a collection with two versions, and mirrors that are ended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from revector.core import cutover
from revector.core.database import Connection, Database
from revector.core.registry import Version
from revector.core.retrieval import SearchResult, VersionSearcher
from revector.core.shadow import Mirror
from tests.versions import NUMBERS, add_chunks, ready_version

TEXTS = [f"{a} and {b}" for a in NUMBERS for b in NUMBERS]
CANDIDATE = "static:wordllama-256"


def two_versions(
    database: Database, connection: Connection, spec: str = CANDIDATE, texts: list[str] = TEXTS
) -> tuple[Version, Version]:
    """The active version v1, and the candidate v2."""
    add_chunks(connection, texts)
    primary = ready_version(database, connection, "v1")
    candidate = ready_version(database, connection, "v2", spec)
    cutover.run(connection, "v1", confirm="v1")
    return primary, candidate


@contextlib.contextmanager
def mirror_of(database: Database, *, follows: bool = True, **options: Any) -> Iterator[Mirror]:
    """A mirror that knows the shadow that runs."""
    mirror = Mirror(database, **options)
    try:
        if follows:
            assert mirror.wait(60)
        yield mirror
    finally:
        mirror.close()


def answers(connection: Connection, version: Version, queries: list[str], k: int = 10) -> list[SearchResult]:
    """What users got."""
    searcher = VersionSearcher(connection)
    return [searcher.search(query, k, version=version) for query in queries]


def rows(connection: Connection, columns: str = "*") -> list[Any]:
    """The mirrored queries as stored, in the order of their searches."""
    return connection.execute(f"SELECT {columns} FROM shadow_queries ORDER BY id").fetchall()  # type: ignore[arg-type] # noqa: S608
