"""Makes a run: every query of a set is encoded by the version's encoder and searched in its table, over several
connections.

Encoding, searching and storing overlap. Encoded queries are searched and stored even when something fails
meanwhile, so that a continued run pays for no query twice.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from revector.core.database import Connection, Database, Progress, fetch_one
from revector.core.encoders import Encoder, Parallel, Throttled, check_vectors
from revector.core.errors import EncoderError, RefusedError, RevectorError
from revector.core.evaluation.document import Run
from revector.core.evaluation.judged_sets.query_sets import Query, QuerySet
from revector.core.evaluation.runs.searches import Search, Searches, plan_searches
from revector.core.evaluation.runs.store import (
    QueryHits,
    finish_run,
    latest_run,
    note_seconds,
    start_run,
    store_hits,
    stored_queries,
)
from revector.core.registry import Version, embedded_count, get_version
from revector.core.retrieval import EncoderCache
from revector.core.retrieval.query_text import without_operators
from revector.core.retrieval.statements import no_vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEPTH = 100
"""The default number of chunks that a run keeps for each query: the depth of R@100."""

_SEARCH_TIMEOUT_S = 600
_STORE_QUERIES, _STORE_S = 500, 1.0
"""How many queries, or for how many seconds, results wait to be stored."""
_HAND_OVER_QUERIES, _HAND_OVER_S = 50, 0.25
"""The same for results that a search thread holds: each hand-over wakes another thread."""


_Encoded = tuple[Query, "NDArray[np.float32]", float]
"""A query, its vector (d,), and the milliseconds that encoding took."""


def make_run(
    database: Database,
    query_set: QuerySet,
    version: Version,
    *,
    k: int = DEPTH,
    exact: bool = False,
    ef_search: int | None = None,
    hybrid: bool = False,
    encoders: EncoderCache | None = None,
    on_progress: Progress | None = None,
) -> Run:
    """Search a version for every query of the set and store the top-k; continues such a run that was interrupted.

    `exact` searches without the index. `ef_search` defaults to the version's, and is at least k. `hybrid` searches full
    text too, as users do. One search for each processor runs at once.

    Raises RefusedError for a version without vectors or without an encoder, and when the version or the query set
    is dropped or changed meanwhile; UsageError for settings out of range; UnreachableError for a database or an
    encoder that cannot be reached; EncoderError for an invalid query vector. The queries searched until then are
    kept, and the next call with the same settings does the others.
    """
    searches = plan_searches(version, k=k, exact=exact, ef_search=ef_search, hybrid=hybrid)
    encoder = (encoders or EncoderCache()).encoder(version)
    closing = contextlib.closing(encoder) if encoders is None else contextlib.nullcontext()
    with closing, database.session("evaluate", own_session=True) as connection:
        _check_version(connection, version, encoder)
        run = start_run(
            connection,
            query_set,
            version,
            encoder_revision=encoder.revision,
            k=k,
            exact=exact,
            hybrid=hybrid,
            ef_search=searches.ef_search,
            index_settings=searches.index_settings(connection),
            chunks=embedded_count(connection, version),
        )
        done = stored_queries(connection, run)
        missing = [query for query in query_set.queries if query.id not in done]
        began = time.perf_counter()
        try:
            if missing:
                keeper = _HitWriter(connection, run, len(done), on_progress)
                many = min(os.cpu_count() or 1, len(missing))
                crew = _Crew(database, searches, encoder, missing, many, own_encoder=encoders is None)
                try:
                    crew.work(keeper.keep)
                finally:
                    keeper.store()
        except BaseException:
            with contextlib.suppress(psycopg.Error):
                note_seconds(connection, run, time.perf_counter() - began)
            raise
        return finish_run(connection, run, time.perf_counter() - began)


def stored_or_made_run(
    database: Database,
    query_set: QuerySet,
    version: Version,
    *,
    k: int,
    encoders: EncoderCache | None = None,
    on_progress: Progress | None = None,
) -> Run:
    """The newest run of the version on these queries if the number of vectors is unchanged, else a new run.

    At least k deep. Raises what `make_run` does.
    """
    with database.session("evaluate") as connection:
        found = latest_run(connection, query_set, version, k=k)
        if (
            found is not None
            and found.encoder_revision == version.encoder_revision
            and found.chunks == embedded_count(connection, version)
        ):
            return found
    return make_run(database, query_set, version, k=max(k, DEPTH), encoders=encoders, on_progress=on_progress)


def _check_version(connection: Connection, version: Version, encoder: Encoder) -> None:
    if get_version(connection, version.version_key).id != version.id:
        raise RefusedError(f"Version {version.version_key} was dropped and registered again.", "Evaluate again.")
    if encoder.dimensions != version.dimensions:
        raise EncoderError(
            f"{encoder.name} returns {encoder.dimensions} dimensions; version {version.version_key} has "
            f"{version.dimensions}.",
            "It is not the encoder that made the version's vectors. Check its model and server.",
        )
    try:
        query = sql.SQL("SELECT EXISTS (SELECT FROM {})").format(version.table)
        filled = fetch_one(connection, query)[0]
    except psycopg.errors.UndefinedTable:
        filled = False
    if not filled:
        raise no_vectors(version)


class _HitWriter:
    """Stores the hits, with the documents of the chunks, each looked up once."""

    def __init__(self, connection: Connection, run: Run, done: int, on_progress: Progress | None) -> None:
        self._connection, self._run, self._done, self._on_progress = connection, run, done, on_progress
        self._documents: dict[int, uuid.UUID | None] = {}
        self._waiting: list[QueryHits] = []
        self._stored_at = time.monotonic()
        self._tell()

    def keep(self, found: Sequence[QueryHits]) -> None:
        """Add these hits, and store the waiting ones when it is time."""
        self._waiting.extend(found)
        if len(self._waiting) >= _STORE_QUERIES or time.monotonic() - self._stored_at > _STORE_S:
            self.store()

    def store(self) -> None:
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        wanted = {chunk for found in batch for chunk in found.chunk_ids.tolist()} - self._documents.keys()
        if wanted:
            with self._connection.cursor(binary=True) as cursor:
                cursor.execute("SELECT id, document_id FROM document_chunks WHERE id = ANY(%s)", [list(wanted)])
                self._documents.update(dict.fromkeys(wanted))
                self._documents.update(cursor.fetchall())
        store_hits(self._connection, self._run, (self._hits(found) for found in batch))
        self._done += len(batch)
        self._stored_at = time.monotonic()
        self._tell()

    def _hits(self, found: QueryHits) -> QueryHits:
        import numpy as np

        documents = [self._documents[chunk] for chunk in found.chunk_ids.tolist()]
        # A chunk deleted since the search is not a result.
        here = np.fromiter((document is not None for document in documents), np.bool_, len(documents))
        return replace(
            found,
            chunk_ids=found.chunk_ids[here],
            document_ids=tuple(document for document in documents if document is not None),
            distances=found.distances[here],
        )

    def _tell(self) -> None:
        if self._on_progress:
            self._on_progress(f"searching {self._run.version_key}", self._done, self._run.queries)


class _Crew:
    """Threads that encode (one, or as many as the encoder can use) and threads that search, each on a connection."""

    def __init__(
        self,
        database: Database,
        searches: Searches,
        encoder: Encoder,
        queries: Sequence[Query],
        connections: int,
        *,
        own_encoder: bool,
    ) -> None:
        self._database, self._searches, self._encoder = database, searches, encoder
        self._queries = iter(queries)
        self._connections = connections
        self._searching = connections
        self._encoding = min(encoder.parallel, len(queries)) if isinstance(encoder, Parallel) else 1
        # A short queue: encoded queries have been paid for. None marks the end.
        self._encoded: queue.Queue[_Encoded | None] = queue.Queue(4 * connections)
        self._found: queue.SimpleQueue[list[QueryHits] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stop = threading.Event()  # nothing more is encoded
        self._abort = threading.Event()  # nothing more is searched
        self._error: BaseException | None = None
        self._sessions: list[Connection] = []
        if own_encoder and isinstance(encoder, Throttled):
            encoder.wait = self._wait

    def work(self, keep: Callable[[Sequence[QueryHits]], None]) -> None:
        """Run all threads; `keep` gets the hits, in this thread. Raises the first error after the rest is
        stored."""
        jobs = [self._search] * self._searching + [self._encode] * self._encoding
        threads = [threading.Thread(target=job, name="revector evaluate", daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        try:
            for _ in range(self._connections):
                while (found := self._found.get()) is not None:
                    keep(found)
        except BaseException:
            self._interrupt(threads)
            raise
        for thread in threads:
            thread.join()
        if self._error is not None:
            raise self._error

    def _encode(self) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:
                    query = next(self._queries, None)
                if query is None:
                    break
                began = time.perf_counter()
                vector = self._vector(query)
                self._encoded.put((query, vector, 1000 * (time.perf_counter() - began)))
        except BaseException as error:  # noqa: BLE001  (raised in the thread that asked for the run)
            self._fail(error)
        finally:
            with self._lock:
                self._encoding -= 1
                last = self._encoding == 0
            if last:
                self._encoded.put(None)

    def _vector(self, query: Query) -> NDArray[np.float32]:
        try:
            text = query.text.strip()
            vector = self._encoder.encode_query(without_operators(text) if self._searches.hybrid else text)
            check_vectors(vector[None], 1, self._searches.version.dimensions)
        except EncoderError as error:
            raise EncoderError(f"Query {query.id!r}: {error.problem}", error.remedy) from None
        except RevectorError:
            raise
        except Exception as error:
            raise EncoderError(
                f"Query {query.id!r}: {self._encoder.name} failed with {type(error).__name__}: {error}",
                "Finished searches are kept: evaluate again to continue.",
            ) from error
        return vector

    def _search(self) -> None:
        sound = False
        try:
            with self._database.session(
                "evaluate", statement_timeout_s=_SEARCH_TIMEOUT_S, own_session=True
            ) as connection:
                with self._lock:
                    self._sessions.append(connection)
                try:
                    self._search_all(self._searches.prepare(connection, self._connections))
                except psycopg.errors.UndefinedTable:
                    version = self._searches.version.version_key
                    raise RefusedError(f"Version {version} was dropped during the search.") from None
            sound = True
        except BaseException as error:  # noqa: BLE001  (raised in the thread that asked for the run)
            self._fail(error)
        finally:
            with self._lock:
                self._searching -= 1
                last = self._searching == 0
            if sound:
                self._encoded.put(None)  # for the next one
            elif last:
                # Nothing reads the queue any more: an encoding thread must not block on it forever.
                while self._encoded.get() is not None:
                    pass
            self._found.put(None)

    def _search_all(self, search: Search) -> None:
        mine: list[QueryHits] = []
        handed = time.monotonic()
        try:
            while (encoded := self._encoded.get()) is not None:
                if self._abort.is_set():
                    continue
                began = time.perf_counter()
                query, vector, encode_ms = encoded
                ids, distances = search(vector, query.text.strip())
                took = 1000 * (time.perf_counter() - began)
                mine.append(QueryHits(query.id, ids, (), distances, encode_ms, took))
                if len(mine) >= _HAND_OVER_QUERIES or time.monotonic() - handed > _HAND_OVER_S:
                    self._found.put(mine)
                    mine, handed = [], time.monotonic()
        finally:
            self._found.put(mine)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error
        self._stop.set()

    def _interrupt(self, threads: Sequence[threading.Thread]) -> None:
        """Stop all threads, and cancel their running searches."""
        self._stop.set()
        self._abort.set()
        while any(thread.is_alive() for thread in threads):
            with self._lock:
                sessions = list(self._sessions)
            for session in sessions:
                with contextlib.suppress(psycopg.Error):
                    session.cancel_safe(timeout=5)
            for thread in threads:
                thread.join(0.2)

    def _wait(self, seconds: float) -> None:
        """Wait for the encoder, but end with the run."""
        if self._stop.wait(seconds):
            raise RefusedError("The run was stopped while the encoder was waiting.")
