"""The server process: a socket, uvicorn on it, and a clean shutdown.

At SIGTERM or SIGINT the server accepts no new connections, finishes requests in flight, and ends. uvicorn alone
would then be killed by the signal; a service manager expects exit status 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from revector.console.serve.access import Access
from revector.console.serve.api import make_api, paths_of
from revector.console.serve.limits import Limits
from revector.console.serve.metrics import Metrics
from revector.console.serve.middleware import Middleware
from revector.console.serve.problems import Problem, busy
from revector.core.errors import UsageError

if TYPE_CHECKING:
    from revector.console.serve.service import Service

log = logging.getLogger(__name__)

_HEADERS_S = 10
"""The time limit for a request's headers, and between two requests on one connection."""

_BAD_REQUEST = Problem(400, "invalid", "This is not a valid HTTP request.")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 means any free port. Raises UsageError when the address is not available."""
    listener: socket.socket | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, bound = found[0]
        # asyncio recognises a TCP socket by its protocol, and turns off Nagle's algorithm, which costs 40 ms for
        # each answer. (socket.create_server sets none.)
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(bound)
        listener.listen(512)
        return listener
    except (OSError, OverflowError, UnicodeError) as error:
        if listener is not None:
            listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"Cannot serve on {host}, port {port}: {reason}.", "Name another --host or --port."
        ) from None


def url_of(listener: socket.socket) -> str:
    """`http://127.0.0.1:8765`."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    service: Service, access: Access, limits: Limits, listener: socket.socket, note: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or SIGINT. Raises KeyboardInterrupt at its end when a person pressed Ctrl-C.

    Closes the service. If a search hangs, the process is ended here, since Python would wait for the thread.
    """
    metrics = Metrics()
    metrics.watch(service.pool, service.served)
    api = make_api(service, metrics)
    middleware = Middleware(api, access, limits, metrics, set(paths_of(api)), note)
    server = _Server(middleware, limits)
    log.info("serving on %s", url_of(listener))
    try:
        server.run([listener])
    finally:
        service.close()
        log.info("serving ended, %d searches unfinished", middleware.slots.taken)
    if middleware.slots.taken:
        note(f"{middleware.slots.taken} searches did not finish within {limits.drain_s:g} s and were abandoned.")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    if server.interrupted:
        raise KeyboardInterrupt


class _Server(uvicorn.Server):
    """uvicorn, quiet, and without raising the signal at its end."""

    def __init__(self, middleware: Middleware, limits: Limits) -> None:
        super().__init__(
            uvicorn.Config(
                middleware,
                http=_protocol(limits),
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_HEADERS_S,
                timeout_graceful_shutdown=round(limits.drain_s),
            )
        )
        self._middleware = middleware
        self.interrupted = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Like uvicorn's, but without raising the signals again."""
        taken = (signal.SIGINT, signal.SIGTERM)
        before = {one: signal.signal(one, self.handle_exit) for one in taken}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the shutdown; a second Ctrl-C does not wait for requests in flight."""
        self.interrupted = sig == signal.SIGINT
        self._middleware.stopping = True
        super().handle_exit(sig, frame)


def _protocol(limits: Limits) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 with limits before a request: on connections, and on the time of its headers."""

    class Protocol(H11Protocol):
        _headers_due: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.max_connections:
                self._end(busy(limits.max_concurrency))
            else:
                self._wait_for_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._wait_for_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._headers_due is not None:
                self._headers_due.cancel()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            self._end(_BAD_REQUEST)

        def _wait_for_headers(self) -> None:
            """The clock starts when the last request was answered; slowly arriving bytes do not stop it."""
            waiting = self.cycle is None or self.cycle.response_complete
            if not waiting and self._headers_due is not None:
                self._headers_due.cancel()
                self._headers_due = None
            elif waiting and self._headers_due is None:
                self._headers_due = self.loop.call_later(_HEADERS_S, self._too_late)

        def _too_late(self) -> None:
            self._headers_due = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

        def _end(self, problem: Problem) -> None:
            head = {**problem.head, "connection": "close"}
            lines = [f"HTTP/1.1 {problem.status} {problem.kind}", *map(": ".join, head.items()), "", ""]
            self.transport.write("\r\n".join(lines).encode() + problem.body)
            self.transport.close()

    return Protocol
