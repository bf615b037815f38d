"""Encodes queries: the encoder of each version, opened once, and a cache of query vectors."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

from revector.core import forks
from revector.core.errors import RefusedError, UsageError
from revector.core.hosts import require_allowed
from revector.core.registry import Version

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from revector.core.encoders import Encoder

K = TypeVar("K")
T = TypeVar("T")


class Openings(Generic[K, T]):
    """What is being opened: each by one thread, and all who ask for it wait for that one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: dict[K, Future[T]] = {}

    def begin(self, key: K, work: Callable[[], T]) -> Future[T]:
        """Open what has that key, unless somebody does so already."""

        def open_it() -> None:
            try:
                answer = work()
            except BaseException as error:  # noqa: BLE001  (raised by those who wait)
                self._over(key)
                future.set_exception(error)
            else:
                self._over(key)
                future.set_result(answer)

        with self._lock:
            future = self._futures.get(key, Future())
            if key not in self._futures:
                threading.Thread(target=open_it, name="revector-open", daemon=True).start()
                self._futures[key] = future
        return future

    def _over(self, key: K) -> None:
        with self._lock:
            self._futures.pop(key, None)


class EncoderCache:
    """Opens the encoder of a version once and keeps it; safe to share between threads.

    A forked child keeps the models that run in this process, and opens the others again: a client's connections
    are the parent's.
    """

    def __init__(self, open_encoder: Callable[[str], Encoder] | None = None) -> None:
        self._open = open_encoder
        self._lock = threading.Lock()
        self._encoders: dict[int, Encoder] = {}
        self._opening: dict[int, threading.Lock] = {}
        self._openings: Openings[int, Encoder] = Openings()
        forks.tell(self)

    def forked(self) -> None:
        """Leave the clients to the parent: see revector.core.forks."""
        self._lock, self._opening, self._openings = threading.Lock(), {}, Openings()
        self._encoders = {version: one for version, one in self._encoders.items() if runs_here(one)}

    def encoder(self, version: Version) -> Encoder:
        """The encoder that made the version's vectors.

        Raises RefusedError for a version that names none, or whose host or key the owner has not allowed;
        UnreachableError when it cannot be opened.
        """
        with forks.unforked():  # each of these may import
            require_allowed(version.encoder_spec, version.encoder_hosts)
            found = self._encoders.get(version.id)
            if found is not None:
                return found
            with self._lock:
                opening = self._opening.setdefault(version.id, threading.Lock())
            # One lock for each version: a model that takes seconds to open must not hold up the active version.
            with opening:
                if version.id not in self._encoders:
                    self._encoders[version.id] = open_version_encoder(version, self._open)
                return self._encoders[version.id]

    def opening(self, version: Version) -> Future[Encoder]:
        """The encoder as soon as a thread has opened it; the errors are those of `encoder`."""
        return self._openings.begin(version.id, lambda: self.encoder(version))

    def opened(self, version: Version) -> Encoder | None:
        """The encoder if it has been opened already."""
        return self._encoders.get(version.id)


def runs_here(encoder: Encoder) -> bool:
    """Whether it computes in this process: then it asks nobody, and takes a moment."""
    return bool(getattr(encoder, "runs_here", False))


def open_version_encoder(version: Version, opener: Callable[[str], Encoder] | None = None) -> Encoder:
    """Open the encoder that a version was registered with.

    Raises RefusedError when it names none, or a host or key that the owner has not allowed.
    """
    if not version.encoder_spec:
        raise RefusedError(
            f"Version {version.version_key} has no encoder that revector can open.",
            f"Give it one: revector versions adopt {version.version_key} --encoder SPEC",
        )
    require_allowed(version.encoder_spec, version.encoder_hosts)
    from revector.core.encoders import open_encoder, spec_at

    return (opener or open_encoder)(spec_at(version.encoder_spec, version.encoder_revision))


def encode_for_user(encoder: Encoder, text: str) -> NDArray[np.float32]:
    """A query's vector (d,), for somebody who waits: an encoder that knows how says soon that it cannot answer.

    Raises what the encoder raises.
    """
    soon: Callable[[str], NDArray[np.float32]] = getattr(encoder, "encode_query_soon", encoder.encode_query)
    return soon(text)


class QueryCache:
    """A cache of query vectors by version and text; beyond `size`, the least recently used is dropped.

    A version never changes its encoder, and its id is never reused, so cached vectors never become stale.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._vectors: OrderedDict[tuple[int, str], NDArray[np.float32]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, version_id: int, text: str) -> NDArray[np.float32] | None:
        """The cached vector (d,), or None. It is shared: do not write to it."""
        key = (version_id, text)
        with self._lock:
            found = self._vectors.get(key)
            if found is not None:
                self._vectors.move_to_end(key)
            return found

    def put(self, version_id: int, text: str, vector: NDArray[np.float32]) -> None:
        """Cache a vector (d,)."""
        if self._size < 1:
            return
        with self._lock:
            self._vectors[version_id, text] = vector
            self._vectors.move_to_end((version_id, text))
            if len(self._vectors) > self._size:
                self._vectors.popitem(last=False)


def check_query(text: str) -> str:
    """A query without NUL bytes and lone surrogates, which Postgres cannot take; raises UsageError when empty."""
    if not isinstance(text, str):
        raise UsageError(f"The query is {type(text).__name__}; expected text.")
    clean = text.replace("\0", "").encode("utf-8", "ignore").decode("utf-8").strip()
    if not clean:
        raise UsageError("The query is empty.", "Type some text to search for.")
    return clean


def check_queries(texts: Iterable[str]) -> list[str]:
    """Queries as `check_query` leaves them; raises UsageError for one that it refuses, and for a single text."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise UsageError(
            f"The queries are {type(texts).__name__}; expected a list of texts.",
            "For one query there is search().",
        )
    return [check_query(text) for text in texts]
