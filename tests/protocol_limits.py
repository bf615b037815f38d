"""The limits of an account on the server's side, enforced for real: what goes beyond is answered with 429."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tests.protocol_server import Failure


class Clock:
    """A clock that moves only during waits, so that minutes of limits pass at once. Usable from many threads."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._lock = threading.Lock()

    def __call__(self) -> float:
        return self._now

    def wait(self, seconds: float) -> None:
        with self._lock:
            self._now += seconds


@dataclass(frozen=True)
class Arrival:
    """A request that was let in."""

    at: float
    tokens: int


class AccountLimits:
    """So many requests and tokens in any `window_s`, and so many requests at once; None sets no limit.

    It keeps what it let in (`arrivals`), and how many it `refused`. With `tells`, every answer has OpenAI's
    headers about what is left, and a refusal a Retry-After.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        requests: int | None = None,
        tokens: int | None = None,
        at_once: int | None = None,
        window_s: float = 60.0,
        tells: bool = False,
    ) -> None:
        self.arrivals: list[Arrival] = []
        self.refused = 0
        self._clock = clock
        self._limits = {"requests": requests, "tokens": tokens}
        self._at_once = at_once
        self._window_s = window_s
        self._tells = tells
        self._window: deque[Arrival] = deque()
        self._seen = 0
        self._lock = threading.Condition()

    def wait_for(self, requests: int) -> None:
        """Wait until so many requests have come, refused ones included."""
        with self._lock:
            assert self._lock.wait_for(lambda: self._seen >= requests, 60)

    def enter(self, tokens: int, under_way: int) -> tuple[Failure | None, dict[str, str]]:
        """The refusal of a request of that many tokens, if it is one, and the headers of its answer."""
        with self._lock:
            now = self._clock()
            self._seen += 1
            self._lock.notify_all()
            while self._window and self._window[0].at + self._window_s <= now:
                self._window.popleft()
            over = [
                thing
                for thing, used in self._used(tokens).items()
                if (limit := self._limits[thing]) is not None and used > limit
            ]
            if self._at_once is not None and under_way > self._at_once:
                over.append("concurrent requests")
            if over:
                self.refused += 1
                headers = self._headers(now)
                if self._tells and self._window:
                    headers["Retry-After"] = str(math.ceil(self._window[0].at + self._window_s - now))
                return Failure(429, f"Rate limit reached for {over[0]}.", headers), headers
            arrival = Arrival(now, tokens)
            self._window.append(arrival)
            self.arrivals.append(arrival)
            return None, self._headers(now)

    def _used(self, more: int | None = None) -> dict[str, int]:
        requests = len(self._window) + (more is not None)
        return {"requests": requests, "tokens": sum(a.tokens for a in self._window) + (more or 0)}

    def _headers(self, now: float) -> dict[str, str]:
        headers: dict[str, str] = {}
        if not self._tells:
            return headers
        full_in = self._window[-1].at + self._window_s - now if self._window else 0.0
        for thing, used in self._used().items():
            limit = self._limits[thing]
            if limit is not None:
                headers[f"x-ratelimit-limit-{thing}"] = str(limit)
                headers[f"x-ratelimit-remaining-{thing}"] = str(max(0, limit - used))
                headers[f"x-ratelimit-reset-{thing}"] = f"{int(full_in // 60)}m{full_in % 60:.3f}s"
        return headers
