"""Guards on a version's index: valid, used by the planner, and warm."""

from __future__ import annotations

from psycopg import sql

from revector.core import index
from revector.core.cutover.guard import Found, GuardRule, Subject, fails, passes, unsure
from revector.core.database import fetch_one
from revector.core.index.warming import pages_of_searches, stored_vectors

_SMALL_TABLE_ROWS = 10_000
"""Below this a table scan takes milliseconds and is exact, so the planner may rightly prefer it."""
_WARM_SEARCHES = 5


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
    query = sql.SQL("SELECT count(*) FROM (SELECT FROM {} LIMIT {}) AS these")
    (rows,) = fetch_one(connection, query.format(version.table, sql.Literal(_SMALL_TABLE_ROWS + 1)))
    if rows <= _SMALL_TABLE_ROWS:
        return passes(f"{found.node}: with {rows:,} rows the planner scans them all instead")
    return fails(
        f"the planner takes a {found.node} over more than {_SMALL_TABLE_ROWS:,} rows",
        f"ANALYZE {version.table_name}, and check random_page_cost and effective_cache_size.",
    )


def _warm(subject: Subject) -> Found:
    connection, version = subject.connection, subject.version
    drawn = stored_vectors(connection, version, _WARM_SEARCHES)
    if not drawn.has(_WARM_SEARCHES):
        return unsure(
            f"only {len(drawn.vectors)} of {drawn.of} stored vectors could be drawn", "VACUUM FULL its table."
        )
    found = pages_of_searches(connection, version, list(drawn.vectors.values()))
    least = subject.policy.warm_share
    detail = (
        f"{found.hit:,} of {found.hit + found.read:,} pages of {found.searches} searches were in cache "
        f"({found.share:.0%}, at least {least:.0%} required), {found.median_s * 1000:.1f} ms each"
    )
    if found.share >= least:
        return passes(detail)
    return fails(detail, f"revector index prewarm {version.version_key}")


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
        _warm, settings=("warm_share",), after=("complete", "dimensions", "index valid"), slow=True,
        looks_at=("version", "index"),
    ),
)  # fmt: skip
