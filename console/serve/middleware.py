"""The middleware for every request: token, slots, body, deadline. An ASGI application around the real one.

Only `/healthz` needs no token. It and `/metrics` need no slot: they matter most when all slots are taken, and are
cheap.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Set

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from revector.console.serve import problems
from revector.console.serve.access import Access
from revector.console.serve.limits import Limits, Slots
from revector.console.serve.metrics import Metrics
from revector.console.serve.problems import Problem, Refused

log = logging.getLogger(__name__)

HEALTH = "/healthz"
METRICS = "/metrics"

_LINGER_S = 1.0
_LINGER_BYTES = 16 * 1024 * 1024
"""A refused client that is still sending reads the answer only if its bytes are read for a while."""


class Middleware:
    """Wraps the application, and enforces what must hold whatever a route does."""

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        limits: Limits,
        metrics: Metrics,
        routes: Set[str],
        note: Callable[[str], None],
    ) -> None:
        self._app = app
        self._access = access
        self._limits = limits
        self._metrics = metrics
        self._routes = routes
        self._note = note
        self.slots = Slots(limits.max_concurrency)
        self.stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or pass on the server's own messages."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        started = time.perf_counter()
        self._metrics.in_flight.inc()
        try:
            await self._answer(scope, receive, answer)
        finally:
            self._metrics.in_flight.dec()
            route = scope["path"] if scope["path"] in self._routes else "other"
            method = scope["method"] if scope["method"] in ("GET", "POST") else "other"
            self._metrics.requests.labels(route, method, answer.status).inc()
            self._metrics.request_seconds.labels(route).observe(time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            await self._let_in(scope, receive, answer)
        except Refused as refused:
            await self._refuse(refused.problem, scope, receive, answer)
        except Exception as error:  # noqa: BLE001  (whatever it is, no caller may see it)
            self._note(f"internal error: {_whereabouts(error)}")
            log.error("internal error: %s", _whereabouts(error))
            await self._refuse(problems.INTERNAL, scope, receive, answer)

    async def _let_in(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        path = scope["path"]
        if path != HEALTH and not self._access.allows(Headers(scope=scope)):
            raise Refused(problems.UNAUTHORIZED if self._access.token is not None else problems.FOREIGN_HOST)
        if self.stopping:
            raise Refused(problems.STOPPING)
        if path in (HEALTH, METRICS):
            await self._within(scope, _only(b""), answer)
            return
        slot = self.slots.take()
        if slot is None:
            raise Refused(problems.busy(self.slots.limit))
        try:
            scope["slot"] = slot
            body = await self._read_body(scope, receive)
            await self._within(scope, _only(body), answer)
        finally:
            slot.release()

    async def _within(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        # Time for the search to notice by itself, since its own error says more.
        seconds = self._limits.timeout_s
        try:
            async with asyncio.timeout(seconds * 1.1):
                await self._app(scope, receive, answer)
        except TimeoutError:
            raise Refused(problems.too_slow(seconds)) from None

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        """Read the whole body; the length in the header is trusted only if it is too large."""
        limit = self._limits.max_body_bytes
        if _announced(scope) > limit:
            raise Refused(problems.too_large(limit))
        parts: list[bytes] = []
        length = 0
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        break
                    parts.append(message.get("body", b""))
                    length += len(parts[-1])
                    if length > limit:
                        raise Refused(problems.too_large(limit))
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            raise Refused(problems.slow_body(self._limits.timeout_s)) from None
        return b"".join(parts)

    async def _refuse(self, problem: Problem, scope: Scope, receive: Receive, answer: _Answer) -> None:
        self._metrics.errors.labels(problem.kind).inc()
        if answer.status:  # the answer was already being sent: uvicorn closes the connection
            return
        has_body = _announced(scope) or "transfer-encoding" in Headers(scope=scope)
        unread = problem.status not in (408, 504) and bool(has_body)
        headers = problem.head
        if unread or problem.status == 408:
            headers["connection"] = "close"
        await answer(
            {
                "type": "http.response.start",
                "status": problem.status,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            }
        )
        await answer({"type": "http.response.body", "body": problem.body, "more_body": unread})
        if unread:
            await _linger(receive)
            await answer({"type": "http.response.body", "body": b"", "more_body": False})


class _Answer:
    """Sends an answer and records its status, 0 until then."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def _only(body: bytes) -> Receive:
    """A `receive` for a request whose body was already read."""
    sent = False

    async def receive() -> Message:
        nonlocal sent
        if sent:
            await asyncio.Event().wait()  # nothing here waits for the client to disconnect
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _linger(receive: Receive) -> None:
    taken = 0
    try:
        async with asyncio.timeout(_LINGER_S):
            while taken < _LINGER_BYTES:
                message = await receive()
                taken += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _announced(scope: Scope) -> int:
    return int(Headers(scope=scope).get("content-length", 0))  # digits: the HTTP parser rejects anything else


def _whereabouts(error: Exception) -> str:
    """The type and place of an error, without its message, which may quote what must not be logged."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else "nowhere"
    ours = [frame for frame in frames if "site-packages" not in frame.filename]
    via = f", from {ours[-1].filename}:{ours[-1].lineno}" if ours and ours[-1] is not frames[-1] else ""
    return f"{type(error).__name__} at {place}{via}"
