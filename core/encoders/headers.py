"""Rate limit headers of a provider's answer: Retry-After, and OpenAI's x-ratelimit headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from revector.core.encoders.kinds import AMOUNT

# As Go writes durations, which is how OpenAI sends them.
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART = r"(\d{1,9}(?:\.\d{1,9})?)(ms|us|µs|ns|h|m|s)"
_LONGEST_S = 7 * 86_400.0


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds the provider asks for, which it may also write as milliseconds or as a date.

    None when it asks for nothing; "0" counts as nothing, or all tries would be used at once.
    """
    milliseconds, seconds = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    for text, unit in ((milliseconds, 0.001), (seconds, 1.0)):
        if AMOUNT.accepts(text):
            return float(text) * unit or None
    try:
        moment = parsedate_to_datetime(seconds).replace(tzinfo=UTC)  # in HTTP it is always GMT
    except ValueError:
        return None
    left = (moment - datetime.now(UTC)).total_seconds()
    return left if left > 0 else None


def remaining(headers: Mapping[str, str], thing: str) -> tuple[int, float] | None:
    """What is left of the limit of `thing` ("requests" or "tokens"), and the seconds until it resets.

    None unless the provider reports both. Some send -1 for unknown.
    """
    left = headers.get(f"x-ratelimit-remaining-{thing}", "").strip()
    seconds = duration(headers.get(f"x-ratelimit-reset-{thing}", ""))
    if seconds is None or not re.fullmatch("[0-9]{1,15}", left):
        return None
    return int(left), seconds


def duration(text: str) -> float | None:
    """Seconds of "6m0s", "20ms" or, as other servers write it, "1.5"; None for anything else.

    A value of more than a week is a timestamp, not a duration.
    """
    text = text.strip()
    if re.fullmatch(f"(?:{_PART})+", text, re.ASCII):
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in re.findall(_PART, text))
    elif re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,9})?", text):
        seconds = float(text)
    else:
        return None
    return seconds if seconds <= _LONGEST_S else None
