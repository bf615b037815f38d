"""One limit of a provider, of requests or of tokens: from when on the next amount fits.

It knows two limits: the one the spec states, so many a minute, and what the provider says is left. The libraries
for the first (pyrate-limiter, limits, aiolimiter) sleep where nothing can wake them or need asyncio, keep an entry
for each token, and cannot take an estimate back; without those parts, little more than this remains of them.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

MINUTE_S = 61.0
"""A second more than a minute: the provider counts a request when it arrives, not when it is sent."""

BURST_S = 1.0
"""So much of a minute's limit may be spent at once; the rest is spread, as providers look at seconds too."""


@dataclass
class Spending:
    """An amount that was let through. `mark` is all that had been let through by then, itself included."""

    at: float
    amount: float
    mark: float
    counted: bool = True


class Quota:
    """Counts one limit. Times are seconds of the caller's clock; the caller sees to it that calls do not overlap."""

    def __init__(self, thing: str, per_minute: int | None) -> None:
        self._thing = thing
        self._per_minute = per_minute
        self._total = 0.0
        # Of the last minute, and what of it an even pace has not worked off yet.
        self._recent: deque[Spending] = deque()
        self._sum = 0.0
        self._debt = 0.0
        self._debt_at = -math.inf
        # The provider's word: up to where the total may go until its limit is full again.
        self._word = math.inf
        self._word_mark = 0.0
        self._full_at = -math.inf

    def next(self, amount: float, share: float, now: float) -> tuple[float, str]:
        """The moment from which on `amount` fits, and why not before.

        `share` is the part of the stated limit that is ours. An amount larger than the whole limit passes when
        nothing else was let through for a minute: it cannot be made to fit.
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
        """The amount of a spending was an estimate, and this is the truth."""
        if self._per_minute is not None and spending.counted:
            self._sum += amount - spending.amount
            self._debt += amount - spending.amount
            spending.amount = amount

    def hear(self, spending: Spending, left: float, full_at: float) -> None:
        """The answer to that spending says what is left. Answers overtake each other: the older says nothing new."""
        if spending.mark >= self._word_mark:
            self._word, self._word_mark, self._full_at = spending.mark + left, spending.mark, full_at

    def disregard(self) -> None:
        """Forget the provider's word: it has said something plainer since."""
        self._word, self._full_at = math.inf, -math.inf

    def _forget(self, now: float, share: float) -> None:
        while self._recent and self._recent[0].at + MINUTE_S <= now:
            gone = self._recent.popleft()
            gone.counted = False
            self._sum -= gone.amount
        if not self._recent:
            self._sum = 0.0  # whatever fractions had added up to
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
