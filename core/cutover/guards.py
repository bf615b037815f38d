"""The guards before a flip, in one table. The screen, the command line and docs/guards.md are made from it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import psycopg

from revector.core.cutover.checks import approvals, encoding, evidence, indexes, recall, servers, vectors
from revector.core.cutover.guard import Check, Guard, GuardRule, Subject, unsure
from revector.core.cutover.policy import read_policy
from revector.core.database import Connection, fetch_column
from revector.core.errors import UsageError, unknown_name
from revector.core.locks import name_holders
from revector.core.registry import get_version
from revector.core.retrieval import EncoderCache
from revector.core.sessions import keep_settings

_TIMEOUTS_MS = {"statement_timeout": 15_000, "lock_timeout": 5_000}

# `recall` after `warm` of indexes: it reads everything, and so warms the cache.
_TOPICS = (vectors, encoding, indexes, recall, evidence, servers, approvals)
GUARDS: tuple[GuardRule, ...] = tuple(
    sorted((rule for topic in _TOPICS for rule in topic.RULES), key=lambda rule: rule.slow)
)
"""Every guard, in the order in which they are run and shown. Add a new one to its topic's RULES."""


def check(
    connection: Connection,
    key: str,
    *,
    waivers: Mapping[str, str] | None = None,
    encoders: EncoderCache | None = None,
    on_guard: Callable[[Guard], None] | None = None,
    known: Mapping[str, Guard] | None = None,
) -> Check:
    """Run every guard for a version; `on_guard` gets each result as soon as it is known.

    `known` are results by name from an earlier check, used as they are: a screen checks often, and some guards are
    expensive. A cutover uses none. `waivers` maps guards that need not pass to reasons. A guard that lacks the
    privilege or the time to look is inconclusive. Raises UsageError for an unknown key, and as `checked_waivers`
    does.
    """
    version = get_version(connection, key)
    waived = checked_waivers(waivers or {})
    subject = Subject(connection, version, read_policy(connection), encoders or EncoderCache())
    found: list[Guard] = []
    with _timeouts(connection):
        for rule in GUARDS:
            failed = [guard.name for guard in found if guard.name in rule.after and guard.verdict != "pass"]
            guard = (known or {}).get(rule.name) or (_not_run(rule, failed) if failed else _bounded(rule, subject))
            guard = _waived(guard, waived)
            found.append(guard)
            if on_guard is not None:
                on_guard(guard)
    return Check(key, tuple(found))


def check_in_flip(subject: Subject, waivers: Mapping[str, str]) -> Check:
    """Run the guards that are quick and may have changed since the check, in the flip's transaction.

    A database error in one of them is raised: it has already ended the flip's transaction.
    """
    guards = (_waived(rule.run(subject), waivers) for rule in GUARDS if rule.in_flip)
    return Check(subject.version.version_key, tuple(guards))


def checked_waivers(waivers: Mapping[str, str]) -> dict[str, str]:
    """The waivers with their reasons trimmed.

    Raises UsageError for a guard that does not exist or cannot be waived, and for a missing reason.
    """
    rules = {rule.name: rule for rule in GUARDS}
    for name, reason in waivers.items():
        if name not in rules:
            raise unknown_name("guard", name, rules)
        if not rules[name].waivable:
            able = ", ".join(rule.name for rule in GUARDS if rule.waivable)
            raise UsageError(f"The guard {name!r} cannot be waived.", f"You can waive: {able}.")
        if not reason.strip():
            raise UsageError(f"Waiving the guard {name!r} needs a reason.", "It is logged permanently.")
    return {name: reason.strip() for name, reason in waivers.items()}


def _waived(guard: Guard, waivers: Mapping[str, str]) -> Guard:
    """Mark a guard as waived; one that passes needs no waiver."""
    return guard if guard.verdict == "pass" else replace(guard, waived=waivers.get(guard.name, ""))


@contextlib.contextmanager
def _timeouts(connection: Connection) -> Iterator[None]:
    """Limit every statement of a guard to a few seconds, whatever the session allows."""
    before: dict[str, int] = dict(
        connection.execute(
            "SELECT name, setting::int FROM pg_settings WHERE name = ANY(%s)", [list(_TIMEOUTS_MS)]
        ).fetchall()
    )
    longer = {name: most for name, most in _TIMEOUTS_MS.items() if not 0 < before[name] <= most}
    keep_settings(connection, {name: f"{most}ms" for name, most in longer.items()})
    try:
        yield
    finally:
        if not connection.closed:
            keep_settings(connection, {name: f"{before[name]}ms" for name in longer})


def _not_run(rule: GuardRule, failed: list[str]) -> Guard:
    return Guard(rule.name, *unsure(f"skipped: needs {' and '.join(failed)}"))


def _bounded(rule: GuardRule, subject: Subject) -> Guard:
    try:
        return rule.run(subject)
    except psycopg.errors.QueryCanceled as error:
        text, remedy = error.diag.message_primary, "Try again when the server is less busy."
    except psycopg.errors.LockNotAvailable:
        tables = fetch_column(
            subject.connection, "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()"
        )
        held, remedy = name_holders(subject.connection, dict.fromkeys(tables, "AccessExclusiveLock"))
        text = f"timed out waiting for a lock, {held}"
    except psycopg.errors.InsufficientPrivilege as error:
        text, remedy = error.diag.message_primary, "Ask for the privilege, or check as a role that has it."
    return Guard(rule.name, *unsure(f"could not check: {text}", remedy))
