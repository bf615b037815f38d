"""When the next request may be sent, for all threads of one encoder.

All requests pass one gate. A thread that has to wait holds the gate for all others, so a throttling provider is
waited for once, its reason is reported once, and afterwards the threads continue one by one.
"""

from __future__ import annotations

import contextlib
import math
import random
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from revector.core.encoders.base import Throttled
from revector.core.encoders.headers import remaining
from revector.core.encoders.quota import Quota, Spending

clock = time.monotonic

LONGEST_HOLD_S = 120.0
"""The longest wait that a provider may ask for before we try again."""

_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 30.0
_STAGGER_S = 0.25
_LOOK_S = 5.0  # while waiting for a limit: our share may have changed
_SAME_HOLD_S = 1.0  # requests refused together are reported one after the other
_NEGLIGIBLE_S = 1e-6
_ROUNDS = 4  # a server that takes one request at a time refuses a second one now and then
_MOST_CORRECTION = 8.0  # a token is at least one byte, and the estimate is one for every four


class HeldError(Exception):
    """The provider lets no request pass for longer than the caller waits: its reason."""


@dataclass(frozen=True)
class Ticket:
    """A request in flight."""

    number: int
    estimate: int
    requests: Spending
    tokens: Spending


class Pacer:
    """Lets requests pass: as many at once and per minute as the spec and the provider allow.

    `hooks` is the encoder: its `on_throttle`, `on_resume` and `wait` may be replaced at any time. When `wait`
    returns, the time counts as over, whatever the clock says. `share` may be set at any time; `answered` counts
    answered requests.
    """

    def __init__(
        self,
        hooks: Throttled,
        parallel: int,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> None:
        self.share = 1.0
        self.tokens_per_minute = math.inf if tokens_per_minute is None else tokens_per_minute
        self.answered = 0
        self._hooks = hooks
        self._parallel = parallel
        self._quotas = {
            "requests": Quota("requests", requests_per_minute),
            "tokens": Quota("tokens", tokens_per_minute),
        }
        self._gate = threading.Lock()  # its holder waits for all
        self._changed = threading.Condition()  # guards everything below
        self._ahead = 0.0  # how far completed waits are ahead of the clock
        self._numbers = 0
        self._under_way = 0
        self._allowed = float(parallel)
        self._cut_at = 0
        self._held_until = -math.inf
        self._hold_reason = ""
        self._holds = 0
        self._restarting = False
        self._staggered_until = -math.inf
        self._estimated = self._billed = 0.0
        # The reason reported last and still in force: the number of a hold, or a limit by its name.
        self._told: int | str | None = None

    @property
    def allowed(self) -> int:
        """How many requests may be in flight at once: `parallel`, fewer after the provider has throttled."""
        return max(1, int(self._allowed))

    @property
    def correction(self) -> float:
        """Tokens billed for each estimated token so far; at least 1, to be safe."""
        return max(1.0, self._billed / self._estimated) if self._estimated else 1.0

    @contextlib.contextmanager
    def request(self, estimate: int, until: float = math.inf) -> Iterator[Ticket]:
        """Wait until a request of that many tokens may be sent; it is in flight until the block ends.

        Raises HeldError when the provider lets none pass before `until`, on the clock of time.monotonic, and what
        the hook `wait` raises.
        """
        ticket = self._pass(estimate, until)
        try:
            yield ticket
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify()

    def succeeded(self, ticket: Ticket, billed: int | None) -> None:
        """The request was answered; `tokens` is what it cost, if the provider reports it."""
        with self._changed:
            self.answered += 1
            self._restarting, self._staggered_until = False, -math.inf
            # As in TCP: one more in flight after some rounds of successes, half as many after a refusal.
            self._allowed = min(self._parallel, self._allowed + 1 / (_ROUNDS * self._allowed))
            if billed is not None:
                real = min(billed, ticket.estimate * _MOST_CORRECTION)
                self._estimated += ticket.estimate
                self._billed += real
                self._quotas["tokens"].correct(ticket.tokens, real)

    def heed(self, ticket: Ticket, headers: Mapping[str, str]) -> None:
        """Keep to the remaining limits in an answer's headers. They are the account's, of which we have a
        share."""
        with self._changed:
            for (thing, quota), spending in zip(
                self._quotas.items(), (ticket.requests, ticket.tokens), strict=True
            ):
                found = remaining(headers, thing)
                if found is not None:
                    left, seconds = found
                    full_at = self._now() + min(seconds, LONGEST_HOLD_S)
                    quota.hear(spending, math.floor(left * self.share), full_at)

    def hold(self, ticket: Ticket, seconds: float, reason: str, *, asked: bool) -> None:
        """The provider throttles: let no request pass for that long. `asked` says that it named the time."""
        with self._changed:
            until = self._now() + seconds
            if until > self._held_until + _SAME_HOLD_S or self._held_until <= self._now():
                self._holds += 1
                self._hold_reason = reason
            self._held_until = max(self._held_until, until)
            self._restarting, self._staggered_until = True, -math.inf
            if ticket.number > self._cut_at:  # sent since the last cut; requests refused together count once
                self._allowed = max(1.0, self._allowed / 2)
                self._cut_at = self._numbers
            if asked:
                for quota in self._quotas.values():
                    quota.disregard()

    def _pass(self, estimate: int, latest: float) -> Ticket:
        waited = False
        with self._gate:
            while True:
                if self._queue():  # another request took that long: ask whether to continue
                    self._hooks.wait(0)
                with self._changed:
                    now = self._now()
                    if self._held_until - now > latest - time.monotonic():
                        raise HeldError(self._hold_reason)
                    until, reason, key = self._next(estimate, now)
                    if until - now < _NEGLIGIBLE_S:
                        ticket = self._admit(estimate, now)
                        break
                self._wait(until - now, reason, key)
                waited = True
            # At a limit every request waits a little; the limit is in force until one does not.
            if isinstance(self._told, int) or (self._told and not waited):
                self._told = None
                self._hooks.on_resume()
        return ticket

    def _queue(self) -> bool:
        """Wait until fewer requests are in flight than allowed; returns whether it had to wait."""
        with self._changed:
            free = self._under_way < self.allowed
            while self._under_way >= self.allowed:
                self._changed.wait()
            return not free

    def _next(self, estimate: int, now: float) -> tuple[float, str, int | str | None]:
        """When the request may be sent, why not earlier, and the key of that reason in `_told`."""
        delays: list[tuple[float, str, int | str | None]] = [
            (self._staggered_until, "", None),
            (self._held_until, self._hold_reason, self._holds),
        ]
        for thing, amount in (("requests", 1.0), ("tokens", estimate * self.correction)):
            delays.append((*self._quotas[thing].next(amount, self.share, now), thing))
        return max(delays, key=lambda delay: delay[0])

    def _admit(self, estimate: int, now: float) -> Ticket:
        self._numbers += 1
        self._under_way += 1
        if self._restarting:  # no request was answered since: delay the next one a little
            self._staggered_until = now + random.uniform(0, _STAGGER_S)  # noqa: S311
        return Ticket(
            self._numbers,
            estimate,
            self._quotas["requests"].spend(1.0, self.share, now),
            self._quotas["tokens"].spend(estimate * self.correction, self.share, now),
        )

    def _wait(self, seconds: float, reason: str, key: int | str | None) -> None:
        if key is not None and key != self._told:
            self._told = key
            self._hooks.on_throttle(seconds, reason)
        if isinstance(key, str):
            seconds = min(seconds, _LOOK_S)
        with self._changed:
            over = self._now() + seconds
        self._hooks.wait(seconds)
        with self._changed:
            self._ahead += max(0.0, over - self._now())

    def _now(self) -> float:
        return clock() + self._ahead


def backoff(retry: int, *, refused: bool) -> float:
    """Seconds before a retry (0 is the first) when the provider names none.

    Exponential, with full jitter: workers must not all retry at once. After a refusal it grows faster: six retries
    take more than a minute, the period of most limits.
    """
    if refused:
        return min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 4.0**retry) * random.uniform(0.75, 1)  # noqa: S311
    return random.uniform(0, min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2.0**retry))  # noqa: S311
