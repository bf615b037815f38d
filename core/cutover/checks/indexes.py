"""Guards on a version's index: exists, valid, used by the planner, good recall, and warm."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg

from revector.core import index
from revector.core.cutover.guard import Found, GuardRule, Subject, fails, passes, unsure
from revector.core.index.warming import pages_of_searches, stored_vectors
from revector.core.registry import embedded_count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hits = tuple[NDArray[np.int64], NDArray[np.float64]]

_SMALL_TABLE_ROWS = 10_000
"""Below this a table scan takes milliseconds and is exact, so the planner may rightly prefer it."""
_ROUNDING = 1e-6
"""pgvector sums in single precision, so equal distances may come out slightly different."""
_WARM_SEARCHES = 5
_K = 10
_LEAST_QUERIES = 5
"""Fewer searches say too little about an index."""


def _valid(subject: Subject) -> Found:
    connection, version = subject.connection, subject.version
    state = index.inspect(connection, version)
    remedy = f"revector index build {version.version_key}"
    if not state.exists:
        return fails("no index", remedy)
    if not state.valid:
        return fails(f"{state.name} is invalid: {state.problem}", remedy)
    return passes(f"{state.name}, {state.bytes / 1e6:,.1f} MB")


def _used(subject: Subject) -> Found:
    connection, version = subject.connection, subject.version
    found = index.use(connection, version)
    if found.used:
        return passes(found.node)
    rows = embedded_count(connection, version)
    if rows <= _SMALL_TABLE_ROWS:
        return passes(f"{found.node}: with {rows:,} rows the planner scans them all instead")
    return fails(
        f"the planner takes a {found.node} over {rows:,} rows",
        f"ANALYZE {version.table_name}, and check random_page_cost and effective_cache_size.",
    )


def _warm(subject: Subject) -> Found:
    connection, version = subject.connection, subject.version
    vectors = [vector for _, vector in stored_vectors(connection, version, _WARM_SEARCHES)]
    found = pages_of_searches(connection, version, vectors)
    least = subject.policy.warm_share
    detail = (
        f"{found.hit:,} of {found.hit + found.read:,} pages of {found.searches} searches were in cache "
        f"({found.share:.0%}, at least {least:.0%} required), {found.median_s * 1000:.1f} ms each"
    )
    if found.share >= least:
        return passes(detail)
    return fails(detail, f"revector index prewarm {version.version_key}")


def _recall(subject: Subject) -> Found:
    """For random stored vectors: the top 10 of a user's search, without the vector itself, against those of an
    exact scan. Makes as many searches as the policy's time allows. A chunk as near as the last exact hit counts as
    found.
    """
    from pgvector import Vector

    connection, version, policy = subject.connection, subject.version, subject.policy
    drawn = [
        (chunk_id, Vector.from_text(text).to_numpy())
        for chunk_id, text in stored_vectors(connection, version, policy.recall_queries)
    ]
    began = time.monotonic()
    ours = _searched(subject, drawn, exact=False, until=began + policy.recall_timeout_s)
    exactly = _searched(subject, drawn[: len(ours)], exact=True, until=began + policy.recall_timeout_s)
    seconds = time.monotonic() - began
    shares = []
    for (chunk_id, _), found, truth in zip(drawn, ours, exactly, strict=False):
        others, near = _besides(truth, chunk_id), _besides(found, chunk_id)
        n = min(len(others), _K - 1)
        if n:
            limit = others[n - 1] + _ROUNDING * max(1.0, abs(others[n - 1]))
            shares.append(int((near[:n] <= limit).sum()) / n)
    if len(drawn) < 2:
        return passes("fewer than two vectors: nothing to find")
    if len(exactly) < min(_LEAST_QUERIES, len(drawn)):
        return unsure(
            f"only {len(exactly)} of {len(drawn)} searches could be compared with scanning all "
            f"{embedded_count(connection, version):,} vectors in {policy.recall_timeout_s:g} s",
            "Give it more time: revector cutover policy recall_timeout_s=60",
        )
    mean = sum(shares) / len(shares)
    of = f"{len(shares)}" if len(exactly) == len(drawn) else f"{len(shares)} (of {len(drawn)}: out of time)"
    detail = (
        f"{mean:.3f} of what an exact scan finds (at least {policy.min_recall:g} required, worst {min(shares):.2f}), "
        f"over {of} random stored vectors, {seconds:.1f} s"
    )
    if mean >= policy.min_recall:
        return passes(detail)
    return fails(
        detail,
        "Raise the version's ef_search, or build its index again with a larger m and ef_construction.",
    )


def _searched(
    subject: Subject, drawn: list[tuple[int, NDArray[np.float32]]], *, exact: bool, until: float
) -> list[Hits]:
    """The hits of the searches made before the deadline."""
    from revector.core.evaluation.runs.searches import plan_searches

    connection = subject.connection
    found: list[Hits] = []
    try:
        with connection.transaction(force_rollback=True):  # which also resets the settings of the searches
            search = plan_searches(subject.version, k=_K, exact=exact, ef_search=None).prepare(connection, 1)
            for _, vector in drawn:
                left = round((until - time.monotonic()) * 1000)
                if left <= 0:
                    break
                connection.execute("SELECT set_config('statement_timeout', %s, true)", [f"{left}ms"])
                found.append(search(vector))
    except psycopg.errors.QueryCanceled:
        pass  # the time is up; use the searches made so far
    return found


def _besides(hits: Hits, chunk_id: int) -> NDArray[np.float64]:
    """The distances of the hits, without that of the query's own chunk."""
    ids, distances = hits
    others: NDArray[np.float64] = distances[ids != chunk_id]
    return others


_WHOLE = ("complete", "dimensions", "index valid")

RULES = (
    GuardRule(
        "index valid", "The catalogue's definition of the index: finished, HNSW, over all the version's vectors, and "
        "of its metric by pgvector's own operators.",
        _valid, in_flip=True, waivable=False, looks_at=("version", "index"),
    ),
    GuardRule(
        "index used",
        "The planner uses the index for a top-10 search, or the table is small enough to scan.",
        _used, after=("dimensions", "index valid"), looks_at=("version", "index"),
    ),
    GuardRule(
        "warm", "A few searches for stored vectors find their pages in the server's cache.",
        _warm, settings=("warm_share",), after=_WHOLE, slow=True, looks_at=("version", "index"),
    ),
    GuardRule(
        "recall",
        "Searches for random stored vectors find what an exact scan finds, as many searches as the time "
        "allows.",
        _recall, settings=("recall_queries", "min_recall", "recall_timeout_s"), after=_WHOLE, slow=True,
        looks_at=("version", "index"),
    ),
)  # fmt: skip
"""`warm` before `recall`, which reads everything and so warms the cache."""
