"""A search as steps: its statements and its work, to be executed by a blocking or an asynchronous retriever.

Each search is a generator. It yields Statement and Work, is sent their results, and returns the search's result.
So the rules of a search are written once, and Retriever and AsyncRetriever differ only in how they wait.

**One version.** The search's statement reads the active version in its own snapshot. When the query was encoded
for another one, the answer is dropped and the query encoded for the new version. The pointer's version only saves
a round trip; it never decides.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import psycopg

from revector.core.errors import (
    EncoderError,
    EncoderUnreachableError,
    NotFoundError,
    NotReadyError,
    RefusedError,
    RevectorError,
    UnreachableError,
    UsageError,
)
from revector.core.registry import Version, no_active_version
from revector.core.retrieval import statements
from revector.core.retrieval.counts import Counter
from revector.core.retrieval.encoding import EncoderCache, QueryCache, encode_for_user, runs_here
from revector.core.retrieval.options import SearchOptions
from revector.core.retrieval.pointer import ACTIVE_VERSION, NAMED_VERSION, Pointer, pinned_to_nothing
from revector.core.retrieval.query_text import without_operators
from revector.core.retrieval.rerank import Rerankers, reranked, reranked_depth
from revector.core.retrieval.result import Hit, SearchResult
from revector.core.secrets import scrub

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from revector.core.cross_encoders import PairModel
    from revector.core.encoders import Encoder

_MOST_STATEMENTS = 1_000


@dataclass(frozen=True)
class Statement:
    """A statement to run; its rows are sent back. `settings` are the session's."""

    query: bytes
    params: Mapping[str, Any] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    prepare: bool | None = None


@dataclass(frozen=True)
class Work:
    """Slow work that needs no connection; `quick` if it only computes for a moment in this process."""

    do: Callable[[], Any]
    about: str
    quick: bool = False
    trouble: Callable[[], str] = lambda: ""
    """Why it has not been answered so far, if it knows."""


@dataclass(frozen=True)
class Opening:
    """A model to wait for: it is opened by a thread of its own, whatever becomes of this search."""

    begin: Callable[[], Future[Any]]
    about: str


T = TypeVar("T")
Step: TypeAlias = Statement | Work | Opening
Steps: TypeAlias = Generator[Step, Any, T]

_BARRED = b"""
SELECT session_user::text FROM pg_namespace WHERE nspname = %(schema)s AND NOT has_schema_privilege(oid, 'USAGE')
"""
"""The session's role if it may not even use the schema, whose tables it then does not see."""


