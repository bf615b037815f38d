"""How fast a backfill would run: reads, encodes and writes some real chunks, and measures the time.

Nothing is kept: vectors go into a temporary table whose transaction is rolled back. The cost is bounded, and known
before the first text is sent.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import psycopg
from psycopg import sql

from revector.core.backfill.plan.sample import Demand, Estimate, reading
from revector.core.database import Connection, fetch_one
from revector.core.encoders import Throttled, find_bad_rows
from revector.core.encoders import probe as probe_dimensions
from revector.core.errors import EncoderError, RevectorError, UnreachableError
from revector.core.loader import copy_vectors
from revector.core.registry import PLAIN_DIMENSIONS, Version

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from revector.core.encoders import Encoder

PROBE_TEXTS = 1_536
MOST_USD = 0.01
MOST_TOKENS = 100_000
"""Used when the price is unknown: 1.3 cents at the price of OpenAI's most expensive model."""

_ROUNDS = 5
_FEWEST_ROUNDS = 3
_WARM_UP = 16
_ENOUGH_S = 10.0
"""After this long, three rounds are enough, and no round should take longer."""
_LONGEST_WAIT_S = 30.0
_WRITTEN_ROWS, _WRITTEN_BYTES = 2_048, 32_000_000

_DURABLE = 2.0
"""A table with WAL and commits against a temporary one, batches of 256 (rows a second, medians of five): 65,000 and
126,000 at 64 dimensions, 24,000 and 68,000 at 384, 7,700 and 10,100 at 1,536."""

_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Student's t at 95 % for so many degrees of freedom."""


@dataclass(frozen=True)
class Offer:
    """The most that the probe would send: texts, tokens, and their price (None when unknown)."""

    texts: int
    batch_size: int
    rounds: int
    tokens: int
    cost_usd: float | None


@dataclass(frozen=True)
class Probe:
    """What was measured. Rates are chunks a second of one worker, None where nothing could be measured.

    `parallel` is how many batches that worker had under way at once, `cores` how many cores it kept busy here.
    `error` is the encoder's error when it could not be used, `refused` its error for batches; `bad` are the
    reasons why some of the `vectors` returned could not be stored.
    """

    texts: Annotated[int, "that were encoded"]
    tokens: Annotated[int, "in them"]
    cost_usd: Annotated[float | None, "of that; null when nobody said"]
    batch_size: Annotated[int, "texts at a time"]
    parallel: Annotated[int, "batches under way at once"]
    encode: Annotated[Estimate | None, "chunks a second that one worker encodes"]
    read: Annotated[float | None, "chunks a second that it reads"]
    write: Annotated[float | None, "chunks a second that it stores"]
    cores: Annotated[float, "that it kept busy here"]
    vectors: int
    bad: tuple[str, ...]
    refused: tuple[str, ...]
    waited_s: float
    error: RevectorError | None = None

    @classmethod
    def failed(cls, error: RevectorError) -> Probe:
        """The probe of an encoder that could not be used at all."""
        return cls(0, 0, None, 0, 1, None, None, None, 0.0, 0, (), (), 0.0, error)


