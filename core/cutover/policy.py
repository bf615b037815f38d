"""What a cutover requires: approvals, the thresholds of guards, and the watch after it.

One row for a collection, so that the same rules apply to every operator. Each change is logged with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import msgspec
from psycopg.types.json import Jsonb

from revector.core.database import Connection, fetch_one
from revector.core.roles.rights import require
from revector.core.settings import changed_fields, checked_values, value_in_words

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=600)]
_Hours = Annotated[float, msgspec.Meta(ge=0.02, le=8_760)]  # a minute or more


@dataclass(frozen=True)
class Policy:
    """The settings of cutovers. Shares are from 0 to 1; None means no limit."""

    approvals: Annotated[int, msgspec.Meta(ge=0, le=20)] = 0
    request_hours: _Hours = 72.0
    lock_timeout_s: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 5.0

    recall_queries: Annotated[int, msgspec.Meta(ge=5, le=10_000)] = 400
    min_recall: _Share = 0.9
    recall_timeout_s: _Seconds = 30.0
    evaluation: Literal["if-made", "required", "off"] = "if-made"
    evaluation_new_share: _Share = 0.1
    evidence_by: Literal["anyone", "another"] = "anyone"
    shadow_queries: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    shadow_error_share: _Share = 0.01
    encoder_chunks: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 299
    encoder_cosine: _Share = 0.999
    encoder_timeout_s: _Seconds = 30.0
    encoder_usd: Annotated[float, msgspec.Meta(ge=0, le=1_000)] = 0.1
    warm_share: _Share = 0.5
    replica_lag_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0

    watch_hours: Annotated[float, msgspec.Meta(ge=0, le=8_760)] = 24.0
    auto_rollback: bool = False
    max_error_rate: _Share | None = 0.05
    max_empty_rate_rise: _Share | None = None
    max_latency_ratio: Annotated[float, msgspec.Meta(ge=1, le=1_000)] | None = None
    min_overlap: _Share | None = None


HELP: Mapping[str, str] = {
    "approvals": "How many others must approve a cutover; 0 for none.",
    "request_hours": "Hours after which an unused request expires.",
    "lock_timeout_s": "Seconds that a flip waits for a lock before it gives up.",
    "recall_queries": "Most searches used to compare the index with the exact search.",
    "min_recall": "Share of the exact search's top 10 that the index must find.",
    "recall_timeout_s": "Seconds that comparing the index with the exact search may take.",
    "evaluation": "An evaluation against the active version: `required`, `if-made` (one that was made counts), `off`.",
    "evaluation_new_share": "Share of the chunks that may be newer than the evaluation.",
    "evidence_by": "Who may have made the evaluations of a request: `anyone`, or `another` than who requests it.",
    "shadow_queries": "Users' queries that the version must have answered in shadow traffic; 0 for none.",
    "shadow_error_share": "Share of the shadow's queries that may have failed.",
    "encoder_chunks": "Stored chunks to encode again: 299 show damage to 1% of the rows with 95% probability.",
    "encoder_cosine": "Cosine that each must reach with its stored vector; for l2 and ip, the ratio of their lengths "
    "as well.",
    "encoder_timeout_s": "Seconds that encoding them again may take.",
    "encoder_usd": "US dollars that encoding them again may cost, as far as the encoder's price is known.",
    "warm_share": "Share of pages that must be in the server's cache; 0 for none.",
    "replica_lag_s": "Seconds within which each standby must replay what was written.",
    "watch_hours": "Hours after a cutover during which the previous version is kept up to date and watched.",
    "auto_rollback": "Whether the watch rolls back by itself when one of the limits below is broken.",
    "max_error_rate": "Limit of the watch: share of searches since the cutover that may fail.",
    "max_empty_rate_rise": "Limit of the watch: how much the share of searches without a result may rise.",
    "max_latency_ratio": "Limit of the watch: times of searches since the cutover, as a multiple of those before.",
    "min_overlap": "Limit of the watch: mean overlap of the two versions' results since the cutover.",
}
"""One line for each setting, used by the command line, the docs and the console."""


def read_policy(connection: Connection) -> Policy:
    """The policy in force, without settings that only another release knows.

    Raises UsageError for a stored value that is out of its range.
    """
    row = connection.execute("SELECT settings FROM cutover_policy").fetchone()
    return _of_stored(row[0]) if row else Policy()


def change_policy(connection: Connection, changes: Mapping[str, object], reason: str = "") -> Policy:
    """Change some settings for everybody, in one transaction with the log's entry; returns the new policy.

    Values may be text: `default` restores the default, `none` removes an optional limit. Raises UsageError for a
    setting that does not exist and for a value out of its range.
    """
    require(connection, "administer", "cutover policy")
    with connection.transaction():
        connection.execute("INSERT INTO cutover_policy DEFAULT VALUES ON CONFLICT (id) DO NOTHING")
        (settings,) = fetch_one(connection, "SELECT settings FROM cutover_policy FOR UPDATE")
        before = _of_stored(settings)
        after = changed(before, changes)
        if after != before:
            # A trigger writes the log's entry, as it does for a change by SQL.
            connection.execute("SELECT set_config('revector.reason', %s, true)", [reason])
            connection.execute("UPDATE cutover_policy SET settings = %s", [Jsonb(changed_fields(after))])
    return after


def changed(policy: Policy, changes: Mapping[str, object]) -> Policy:
    """The policy with some settings changed; raises UsageError as `change_policy` does."""
    defaults = {name: getattr(Policy(), name, None) for name, value in changes.items() if _is(value, "default")}
    return replace(policy, **checked({**changes, **defaults}))


def checked(values: Mapping[str, object]) -> dict[str, Any]:
    """Settings from plain values or text. Raises UsageError naming one that is unknown or out of range."""
    given = {name: None if _is(value, "none") else value for name, value in values.items()}
    return checked_values(Policy, "setting of the cutover policy", HELP, given)


def shown(policy: Policy, name: str) -> str:
    """A setting's value as text that `change_policy` can read."""
    return value_in_words(getattr(policy, name))


def _of_stored(settings: Mapping[str, Any]) -> Policy:
    known = {field.name for field in fields(Policy)}
    return Policy(**checked({name: value for name, value in settings.items() if name in known}))


def _is(value: object, word: str) -> bool:
    return isinstance(value, str) and value.strip().lower() == word
