"""Guards on the evidence for a version before users see it: its evaluation and its shadow."""

from __future__ import annotations

import datetime
import random
from typing import TYPE_CHECKING, TypeAlias

from psycopg import sql

from revector.core.cutover.guard import Found, GuardRule, Subject, fails, passes, unsure
from revector.core.database import Connection, fetch_one
from revector.core.index.warming import page_sample
from revector.core.registry import Version, active_version

if TYPE_CHECKING:
    from revector.core.evaluation.document import Run

_Newest: TypeAlias = "tuple[int, str | None, str, tuple[Run, Run]]"
"""Number, verdict, query set and both runs of an evaluation."""
_PAGES = 10_000
"""Of a collection of more pages, the chunks on so many random ones are counted."""
_FEWEST_CHUNKS = 1_000
_NEWEST_QUERIES = 10_000


def _evaluation(subject: Subject) -> Found:
    connection, version, policy = subject.connection, subject.version, subject.policy
    if policy.evaluation == "off":
        return passes("the policy does not require one")
    active = active_version(connection)
    if active is None or active.id == version.id:
        return passes("no other version is active to compare with")
    pair = f"{active.version_key} → {version.version_key}"
    again = f"revector evaluate NAME --primary {active.version_key} --candidate {version.version_key}"
    # Hybrid searches and those by vectors alone are evidence each: one that passes does not hide the other.
    made = [found for hybrid in (False, True) if (found := _newest(connection, active, version, hybrid=hybrid))]
    if not made:
        if policy.evaluation == "required":
            return fails(f"none of {pair}, and the policy requires one", again)
        return passes(f"none of {pair}, and none is required")
    return min(
        (_judged(subject, active, pair, again, found) for found in made),
        key=lambda found: ("fail", "inconclusive", "pass").index(found[0]),
    )


def _judged(subject: Subject, active: Version, pair: str, again: str, found: _Newest) -> Found:
    connection, version, policy = subject.connection, subject.version, subject.policy
    number, verdict, query_set, runs = found
    name = f"evaluation {number} of {pair} on {query_set}"
    if runs[0].hybrid:
        name, again = f"{name} (hybrid search)", f"{again} --hybrid"
    if verdict not in ("pass", None):
        remedy = f"revector evaluations show {number}"
        return (fails if verdict == "fail" else unsure)(f"{name}: {verdict}", remedy)
    if differing := _differing(connection, runs, (active, version)):
        return fails(f"{name} used other settings: {'; '.join(differing)}", again)
    newer, chunks, read = _newer(connection, min(run.started_at for run in runs))
    if read < 1 and chunks < _FEWEST_CHUNKS:
        return unsure(
            f"{name}: {read:.2%} of the pages of chunks hold only {chunks}", "VACUUM FULL document_chunks."
        )
    share = newer / max(1, chunks)
    detail = f"{name}: {verdict or 'without gates'}; {share:.1%} of the chunks are newer"
    detail += f" (of {chunks:,} on random pages)" if read < 1 else ""
    if share > policy.evaluation_new_share:
        return fails(f"{detail}, at most {policy.evaluation_new_share:.0%} may be", again)
    return passes(detail)


def _shadow(subject: Subject) -> Found:
    connection, version, policy = subject.connection, subject.version, subject.policy
    wanted = policy.shadow_queries
    if not wanted:
        return passes("the policy does not require one")
    active = active_version(connection)
    if active is None or active.id == version.id:
        return passes("no other version is active whose queries it could have answered")
    row = fetch_one(
        connection,
        """
        SELECT count(*) FILTER (WHERE error = ''), count(*) FILTER (WHERE error <> ''), avg(overlap)::float8
        FROM (SELECT q.error, q.overlap
              FROM shadows s CROSS JOIN LATERAL (
                  SELECT error, overlap, at FROM shadow_queries
                  WHERE shadow_id = s.id AND primary_version = %(active)s ORDER BY at DESC LIMIT %(limit)s) q
              WHERE s.embedding_version_id = %(id)s
              ORDER BY q.at DESC LIMIT %(limit)s) newest
        """,
        {
            "active": active.version_key,
            "id": version.id,
            "limit": max(_NEWEST_QUERIES, 2 * policy.shadow_queries),
        },
    )
    answered, failed, overlap = row
    required = f"{wanted:,} required"
    start = f"revector shadow start {version.version_key}"
    if answered + failed == 0:
        return fails(f"answered none of {active.version_key}'s queries, {required}", start)
    share = failed / (answered + failed)
    detail = f"{answered:,} queries of {active.version_key} answered ({required}), {failed:,} failed ({share:.1%})"
    if overlap is not None:
        detail += f", mean overlap {overlap:.2f}"
    if share > policy.shadow_error_share:
        return fails(
            f"{detail}; at most {policy.shadow_error_share:.1%} may fail",
            "revector shadow report",
        )
    if answered < wanted:
        return unsure(detail, f"Let it run longer. If it has stopped: {start}")
    return passes(detail)


