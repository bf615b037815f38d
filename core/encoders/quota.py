"""One limit of a provider, of requests or of tokens: when the next amount fits.

It combines the limit stated in the spec, per minute, with what the provider says is left. The libraries for the
former (pyrate-limiter, limits, aiolimiter) sleep uninterruptibly or need asyncio, keep an entry for each token,
and cannot correct an estimate.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

MINUTE_S = 61.0
"""A second more than a minute: the provider counts a request when it arrives, not when it is sent."""

BURST_S = 1.0
"""The share of a minute's limit that may be spent at once; the rest is spread, as providers check seconds too."""


@dataclass
class Spending:
    """An amount that was let through. `mark` is the total let through by then, including itself."""

    at: float
    amount: float
    mark: float
    counted: bool = True


class Quota:
    """Counts one limit. Times are seconds of the caller's clock; the caller must serialise calls."""

    def __init__(self, thing: str, per_minute: int | None) -> None:
        self._thing = thing
        self._per_minute = per_minute
        self._total = 0.0
        # Spent in the last minute, and the part of it that an even pace has not worked off yet.
        self._recent: deque[Spending] = deque()
        self._sum = 0.0
        self._debt = 0.0
        self._debt_at = -math.inf
        # From the provider: the highest total until its limit resets.
        self._word = math.inf
        self._word_mark = 0.0
        self._full_at = -math.inf

    def next(self, amount: float, share: float, now: float) -> tuple[float, str]:
        """When `amount` fits, and why not earlier.

        `share` is our part of the stated limit. An amount larger than the whole limit, which never fits, passes
        when nothing else was let through for a minute.
        """
        moment, reason = now, ""
        if self._per_minute is not None:
            self._forget(now, share)
            moment = self._fits_at(amount, share, now)
            reason = f"the encoder's limit of {self._per_minute:,} {self._thing} a minute"
        if self._full_at > moment and self._total + amount > self._word:
            moment = self._full_at
            reason = f"the provider has too few {self._thing} left until its limit resets"
        return moment, reason

    def spend(self, amount: float, share: float, now: float) -> Spending:
        """Let the amount through now."""
        self._total += amount
        spending = Spending(now, amount, self._total)
        if self._per_minute is not None:
            self._forget(now, share)
            self._recent.append(spending)
            self._sum += amount
            self._debt += amount
        return spending

    def correct(self, spending: Spending, amount: float) -> None:
        """Replace the estimated amount of a spending with the real one."""
        if self._per_minute is not None and spending.counted:
            self._sum += amount - spending.amount
            self._debt += amount - spending.amount
            spending.amount = amount

    def hear(self, spending: Spending, left: float, full_at: float) -> None:
        """Apply what the answer to that spending says is left. Answers may arrive out of order: an older one is
        ignored."""
        if spending.mark >= self._word_mark:
            self._word, self._word_mark, self._full_at = spending.mark + left, spending.mark, full_at

    def disregard(self) -> None:
        """Forget what the provider said was left: it has named a wait since."""
        self._word, self._full_at = math.inf, -math.inf

    def _forget(self, now: float, share: float) -> None:
        while self._recent and self._recent[0].at + MINUTE_S <= now:
            gone = self._recent.popleft()
            gone.counted = False
            self._sum -= gone.amount
        if not self._recent:
            self._sum = 0.0  # drop accumulated rounding errors
        self._debt = max(0.0, self._debt - max(0.0, now - self._debt_at) * self._rate(share))
        self._debt_at = now

    def _fits_at(self, amount: float, share: float, now: float) -> float:
        moment = now + self._debt / self._rate(share) - BURST_S
        over = self._sum + amount - self._rate(share) * MINUTE_S
        for spending in self._recent:
            if over <= 1e-6:
                break
            over -= spending.amount
            moment = max(moment, spending.at + MINUTE_S)
        return moment

    def _rate(self, share: float) -> float:
        return (self._per_minute or 0) * share / MINUTE_S
