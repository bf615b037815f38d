"""The guard on the index's recall: the share of the exact nearest chunks that searches by it find."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import psycopg

from revector.core.cutover.guard import Found, GuardRule, Subject, fails, passes, unsure
from revector.core.index.warming import stored_vectors
from revector.core.retrieval import MAX_EF_SEARCH, ef_search_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    Drawn = Sequence[tuple[int, NDArray[np.float32]]]
    Distances = NDArray[np.float64]

_ROUNDING = 1e-6
"""pgvector sums in single precision, so equal distances may come out slightly different."""
_Z = 1.959964
_K = 10
_FIRST_QUERIES = 40
"""Enough to pass when all is found and 0.9 required."""
_REMEDY_QUERIES = 160
_LEAST_QUERIES = 5
"""Fewer searches say too little about an index."""


def _recall(subject: Subject) -> Found:
    """For random stored vectors: the top 10 of a user's search, without the vector itself, against those of an
    exact scan. A chunk as near as the last exact hit counts as found.

    Makes more searches, twice as many each time, as long as the interval straddles what is required, up to the
    policy's number and time. The queries depend on the version and its rows alone, so the verdict is repeatable.
    """
    from pgvector import Vector

    connection, version, policy = subject.connection, subject.version, subject.policy
    stored = stored_vectors(connection, version, policy.recall_queries, seed=version.version_key)
    drawn = [(chunk_id, Vector.from_text(text).to_numpy()) for chunk_id, text in stored.vectors.items()]
    rows = stored.rows
    if stored.whole and rows < 2:
        return passes("fewer than two vectors: nothing to find")
    if not stored.has(_LEAST_QUERIES):
        return unsure(f"only {len(drawn)} of {stored.of} stored vectors could be drawn", "VACUUM FULL its table.")
    began, wanted = time.monotonic(), min(_FIRST_QUERIES, len(drawn))
    until = began + policy.recall_timeout_s
    exact: list[Distances] = []
    shares: list[float] = []
    while True:
        exact += _searched(subject, drawn[len(exact) : wanted], exact=True, until=until)
        shares += _shares(exact[len(shares) :], _searched(subject, drawn[len(shares) : len(exact)]))
        low, high = _interval(shares, rows)
        if low >= policy.min_recall or high < policy.min_recall or len(exact) < wanted or wanted == len(drawn):
            break
        wanted = min(2 * wanted, len(drawn))
    seconds = time.monotonic() - began
    if len(shares) < min(_LEAST_QUERIES, len(drawn)):
        return unsure(
            f"only {len(shares)} of {len(drawn)} searches could be compared with scanning all {stored.of} vectors in "
            f"{policy.recall_timeout_s:g} s",
            "Give it more time: revector cutover policy recall_timeout_s=600",
        )
    of = f"all {rows:,}" if len(shares) >= rows else f"{len(shares)} of {stored.of}"
    detail = (
        f"{sum(shares) / len(shares):.3f} of what an exact scan finds, 95% interval {low:.3f} to {high:.3f} (at least "
        f"{policy.min_recall:g} required, worst {min(shares):.2f}), over {of} stored vectors, {seconds:.1f} s"
    )
    if low >= policy.min_recall:
        return passes(detail)
    if high >= policy.min_recall and len(exact) < wanted:
        enough = min(600, math.ceil(seconds / len(shares) * len(drawn)))
        return unsure(
            f"{detail}: out of time", f"Give it more time: revector cutover policy recall_timeout_s={enough}"
        )
    further = max(_REMEDY_QUERIES, 2 * _queries_to_pass(policy.min_recall))
    exact += _searched(subject, drawn[len(exact) : max(len(exact), further)], exact=True, until=until)
    verdict = fails if high < policy.min_recall else unsure
    return verdict(detail, _remedy(subject, drawn[: len(exact)], exact, rows))


def _remedy(subject: Subject, drawn: Drawn, exact: list[Distances], rows: int) -> str:
    """The smallest ef_search with which these queries would pass, found by trying: doubled, then bisected."""
    version, required = subject.version, subject.policy.min_recall
    until = time.monotonic() + subject.policy.recall_timeout_s

    def passes_with(ef_search: int) -> bool:
        shares = _shares(exact, _searched(subject, drawn, ef_search=ef_search))
        return _interval(shares, rows)[0] >= required

    if _interval([1.0] * len(exact), rows)[0] < required:
        return (
            f"{len(exact)} searches cannot show {required:g}, even if they find all: revector cutover policy "
            + (f"recall_queries={_queries_to_pass(required)}" if required < 1 else "min_recall=0.99")
        )
    too_small = ef_search_for(version, _K)
    enough = min(MAX_EF_SEARCH, 2 * too_small)
    while not passes_with(enough):
        if enough == MAX_EF_SEARCH or time.monotonic() > until:
            return (
                f"No ef_search up to {enough} is enough. Build its index again with more: revector index set "
                f"{version.version_key} --m 32 --ef-construction 256, then revector index drop and build."
            )
        too_small, enough = enough, min(MAX_EF_SEARCH, 2 * enough)
    while enough - too_small > 1 and time.monotonic() < until:
        middle = (too_small + enough) // 2
        too_small, enough = (too_small, middle) if passes_with(middle) else (middle, enough)
    return f"revector index set {version.version_key} --ef-search {enough}"


def _interval(shares: Sequence[float], rows: int) -> tuple[float, float]:
    """Wilson's 95 % interval for the mean of the queries' recall; the mean itself when each row was a query.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927), 209–212, for
    n yes or no. A recall between them varies less than a yes or no of the same mean, so the interval is too wide
    rather than too narrow, also for being looked at several times while n grows.
    """
    n = len(shares)
    if n == 0:
        return 0.0, 1.0
    mean, z = sum(shares) / n, _Z
    if n >= rows:
        return mean, mean
    middle, width = mean + z * z / (2 * n), z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    return (middle - width) / (1 + z * z / n), (middle + width) / (1 + z * z / n)


def _queries_to_pass(required: float) -> int:
    """As many as pass when each finds all; 0 when none do."""
    return math.ceil(_Z * _Z * required / (1 - required)) if required < 1 else 0


def _shares(exact: Sequence[Distances], found: Sequence[Distances]) -> list[float]:
    """The share of the exact hits that each search found, by their distances; 1 when there is nothing to find."""
    shares = []
    for truth, near in zip(exact, found, strict=False):
        n = min(len(truth), _K - 1)
        limit = truth[n - 1] + _ROUNDING * max(1.0, abs(truth[n - 1])) if n else 0.0
        shares.append(int((near[:n] <= limit).sum()) / n if n else 1.0)
    return shares


def _searched(
    subject: Subject, drawn: Drawn, *, exact: bool = False, ef_search: int | None = None, until: float = math.inf
) -> list[Distances]:
    """The distances of each search's hits, without the query's own chunk, of the searches made before the deadline."""
    from revector.core.evaluation.runs.searches import plan_searches

    connection = subject.connection
    found: list[Distances] = []
    try:
        with connection.transaction(force_rollback=True):  # which also resets the settings of the searches
            planned = plan_searches(subject.version, k=_K, exact=exact, ef_search=ef_search)
            search = planned.prepare(connection, 1)
            for chunk_id, vector in drawn:
                if until < math.inf:
                    left = round((until - time.monotonic()) * 1000)
                    if left <= 0:
                        break
                    connection.execute("SELECT set_config('statement_timeout', %s, true)", [f"{left}ms"])
                ids, distances = search(vector)
                found.append(distances[ids != chunk_id])
    except psycopg.errors.QueryCanceled:
        if until == math.inf:
            raise
        # The time is up; the searches made so far are used.
    return found


RULES = (
    GuardRule(
        "recall",
        "Searches for random stored vectors find what an exact scan finds: as many as it takes until the interval of "
        "their mean is above or below what is required.",
        _recall, settings=("recall_queries", "min_recall", "recall_timeout_s"),
        after=("complete", "dimensions", "index valid"), slow=True, looks_at=("version", "index"),
    ),
)  # fmt: skip
