"""Settings of a backfill, before it starts and while it runs.

The settings in force are JSON in the job's row. Every worker reads them with each heartbeat, so a change there
reaches all workers, wherever they run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

import msgspec

from revector.core.settings import Settings, checked_values, value_in_words

_Positive = Annotated[float, msgspec.Meta(gt=0)]


@dataclass(frozen=True)
class JobSettings:
    """The settings of one backfill. None means no limit (for batch_size: adapt to the encoder's pace)."""

    batch_size: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None
    target_batch_s: Annotated[float, msgspec.Meta(ge=0.05, le=60)] = 1.0
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    max_rate: _Positive | None = None
    lease_s: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 60.0
    patience_s: Annotated[float, msgspec.Meta(ge=0)] = 900.0
    max_failed_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05
    max_spend_usd: Annotated[float, msgspec.Meta(ge=0)] | None = None
    max_replication_lag_s: _Positive | None = None
    max_wal_mb_s: _Positive | None = None
    max_active: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_transaction_s: _Positive | None = None
    min_free_gb: _Positive | None = None
    max_database_gb: _Positive | None = None
    throttle_query: str | None = None
    working_hours: str | None = None
    timezone: str = "UTC"


HELP: Mapping[str, str] = {
    "batch_size": "Texts encoded at a time; `auto` adapts to the encoder's pace.",
    "target_batch_s": "How long a batch should take, in seconds, when its size adapts.",
    "workers": "Workers of each `backfill run`; one that dies is replaced.",
    "max_rate": "Chunks a second, over all workers.",
    "lease_s": "Seconds without a heartbeat after which another worker takes over a range.",
    "patience_s": "Seconds to wait for a lost database or encoder before the run ends.",
    "max_failed_share": "Share of chunks (0 to 1) that may fail before the job stops by itself.",
    "max_spend_usd": "Hold before more than this is spent, in US dollars.",
    "max_replication_lag_s": "Hold while a standby replays later than this, in seconds.",
    "max_wal_mb_s": "Hold while the server writes more WAL than this, in MB a second.",
    "max_active": "Hold while more sessions than this are active, not counting the backfill's own.",
    "max_transaction_s": "Hold while another transaction is older than this, in seconds.",
    "min_free_gb": "Hold while the server's disk has less room, in GB (a server on this machine only).",
    "max_database_gb": "Hold while the database is larger than this, in GB.",
    "throttle_query": "Your own SQL: hold while it returns true, a number above 0, or a text (the reason).",
    "working_hours": "When to work, as OpenStreetMap writes opening hours: 'Mo-Fr 20:00-06:00; Sa,Su'.",
    "timezone": "Of working_hours, such as Europe/Berlin.",
}
"""One line for each setting, used by the command line, the docs and the console."""

_NONE_WORDS = {"none", "off", "auto", ""}


def read_settings(stored: Mapping[str, Any]) -> JobSettings:
    """The settings in a job's row, without those that only another release knows."""
    known = {field.name for field in fields(JobSettings)}
    return checked({name: value for name, value in stored.items() if name in known})


def default_settings(settings: Settings) -> JobSettings:
    """The settings that a new backfill begins with. Raises UsageError for errors in [backfill]."""
    given = {} if settings.batch_size is None else {"batch_size": settings.batch_size}
    return checked(given | settings.backfill)


def changed(settings: JobSettings, changes: Mapping[str, object]) -> JobSettings:
    """The settings with some changed. Values may be text: `none`, `off` and `auto` restore the default.

    Raises UsageError for a setting that does not exist and for a value out of its range.
    """
    lifted = [name for name, value in changes.items() if str(value).strip().lower() in _NONE_WORDS]
    given = checked({**changes, **{name: getattr(JobSettings(), name, None) for name in lifted}})
    return replace(settings, **{name: getattr(given, name) for name in changes})


def shown(settings: JobSettings, name: str) -> str:
    """A setting's value as text that `changed` can read."""
    value = getattr(settings, name)
    return "auto" if name == "batch_size" and value is None else value_in_words(value)


def checked(values: Mapping[str, object]) -> JobSettings:
    """Settings from plain values. Raises UsageError naming one that is unknown or out of range."""
    given = checked_values(JobSettings, "setting of a backfill", HELP, values)
    if given.get("working_hours") or given.get("timezone"):
        from revector.core.backfill.job.working_hours import parse_hours

        parse_hours(given.get("working_hours") or "24/7", given.get("timezone") or "UTC")
    return JobSettings(**given)