def _newest(connection: Connection, active: Version, version: Version, *, hybrid: bool) -> _Newest | None:
    """The pair's newest evaluation of hybrid searches or of others, pilots excluded."""
    from revector.core.evaluation.runs.store import get_run

    row = connection.execute(
        """
        SELECT e.id, e.verdict, s.name, p.id, c.id
        FROM evaluations e JOIN query_sets s ON s.id = e.query_set_id
        JOIN evaluation_runs p ON p.id = e.primary_run_id
        JOIN evaluation_runs c ON c.id = e.candidate_run_id
        WHERE p.embedding_version_id = %s AND c.embedding_version_id = %s AND p.sample IS NULL AND c.sample IS NULL
          AND p.hybrid = %s AND c.hybrid = p.hybrid
        ORDER BY e.id DESC LIMIT 1
        """,
        [active.id, version.id, hybrid],
    ).fetchone()
    if row is None:
        return None
    number, verdict, query_set, *runs = row
    return number, verdict, query_set, (get_run(connection, runs[0]), get_run(connection, runs[1]))


def _differing(connection: Connection, runs: tuple[Run, Run], versions: tuple[Version, Version]) -> list[str]:
    """In words, how users' searches by these versions differ from those of the runs."""
    from revector.core.evaluation.runs.searches import plan_searches

    found = []
    for run, version in zip(runs, versions, strict=True):
        now: dict[str, object] = {"encoder": version.encoder_spec, "revision": version.encoder_revision}
        then: dict[str, object] = {"encoder": run.encoder, "revision": run.encoder_revision}
        if not run.exact:  # an exact search measures the model alone; the index has its own guard
            searches = plan_searches(version, k=run.k, exact=False, ef_search=None, hybrid=run.hybrid)
            now |= {**searches.index_settings(connection), "ef_search": searches.ef_search}
            then |= {**run.index_settings, "ef_search": run.ef_search}
        found += [
            f"{version.version_key} {name.replace('_', ' ')} {then.get(name, 'none')} then, {now.get(name, 'none')} now"
            for name in sorted(now.keys() | then.keys())
            if name != "used" and now.get(name) != then.get(name)
        ]
    return found


def _newer(connection: Connection, since: datetime.datetime) -> tuple[int, int, float]:
    """How many chunks are newer, of how many that were looked at, on which share of the pages."""
    sample, share = page_sample(connection, "document_chunks", _PAGES, random.Random())  # noqa: S311
    query = sql.SQL("SELECT count(*) FILTER (WHERE created_at > %s), count(*) FROM document_chunks {}")
    newer, chunks = fetch_one(connection, query.format(sample), [since])
    return newer, chunks, share


RULES = (
    GuardRule(
        "evaluation",
        "The newest evaluation against the active version passed or had no gates, used today's encoders and "
        "index settings, and few chunks are newer than it.",
        _evaluation, settings=("evaluation", "evaluation_new_share"),
        looks_at=("version", "active version", "evaluation"),
    ),
    GuardRule(
        "shadow",
        "In shadow traffic it answered enough of users' queries, and few failed.",
        _shadow, settings=("shadow_queries", "shadow_error_share"), looks_at=("version", "active version"),
        each_minute=True,
    ),
)  # fmt: skip
