"""When the next request may go, for all threads of one encoder.

One gate stands before the requests. A thread that may not pass yet waits in it for all others, so a provider that
throttles is waited for once, its reason is told once, and afterwards the threads come back one by one.
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
"""The longest time we wait at the provider's word before we ask again."""

_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 30.0
_STAGGER_S = 0.25
_LOOK_S = 5.0  # while waiting for a limit: its share may have changed
_SAME_HOLD_S = 1.0  # requests refused together say so one after the other
_NEGLIGIBLE_S = 1e-6
_ROUNDS = 4  # a server that takes one request at once refuses the second one every so often
_MOST_CORRECTION = 8.0  # a token is a byte at least, and an estimate one for every four


@dataclass(frozen=True)
class Ticket:
    """A request that is under way."""

    number: int
    estimate: int
    requests: Spending
    tokens: Spending


class Pacer:
    """Lets requests pass, so many at once and a minute as the spec and the provider allow.

    `hooks` is the encoder: its `on_throttle`, `on_resume` and `wait` may be replaced at any time. A `wait` that
    returns is believed: the time is over then, whatever the clock says. `share` may be set at any time; `answered`
    counts the requests that were.
    """

    def __init__(
        self,
        hooks: Throttled,
        parallel: int,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
    ) -> None:
        self.share = 1.0
        self.answered = 0
        self._hooks = hooks
        self._parallel = parallel
        self._tokens_per_minute = tokens_per_minute
        self._quotas = {
            "requests": Quota("requests", requests_per_minute),
            "tokens": Quota("tokens", tokens_per_minute),
        }
        self._gate = threading.Lock()  # whoever has it waits for all
        self._changed = threading.Condition()  # guards everything below
        self._ahead = 0.0  # how far the waits are ahead of the clock
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
        # What was told last and is in force: the number of a hold, or a limit by its name.
        self._told: int | str | None = None

    @property
    def allowed(self) -> int:
        """How many requests may be under way at once: `parallel`, fewer after the provider has throttled."""
        return max(1, int(self._allowed))

    @property
    def correction(self) -> float:
        """Tokens that the provider bills for each one estimated so far; at least 1, to be on the safe side."""
        return max(1.0, self._billed / self._estimated) if self._estimated else 1.0

    @property
    def most_tokens(self) -> float:
        """The most tokens that fit into a minute, by the spec and our share."""
        return math.inf if self._tokens_per_minute is None else self._tokens_per_minute * self.share

    @contextlib.contextmanager
    def request(self, estimate: int) -> Iterator[Ticket]:
        """Wait until a request of that many tokens may go; it is under way until the block ends.

        Raises what the hook `wait` raises.
        """
        ticket = self._pass(estimate)
        try:
            yield ticket
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify()

    def succeeded(self, ticket: Ticket, billed: int | None) -> None:
        """The request was answered, and cost that many tokens, if the provider says so."""
        with self._changed:
            self.answered += 1
            self._restarting, self._staggered_until = False, -math.inf
            # As in TCP: one more at once after some rounds of successes, half as many after a refusal.
            self._allowed = min(self._parallel, self._allowed + 1 / (_ROUNDS * self._allowed))
            if billed is not None:
                real = min(billed, ticket.estimate * _MOST_CORRECTION)
                self._estimated += ticket.estimate
                self._billed += real
                self._quotas["tokens"].correct(ticket.tokens, real)

    def heed(self, ticket: Ticket, headers: Mapping[str, str]) -> None:
        """Keep to what the headers of an answer say is left. They speak of the account, of which we have a share."""
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
        """The provider throttles: let nobody pass for that long. `asked` says that it was its own wish."""
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

    def _pass(self, estimate: int) -> Ticket:
        waited = False
        with self._gate:
            while True:
                if self._queue():  # as long as another request took: ask whether to go on
                    self._hooks.wait(0)
                with self._changed:
                    now = self._now()
                    until, reason, key = self._next(estimate, now)
                    if until - now < _NEGLIGIBLE_S:
                        ticket = self._let_go(estimate, now)
                        break
                self._wait(until - now, reason, key)
                waited = True
            # At a limit every request waits a little: it is in force until one does not.
            if isinstance(self._told, int) or (self._told and not waited):
                self._told = None
                self._hooks.on_resume()
        return ticket

    def _queue(self) -> bool:
        """Wait until fewer requests are under way than may be; whether there was anything to wait for."""
        with self._changed:
            free = self._under_way < self.allowed
            while self._under_way >= self.allowed:
                self._changed.wait()
            return not free

    def _next(self, estimate: int, now: float) -> tuple[float, str, int | str | None]:
        """The moment from which on the request may go, why not before, and what that is called in `_told`."""
        delays: list[tuple[float, str, int | str | None]] = [
            (self._staggered_until, "", None),
            (self._held_until, self._hold_reason, self._holds),
        ]
        for thing, amount in (("requests", 1.0), ("tokens", estimate * self.correction)):
            delays.append((*self._quotas[thing].next(amount, self.share, now), thing))
        return max(delays, key=lambda delay: delay[0])

    def _let_go(self, estimate: int, now: float) -> Ticket:
        self._numbers += 1
        self._under_way += 1
        if self._restarting:  # nobody has been answered since: let the next one come a little later
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

    Exponential, with full jitter: workers must not come back at once. After a refusal it grows faster, and six of
    them take more than a minute, which is what most limits count by.
    """
    if refused:
        return min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 4.0**retry) * random.uniform(0.75, 1)  # noqa: S311
    return random.uniform(0, min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2.0**retry))  # noqa: S311
