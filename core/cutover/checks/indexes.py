"""Guards on a version's index: there, valid, and chosen by the planner."""

from __future__ import annotations

from core import index
from core.cutover.guard import Guard, Subject
from core.registry import embedded_count

_SMALL_TABLE_ROWS = 10_000
"""Below this a scan of the table takes milliseconds and is exact, so that the planner may rightly prefer it."""


def valid(subject: Subject) -> Guard:
    """The index is there and its build was not cut off."""
    connection, version = subject.connection, subject.version
    state = index.inspect(connection, version)
    remedy = f"revector index build {version.version_key}"
    if not state.exists:
        return Guard("index valid", "fail", "there is no index", remedy)
    if not state.valid:
        return Guard("index valid", "fail", f"{state.name} is invalid: its build was cut off", remedy)
    return Guard("index valid", "pass", f"{state.name}, {state.bytes / 1e6:,.1f} MB")


def used(subject: Subject) -> Guard:
    """The planner answers a top-10 search from the index."""
    connection, version = subject.connection, subject.version
    if not index.inspect(connection, version).exists:
        return Guard("index used", "fail", "there is no index", f"revector index build {version.version_key}")
    found = index.use(connection, version)
    if found.used:
        return Guard("index used", "pass", found.node)
    rows = embedded_count(connection, version)
    if rows <= _SMALL_TABLE_ROWS:
        return Guard(
            "index used", "pass", f"{found.node}: with {rows:,} rows the planner prefers to scan them all"
        )
    return Guard(
        "index used", "fail", f"the planner takes a {found.node} over {rows:,} rows",
        f"ANALYZE {version.table_name}, and look at random_page_cost and effective_cache_size.",
    )  # fmt: skip