def make_offer(demand: Demand, encoder: Encoder, *, batch_size: int, texts: int = PROBE_TEXTS) -> Offer:
    """The size of the probe: at most `texts`, fewer where they cost money, in rounds of whole batches.

    Sends tokens for at most MOST_USD, or MOST_TOKENS when the price is unknown, and never more than a tenth of the
    chunks, so that a small backfill does not cost more than it must.
    """
    usable = _usable(demand, encoder)
    per_text = max(1.0, sum(len(text) for text in usable) / max(1, len(usable)))
    if usable and demand.tokens is not None:
        per_text = max(1.0, encoder.count_tokens(usable) / len(usable))
    price = encoder.price
    budget = math.inf if price == 0 else MOST_TOKENS if price is None else MOST_USD * 1e6 / price
    fair = max(64, 4 * demand.to_encode.estimate) if price == 0 else max(6, demand.to_encode.estimate / 10)
    most = int(min(texts, fair, budget / per_text)) if usable else 0
    parallel = _parallel(encoder)
    # The warm-up is paid for too, with as many texts as a batch at most.
    size = max(1, min(batch_size, most // (parallel * _ROUNDS + 1)))
    rounds = max(0, min(_ROUNDS, (most - min(size, _WARM_UP)) // (parallel * size)))
    sent = rounds * parallel * size + (min(size, _WARM_UP) if rounds else 0)
    tokens = math.ceil(sent * per_text)
    return Offer(sent, size, rounds, tokens, None if price is None else tokens * price / 1e6)


def run_probe(
    connection: Connection,
    version: Version,
    encoder: Encoder,
    demand: Demand,
    offer: Offer,
    *,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Probe:
    """Get the encoder's real dimensions, then measure. Encoder errors are in the result, not raised."""
    waits = _Waits()
    with waits.watch(encoder):
        try:
            real = probe_dimensions(encoder)
        except RevectorError as error:
            return Probe.failed(error)
        if real != version.dimensions:
            problem = f"The encoder {encoder.name} returns {real} dimensions; version {version.version_key} has "
            return Probe.failed(EncoderError(f"{problem}{version.dimensions}.", "Register a version for it."))
        measured = _Encoding(encoder, _usable(demand, encoder), offer, on_progress)
        gave_up = measured.run()
    import numpy as np

    vectors = np.concatenate(measured.vectors) if measured.vectors else np.empty((0, real), np.float32)
    bad, stored = _storable(version, vectors)
    return Probe(
        texts=measured.sent,
        tokens=measured.tokens,
        cost_usd=None if encoder.price is None else measured.tokens * encoder.price / 1e6,
        batch_size=measured.size,
        parallel=_parallel(encoder),
        encode=spread(measured.rates),
        read=_read_rate(connection, demand, measured.size),
        write=_write_rate(connection, version, stored, measured.size),
        cores=measured.cores,
        vectors=len(vectors),
        bad=bad,
        refused=tuple(measured.refused),
        waited_s=waits.seconds,
        error=gave_up,
    )


def spread(rates: Sequence[float]) -> Estimate | None:
    """The mean of measured rates with its 95 % interval; None without any.

    Student's t on their logarithms (a rate is above 0, and slower rounds weigh as much as faster ones); with a
    single round, half and twice the rate.
    """
    if not rates:
        return None
    logs = [math.log(rate) for rate in rates]
    middle = statistics.fmean(logs)
    if len(rates) == 1:
        margin = math.log(2)
    else:
        freedom = len(rates) - 1
        margin = _T.get(freedom, 2.776) * statistics.stdev(logs) / math.sqrt(len(rates))
    return Estimate(math.exp(middle), math.exp(middle - margin), math.exp(middle + margin))


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _parallel(encoder: Encoder) -> int:
    """How many calls at once a worker makes of this encoder."""
    return max(1, int(getattr(encoder, "parallel", 1)))


def _usable(demand: Demand, encoder: Encoder) -> list[str]:
    """Texts to measure with. A service refuses a whole batch for one text that is too long."""
    too_long = {chunk_id for chunk_id, _ in demand.too_long}
    if encoder.price == 0 or not too_long or demand.max_tokens is None:
        return list(demand.texts)
    return [text for text in demand.texts if encoder.count_tokens([text]) < demand.max_tokens]


class _Waits:
    """Lets a provider throttle the probe for a while, and ends the probe when it takes too long."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextlib.contextmanager
    def watch(self, encoder: Encoder) -> Iterator[None]:
        if not isinstance(encoder, Throttled):
            yield
            return
        said, before, why = encoder.on_throttle, encoder.wait, ""

        def on_throttle(seconds: float, reason: str) -> None:
            nonlocal why
            why = reason
            said(seconds, reason)

        def wait(seconds: float) -> None:
            self.seconds += seconds
            if self.seconds > _LONGEST_WAIT_S:
                raise UnreachableError(
                    f"{encoder.name} made the probe wait longer than {_LONGEST_WAIT_S:.0f} s: {why}",
                    "Try again later, or skip the probe: --no-probe.",
                )
            before(seconds)

        encoder.on_throttle, encoder.wait = on_throttle, wait
        try:
            yield
        finally:
            encoder.on_throttle, encoder.wait = said, before


class _Encoding:
    """The measured rounds of encoding: `parallel` batches at once, as one worker has them under way."""

    def __init__(
        self,
        encoder: Encoder,
        texts: list[str],
        offer: Offer,
        on_progress: Callable[[str, int, int], None] | None,
    ) -> None:
        self._encoder, self._offer, self._on_progress = encoder, offer, on_progress
        self._parallel = _parallel(encoder)
        random.shuffle(texts)
        self._texts = itertools.cycle(texts)
        self.size = offer.batch_size
        self.rates: list[float] = []
        self.vectors: list[NDArray[np.float32]] = []
        self.refused: list[str] = []
        self.sent, self.tokens = 0, 0
        self._busy_s, self._wall_s = 0.0, 0.0

    @property
    def cores(self) -> float:
        """Cores that this process kept busy while it encoded."""
        return self._busy_s / self._wall_s if self._wall_s else 0.0

    def run(self) -> RevectorError | None:
        """Measure; returns the encoder's error when it gave up."""
        offer = self._offer
        if not offer.rounds:
            return None
        try:
            with ThreadPoolExecutor(self._parallel, thread_name_prefix="probe") as pool:
                warm = self._round(pool, 1, min(self.size, _WARM_UP))
                if warm:
                    self.size = max(1, min(self.size, int(_ENOUGH_S * warm)))
                started = time.perf_counter()
                for number in range(offer.rounds):
                    if number >= _FEWEST_ROUNDS and time.perf_counter() - started > _ENOUGH_S:
                        break
                    if self._on_progress:
                        self._on_progress("measuring the encoder", number, offer.rounds)
                    rate = self._round(pool, self._parallel, self.size)
                    if rate:
                        self.rates.append(rate)
        except RevectorError as error:
            return error
        return None

    def _round(self, pool: ThreadPoolExecutor, batches: int, size: int) -> float | None:
        """Chunks a second for that many concurrent batches, None when one was refused."""
        whole = [list(itertools.islice(self._texts, size)) for _ in range(batches)]
        for texts in whole:
            self.sent += len(texts)
            self.tokens += self._encoder.count_tokens(texts)
        started, busy = time.perf_counter(), time.process_time()
        answers = list(pool.map(self._encode, whole))
        took = time.perf_counter() - started
        self._busy_s += time.process_time() - busy
        self._wall_s += took
        good = [vectors for vectors in answers if vectors is not None]
        self.vectors += good
        return batches * size / took if len(good) == batches else None

    def _encode(self, texts: list[str]) -> NDArray[np.float32] | None:
        try:
            return self._encoder.encode_documents(texts)
        except EncoderError as error:
            self.refused.append(error.problem)
            return None


def _storable(version: Version, vectors: NDArray[np.float32]) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    """The reasons why some vectors could not be stored, and the other vectors."""
    import numpy as np

    reasons = dict(find_bad_rows(vectors))
    if version.storage == "halfvec":
        with np.errstate(all="ignore"):
            half = vectors.astype(np.float16)
        for row in np.flatnonzero(np.isinf(half).any(axis=1) | ~half.any(axis=1)).tolist():
            over = bool(np.isinf(half[row]).any())
            reasons.setdefault(row, "has a number beyond the 65,504 of halfvec" if over else "is zero in halfvec")
    keep = np.ones(len(vectors), bool)
    keep[list(reasons)] = False
    return tuple(reasons.values()), vectors[keep]


def _read_rate(connection: Connection, demand: Demand, size: int) -> float | None:
    """Chunks a second for reading batches in id order, from random positions."""
    if not demand.ids:
        return None
    read, took = 0, 0.0
    with reading(connection):
        for first in random.sample(demand.ids, min(_FEWEST_ROUNDS, len(demand.ids))):
            started = time.perf_counter()
            rows = connection.execute(
                "SELECT id, content, content_sha256 FROM document_chunks WHERE id >= %s ORDER BY id LIMIT %s",
                [first, size],
            ).fetchall()
            took += time.perf_counter() - started
            read += len(rows)
    return read / took if took > 0 and read else None


def _write_rate(connection: Connection, version: Version, vectors: NDArray[np.float32], size: int) -> float | None:
    """Chunks a second for COPY into a temporary table like the version's, rolled back; None where it is not
    possible.

    A temporary table writes no WAL and does not commit each batch, so the rate is halved.
    """
    import numpy as np

    (allowed,) = fetch_one(
        connection,
        """
        SELECT NOT current_setting('transaction_read_only')::bool
               AND has_database_privilege(current_database(), 'TEMP')
        """,
    )
    if not allowed or not len(vectors):
        return None
    count = max(size, min(_WRITTEN_ROWS, _WRITTEN_BYTES // (4 * version.dimensions)))
    rows = np.resize(vectors, (count, version.dimensions))
    ids = np.arange(len(rows), dtype=np.int64)
    table = replace(version, id=0)  # no version has this name, and temporary tables come first on the search path
    plain = version.dimensions <= PLAIN_DIMENSIONS[version.storage]
    took = 0.0
    try:
        with connection.transaction(force_rollback=True), reading(connection):
            connection.execute(
                sql.SQL(
                    "CREATE TEMP TABLE {} (chunk_id bigint PRIMARY KEY, embedding {}({}) STORAGE {} NOT NULL)"
                ).format(
                    table.table,
                    sql.Identifier(version.storage),
                    sql.Literal(version.dimensions),
                    sql.SQL("PLAIN" if plain else "EXTERNAL"),
                )
            )
            for start in range(0, len(rows), size):
                part = slice(start, start + size)
                started = time.perf_counter()
                copy_vectors(connection, table, ids[part], rows[part])
                took += time.perf_counter() - started
    except (psycopg.errors.QueryCanceled, psycopg.errors.DiskFull):
        return None
    return len(rows) / took / _DURABLE if took > 0 else None
