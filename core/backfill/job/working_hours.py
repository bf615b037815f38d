"""Working hours of a backfill: when it may run, in the notation of OpenStreetMap's opening_hours.

https://wiki.openstreetmap.org/wiki/Key:opening_hours, read by the library opening-hours-py.
"""

from __future__ import annotations

import datetime
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from revector.core.errors import UsageError

if TYPE_CHECKING:
    from opening_hours import OpeningHours


@lru_cache(maxsize=8)
def parse_hours(hours: str, timezone: str) -> OpeningHours:
    """Parse working hours. Raises UsageError for a text that cannot be parsed."""
    from opening_hours import OpeningHours, ParserError  # type: ignore[attr-defined]

    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            f"There is no time zone {timezone!r}.", "Expected a name such as UTC or Europe/Berlin."
        ) from None
    try:
        return OpeningHours(hours, timezone=zone)
    except ParserError:
        raise UsageError(
            f"The working hours {hours!r} cannot be read.",
            "Write them as OpenStreetMap writes opening hours: 'Mo-Fr 20:00-06:00; Sa,Su 00:00-24:00'.",
        ) from None


def closed_until(hours: str, timezone: str, now: datetime.datetime) -> datetime.datetime | None:
    """When work may continue: None when it may at `now` (aware), else the next time at which it may.

    datetime.max when it never may.
    """
    opening = parse_hours(hours, timezone)
    local = now.astimezone(ZoneInfo(timezone))
    if opening.is_open(local):
        return None
    change = opening.next_change(local)
    return change if change is not None else datetime.datetime.max.replace(tzinfo=datetime.UTC)
