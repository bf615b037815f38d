"""The guards before a flip, in one table: the screen, the command line and docs/guards.md are made from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import psycopg

from core.cutover.checks import indexes, vectors
from core.cutover.guard import Check, Guard, GuardRule, Subject
from core.cutover.policy import read_policy
from core.cutover.requests import approvals_guard
from core.database import Connection
from core.errors import UsageError, unknown_name
from core.registry import get_version
from core.retrieval import EncoderCache

GUARDS: tuple[GuardRule, ...] = (
    GuardRule(
        "complete",
        "Every chunk has a vector, nothing waits in the outbox, and no chunk was given up on without a waiver.",
        vectors.complete, in_flip=True, waivable=False,
    ),
    GuardRule(
        "dimensions",
        "The table's vectors have the type and the dimensions of the version, and its encoder can be named.",
        vectors.dimensions, in_flip=True, waivable=False,
    ),
    GuardRule(
        "index valid", "The index is there, and its build was not cut off.",
        indexes.valid, in_flip=True, waivable=False,
    ),
    GuardRule("index used", "The planner answers a top-10 search from the index.", indexes.used),
    GuardRule(
        "pgvector", "The server's pgvector has no known fault in vacuuming HNSW indexes; warns.",
        vectors.pgvector,
    ),
    GuardRule(
        "approvals", "As many others as the policy asks for have approved the cutover as it stands.",
        approvals_guard, in_flip=True, waivable=False, settings=("approvals", "request_hours"),
    ),
)  # fmt: skip


def check(
    connection: Connection,
    key: str,
    *,
    waivers: Mapping[str, str] | None = None,
    encoders: EncoderCache | None = None,
    on_guard: Callable[[Guard], None] | None = None,
) -> Check:
    """Run every guard for a version; `on_guard` is told of each as soon as it is known.

    `waivers` are guards that need not pass, each with the reason. What a guard may not look at, or not within its
    time, makes it inconclusive. Raises UsageError for a key nobody has and as `checked_waivers` does.
    """
    version = get_version(connection, key)
    waived = checked_waivers(waivers or {})
    subject = Subject(connection, version, read_policy(connection), encoders or EncoderCache())
    found = []
    for rule in GUARDS:
        guard = _waived(_bounded(rule, subject), waived)
        found.append(guard)
        if on_guard is not None:
            on_guard(guard)
    return Check(key, tuple(found))


def check_in_flip(subject: Subject, waivers: Mapping[str, str]) -> Check:
    """The guards that are quick and may have changed since the check, in the flip's own transaction.

    What Postgres refuses to one of them is raised: the flip's transaction has ended with it.
    """
    guards = (_waived(rule.run(subject), waivers) for rule in GUARDS if rule.in_flip)
    return Check(subject.version.version_key, tuple(guards))


def checked_waivers(waivers: Mapping[str, str]) -> dict[str, str]:
    """The waivers with their reasons trimmed.

    Raises UsageError for a guard that does not exist or cannot be waived, and for one without a reason.
    """
    rules = {rule.name: rule for rule in GUARDS}
    for name, reason in waivers.items():
        if name not in rules:
            raise unknown_name("guard", name, rules)
        if not rules[name].waivable:
            able = ", ".join(rule.name for rule in GUARDS if rule.waivable)
            raise UsageError(f"The guard {name!r} cannot be waived.", f"Those that can: {able}.")
        if not reason.strip():
            raise UsageError(f"Waiving the guard {name!r} takes a reason.", "It stays in the log for good.")
    return {name: reason.strip() for name, reason in waivers.items()}


def _waived(guard: Guard, waivers: Mapping[str, str]) -> Guard:
    """A guard that passes needs no waiver, and carries none."""
    return guard if guard.verdict == "pass" else replace(guard, waived=waivers.get(guard.name, ""))


def _bounded(rule: GuardRule, subject: Subject) -> Guard:
    try:
        return rule.run(subject)
    except psycopg.errors.QueryCanceled as error:
        text, remedy = error.diag.message_primary, "Try again when the server is less busy."
    except psycopg.errors.InsufficientPrivilege as error:
        text, remedy = error.diag.message_primary, "Ask for the right, or check as a role that has it."
    return Guard(rule.name, "inconclusive", f"it could not look: {text}", remedy)