class SearchSteps:
    """Creates the steps of searches; shared by all threads or tasks of a retriever."""

    def __init__(self, pointer: Pointer, encoders: EncoderCache, cache: QueryCache, counter: Counter) -> None:
        self.pointer = pointer
        self._encoders = encoders
        self._cache = cache
        self._counter = counter
        self._rerankers = Rerankers()
        self._named: dict[str, Version] = {}
        self._statements: dict[tuple[int, int, bool, bool, bool], bytes] = {}

    def search(self, text: str, options: SearchOptions) -> Steps[SearchResult]:
        """The steps of a search by the served version. An unknown reranker is refused at once."""
        if options.rerank is not None:
            self._rerankers.check(options.rerank)
        return self._search(text, options, options.rerank)

    def _search(self, text: str, options: SearchOptions, rerank: str | None) -> Steps[SearchResult]:
        version = self.pointer.version
        started = time.perf_counter()
        # Opened first: that a caller's reranker cannot be says nothing of the version.
        reranker = None if rerank is None else (yield from self._reranker(rerank))
        try:
            if version is None:
                version = yield from self._load()
            deep = (options if rerank is None else replace(options, k=reranked_depth(options.k))).of(text)
            spoken = without_operators(text) if options.hybrid else text
            while True:
                begun = time.perf_counter()
                vector = self._cache.get(version.id, spoken)
                cached = vector is not None
                if vector is None:
                    vector = yield from self._encode(version, spoken)
                encoded = time.perf_counter()
                try:
                    hits, active = yield from self._run(version, vector, deep, text)
                    served = self.pointer.pinned or active == version.id
                    if served and not hits:
                        yield from self._require_vectors(version)
                except psycopg.errors.UndefinedTable as error:
                    if version.table_name not in str(error):
                        raise
                    # Dropped meanwhile; another version may be served now.
                    before, version = version, (yield from self._load())
                    if version.id == before.id:
                        raise statements.no_vectors(version, pinned=bool(self.pointer.pinned)) from None
                    continue
                searched = time.perf_counter()
                if served:
                    break
                version = yield from self._load()
            rerank_s = 0.0
            if reranker is not None:
                hits = yield Work(lambda: reranked(reranker, spoken, hits, options.k), "The reranker")
                rerank_s = time.perf_counter() - searched
        except (NotReadyError, UsageError):
            # A process that has only begun, or a caller's mistake, says nothing of the version. An encoder's own
            # usage errors are no caller's, and have become encoder errors.
            raise
        except Exception:
            if version is not None:
                self._failed(version)
            raise
        self._counter.count(version.id, time.perf_counter() - started, empty=not hits, cached=cached)
        return SearchResult(
            text, version.version_key, hits, encoded - begun, searched - encoded, active == version.id,
            options.k, options.hybrid, options.where, rerank, rerank_s,
        )  # fmt: skip

    def ready(self, rerank: str | None) -> Steps[Version]:
        """The steps that open what the first search by the served version needs."""
        if rerank is not None:
            self._rerankers.check(rerank)
        version = yield from self._load()
        yield from self._encoder(version)
        if rerank is not None:
            yield from self._reranker(rerank)
        try:
            yield from self._require_vectors(version)
        except psycopg.errors.UndefinedTable:
            raise statements.no_vectors(version, pinned=bool(self.pointer.pinned)) from None
        return version

    def search_vector(self, vector: object, key: str, options: SearchOptions) -> Steps[SearchResult]:
        """The steps of a search by a vector that was encoded for the version of that key."""
        started = time.perf_counter()
        if not (isinstance(key, str) and key and key.isprintable()):
            raise _no_version(key)
        version = self._named.get(key)
        fresh = version is None
        while True:
            if version is None:
                version = yield from self._load(key)
                self._named[key] = version
            asked = statements.given_vector(version, vector)
            begun = time.perf_counter()
            try:
                hits, active = yield from self._run(version, asked, options, "")
                if not hits:
                    yield from self._require_vectors(version, named=True)
                break
            except psycopg.errors.UndefinedTable as error:
                if version.table_name not in str(error):
                    raise
                # The key may have been given to another version since it was read.
                self._named.pop(key, None)
                if fresh:
                    raise statements.no_vectors(version) from None
                version, fresh = None, True
            except UsageError:
                raise
            except Exception:
                self._failed(version)
                raise
        ended = time.perf_counter()
        self._counter.count(version.id, ended - started, empty=not hits)
        return SearchResult(
            "", version.version_key, hits, 0.0, ended - begun, active == version.id, options.k, where=options.where
        )

    def _failed(self, version: Version) -> None:
        """Count an error, and write the counts soon: a watch may have to roll back."""
        first = not self._counter.failing
        self._counter.count(version.id, 0.0, error=True)
        if first:
            self.pointer.look()

    def _load(self, key: str | None = None) -> Generator[Step, Any, Version]:
        """Load the version with that key, or the one to serve."""
        wanted = key or self.pointer.pinned
        try:
            rows = yield Statement(NAMED_VERSION if wanted else ACTIVE_VERSION, {"key": wanted} if wanted else {})
        except psycopg.errors.UndefinedTable:
            schema = self.pointer.schema
            barred = yield Statement(_BARRED, {"schema": schema})
            if barred:
                raise RefusedError(
                    f"The role {barred[0][0]} has no right in the schema {schema!r}.",
                    f"Its owner gives one: revector --schema {schema} db grant {barred[0][0]} application",
                ) from None
            raise UnreachableError(
                f"The schema {schema!r} has not been set up.", f"Set it up: revector --schema {schema} db upgrade"
            ) from None
        if not rows and key:
            raise _no_version(key)
        if not rows and wanted:
            raise pinned_to_nothing(wanted)
        if not rows:
            raise no_active_version()
        version = Version(*rows[0])
        if key is None:
            self.pointer.follow(version)
        return version

    def _encode(self, version: Version, text: str) -> Generator[Step, Any, NDArray[np.float32]]:
        about = f"The encoder of {version.version_key}"
        encoder = yield from self._encoder(version)
        with _encoder_errors(version):
            answer: object = yield Work(
                lambda: encode_for_user(encoder, text),
                about,
                runs_here(encoder),
                lambda: str(getattr(encoder, "trouble", "")),
            )
        vector = statements.encoded_vector(version, answer)
        self._cache.put(version.id, text, vector)
        return vector

    def _encoder(self, version: Version) -> Generator[Step, Any, Encoder]:
        found = self._encoders.opened(version)
        if found is None:
            about = f"The encoder of {version.version_key}"
            with _encoder_errors(version):
                found = yield Opening(lambda: self._encoders.opening(version), about)
        return found

    def _reranker(self, spec: str) -> Generator[Step, Any, PairModel]:
        model: PairModel = yield Opening(lambda: self._rerankers.opening(spec), "The reranker")
        return model

    def _run(
        self, version: Version, vector: NDArray[np.float32], options: SearchOptions, text: str
    ) -> Generator[Step, Any, tuple[tuple[Hit, ...], int | None]]:
        with statements.readable_filter():
            rows = yield Statement(
                self._statement(version, options),
                statements.parameters(vector, options, text),
                statements.session_settings(version, options),
                False if options.filtered else None,  # filters vary widely in frequency: plan each time
            )
        return statements.read_rows(rows)

    def _require_vectors(self, version: Version, *, named: bool = False) -> Generator[Step, Any, None]:
        """Raise RefusedError when a search found nothing because its version is empty."""
        rows = yield Statement(statements.has_vectors(version).as_bytes(None))
        if not rows[0][0]:
            raise statements.no_vectors(version, pinned=bool(self.pointer.pinned) and not named)

    def _statement(self, version: Version, options: SearchOptions) -> bytes:
        key = (version.id, options.k, options.hybrid, options.filter is not None, options.excludes)
        found = self._statements.get(key)
        if found is None:
            if len(self._statements) >= _MOST_STATEMENTS:
                self._statements.clear()
            found = self._statements[key] = statements.search_statement(version, options).as_bytes(None)
        return found


def _no_version(key: str) -> NotFoundError:
    return NotFoundError(f"There is no embedding version {key!r}.", "Look: revector versions list")


@contextlib.contextmanager
def _encoder_errors(version: Version) -> Iterator[None]:
    """Turn what opening or asking an encoder raises into an error of the encoder: no user asked for it."""
    try:
        yield
    except NotReadyError:
        raise
    except (UnreachableError, UsageError) as error:
        temporary = isinstance(error, UnreachableError) and error.temporary
        raise EncoderUnreachableError(error.problem, error.remedy, temporary=temporary) from None
    except RevectorError:
        raise
    except Exception as error:
        raise EncoderError(
            f"The encoder of {version.version_key} failed with {type(error).__name__}: {scrub(str(error))}",
            "Check that encoder.",
        ) from error
