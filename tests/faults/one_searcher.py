"""A service that searches without end, of one of three kinds, and looks at every answer.

    python -m tests.faults.one_searcher KIND DSN SCHEMA [URL]

KIND is `retriever` (the class), `http` (`revector serve` at URL, its token in SERVE_TOKEN) or `sql` (a service that
encodes by itself and calls the SQL functions). It says `ready` when it has begun, `failing` when a search fails after
one that did not, `searching` when it is the other way round, and when its input ends, one line of JSON: how many
searches by which version, how long each took, which errors there were, and what was wrong with any answer. It pauses
for SEARCH_PAUSE_S seconds after each search, without which it is as busy as it can be.

An answer is right when it is, hit by hit, what the version that it names gives for the query encoded by that version's
own encoder. The versions have equal dimensions, so that nothing else would tell a vector in the wrong table.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence

from revector.core.database import Database
from revector.core.errors import RevectorError
from revector.core.registry import Version, versions
from revector.core.retrieval import EncoderCache, Retriever, VersionSearcher

K = 5
QUERIES = ("rotate an api key", "where are backups", "limit of a client", "search a table", "retry a model")
Answer = tuple[str, list[tuple[int, float]]]
Ask = Callable[[str], Answer]
"""A search: the version that it says it was answered by, and its hits with their distances."""


def main() -> None:
    """Search until the input ends."""
    kind, dsn, schema, *rest = sys.argv[1:]
    database = Database(dsn, schema)
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    with database.session("test") as connection:
        searcher = VersionSearcher(connection, EncoderCache())
        right = {
            (version.version_key, query): hits_of(searcher.search(query, K, version=version).hits)
            for version in versions(connection)
            for query in QUERIES
        }
    ask = {"retriever": by_retriever, "http": by_http, "sql": by_functions}[kind](database, *rest)
    for query in QUERIES:
        ask(query)
    say("ready")
    seconds: list[float] = []
    by_version: dict[str, int] = {}
    wrong: list[str] = []
    errors: list[str] = []
    failing = False
    pause_s = float(os.environ.get("SEARCH_PAUSE_S", "0"))
    for query in itertools.cycle(QUERIES):
        if over.wait(pause_s):
            break
        started = time.perf_counter()
        try:
            key, found = ask(query)
        except (RevectorError, OSError, ValueError) as error:
            errors.append(f"{type(error).__name__}: {error}")
            failing = tell(failing, now=True)
            continue
        failing = tell(failing, now=False)
        if not over.is_set():  # services that end beside this one would be measured
            seconds.append(time.perf_counter() - started)
        by_version[key] = by_version.get(key, 0) + 1
        if found != right[key, query]:
            wrong.append(f"{query!r} by {key}: {found}, not {right[key, query]}")
    say(
        json.dumps(
            {"by_version": by_version, "seconds": seconds, "wrong": wrong[:5], "errors": sorted(set(errors))}
        )
    )


def tell(before: bool, *, now: bool) -> bool:
    """Report whether it fails, if that has changed."""
    if now != before:
        say("failing" if now else "searching")
    return now


def hits_of(hits: Sequence[object]) -> list[tuple[int, float]]:
    """Chunk ids and distances, best first."""
    return [(hit.chunk_id, round(hit.distance, 5)) for hit in hits]  # type: ignore[attr-defined]


def by_retriever(database: Database) -> Ask:
    """A Python service."""
    retriever = Retriever(database, pool_size=1)

    def ask(query: str) -> Answer:
        result = retriever.search(query, K)
        return result.version_key, hits_of(result.hits)

    return ask


def by_http(_database: Database, url: str) -> Ask:
    """A service in any language, which leaves the encoding to `revector serve`."""
    import httpx

    client = httpx.Client(
        base_url=url, headers={"Authorization": f"Bearer {os.environ['SERVE_TOKEN']}"}, timeout=30
    )

    def ask(query: str) -> Answer:
        try:
            answer = client.post("/search", json={"query": query, "k": K})
        except httpx.HTTPError as error:
            raise OSError(str(error)) from error
        if answer.status_code != 200:
            raise ValueError(f"{answer.status_code}: {answer.text}")
        found = answer.json()
        return found["version_key"], [(hit["chunk_id"], round(hit["distance"], 5)) for hit in found["hits"]]

    return ask


def by_functions(database: Database) -> Ask:
    """A service that encodes itself: it asks for the active version only when an answer says that its own no
    longer is."""
    connection = database.connect("test")
    encoders = EncoderCache()
    known: dict[str, Version] = {version.version_key: version for version in versions(connection)}
    active = ""

    def ask(query: str) -> Answer:
        nonlocal active
        if not active:
            (active,) = connection.execute("SELECT version_key FROM active_version()").fetchone()  # type: ignore[misc]
        vector = encoders.encoder(known[active]).encode_query(query)
        rows = connection.execute(
            "SELECT chunk_id, distance, version_key, active FROM search_chunks(%s::vector, %s, %s)",
            [str(vector.tolist()), K, active],
        ).fetchall()
        key = rows[0][2]
        if not rows[0][3]:
            active = ""
        return key, [(row[0], round(row[1], 5)) for row in rows]

    return ask


def say(line: str) -> None:
    """Report to the parent process."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
