"""A TCP proxy between workers and the server's Unix socket, which fails in the ways that networks do.

It reads what clients send message by message (see "Message Formats" of Postgres' protocol 3.0), so that it can fail
at a chosen moment: in the middle of a COPY, or with a COMMIT that was sent and not yet answered.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from psycopg.conninfo import conninfo_to_dict

Moment = Literal["in copy", "before commit", "after commit"]
Deed = Literal["cut", "freeze"]

_READ = 64 * 1024
_COPY_HEADER = 100
"""Bytes, at most, of a message that holds no rows yet."""


class Proxy:
    """Listens on 127.0.0.1; `dsn` leads through it to the server of another."""

    def __init__(self, dsn: str) -> None:
        parts = conninfo_to_dict(dsn)
        self._server = f"{parts['host']}/.s.PGSQL.{parts['port']}"
        self.delay_s = 0.0
        """Waited after each read, in both directions."""
        self.fuses: Callable[[], tuple[int, int]] | None = None
        """Gives a new connection the bytes after which it is cut: from the client, and from the server."""
        self.cuts = 0
        """Connections cut so far, whatever for."""
        self._links: set[_Link] = set()
        self._traps: list[tuple[Moment, Deed]] = []
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._refusing, self.refused = False, 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        port = self._listener.getsockname()[1]
        # Without encryption, of which nothing could be read here.
        self.dsn = f"postgresql://postgres@127.0.0.1:{port}/{parts['dbname']}?sslmode=disable&gssencmode=disable"
        threading.Thread(target=self._take, daemon=True).start()

    # -- what a test does to it ---------------------------------------------------------------------------

    def cut_all(self) -> None:
        """End every connection at once, on both sides."""
        for link in self._now():
            link.cut()

    def refuse(self) -> None:
        """Turn away new connections, and count them in `refused`, until `accept`."""
        self.refused, self._refusing = 0, True

    def accept(self) -> None:
        """Let new connections in again."""
        self._refusing = False

    def freeze(self) -> None:
        """Pass nothing on, and close nothing: to both sides this looks like a slow answer."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Pass on what has been waiting; connections frozen by a trap too."""
        self._flowing.set()
        for link in self._now():
            link.flowing.set()

    def trap(self, moment: Moment, deed: Deed = "cut", times: int = 1) -> None:
        """Cut or freeze the next connections that come to this moment of a transaction that copied rows."""
        with self._lock:
            self._traps += [(moment, deed)] * times

    @property
    def armed(self) -> int:
        """Traps that wait for their moment."""
        return len(self._traps)

    def close(self) -> None:
        self.refuse()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    # -- the works ----------------------------------------------------------------------------------------

    def sprung(self, *moments: Moment) -> tuple[Moment, Deed] | None:
        """The trap for one of these moments, which is then used up."""
        with self._lock:
            for found in self._traps:
                if found[0] in moments:
                    self._traps.remove(found)
                    return found
        return None

    def wait_to_flow(self) -> None:
        self._flowing.wait()

    def gone(self, link: _Link) -> None:
        with self._lock:
            self._links.discard(link)

    def _now(self) -> list[_Link]:
        with self._lock:
            return list(self._links)

    def _take(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                self.refused += 1
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._server)
            except OSError:  # the server is away
                client.close()
                server.close()
                continue
            link = _Link(self, client, server, self.fuses() if self.fuses else (0, 0))
            with self._lock:
                self._links.add(link)
            link.start()


@dataclass
class _Message:
    """Bytes of one message from a client; `kind` is empty in a connection's first, which has none."""

    kind: bytes
    data: bytes
    starts: bool


class _Link:
    """One connection: two threads that pass on what each side sends."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket, fuses: tuple[int, int]) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self.flowing = threading.Event()
        self.flowing.set()
        self._fuses = list(fuses)
        self._cut = False
        self._copied = False
        self._commit: Deed | None = None  # done when the server has answered
        self._kind, self._left, self._header, self._begun = b"", 0, b"", False

    def start(self) -> None:
        for target in (self._from_client, self._from_server):
            threading.Thread(target=self._guarded, args=[target], daemon=True).start()

    def cut(self) -> None:
        if not self._cut:
            self._cut = True
            self._proxy.cuts += 1
        self.flowing.set()
        self._close()

    def _close(self) -> None:
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._proxy.gone(self)

    def _guarded(self, target: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):  # an end is gone: so goes the other
            target()
        self._close()

    def _from_client(self) -> None:
        while data := self._read(self._client):
            for message in self._messages(data):
                self._pass_on(message)

    def _from_server(self) -> None:
        while data := self._read(self._server):
            if self._commit is not None and b"COMMIT\0" in data:
                deed, self._commit = self._commit, None
                self._do(deed)
            self._send(self._client, data, 1)

    def _read(self, end: socket.socket) -> bytes:
        data = end.recv(_READ)
        if self._proxy.delay_s:
            threading.Event().wait(self._proxy.delay_s)
        return data

    def _send(self, end: socket.socket, data: bytes, fuse: int) -> None:
        self._proxy.wait_to_flow()
        self.flowing.wait()
        if self._fuses[fuse]:
            if len(data) >= self._fuses[fuse]:
                end.sendall(data[: self._fuses[fuse]])
                self.cut()
                return
            self._fuses[fuse] -= len(data)
        end.sendall(data)

    def _do(self, deed: Deed) -> None:
        if deed == "cut":
            self.cut()
        else:
            self.flowing.clear()

    def _pass_on(self, message: _Message) -> None:
        if message.kind == b"d" and message.starts:
            self._copied = True
            rows = len(message.data) > _COPY_HEADER
            if rows and (trap := self._proxy.sprung("in copy")) is not None:
                half = len(message.data) // 2
                self._send(self._server, message.data[:half], 0)
                self._do(trap[1])
                self._send(self._server, message.data[half:], 0)
                return
        # A statement alone comes as a Query message, and in a pipeline as Parse.
        if message.kind in (b"Q", b"P") and b"COMMIT" in message.data and self._copied:
            self._copied = False
            trap = self._proxy.sprung("before commit", "after commit")
            if trap is not None and trap[0] == "before commit":
                self._do(trap[1])
            elif trap is not None:
                self._commit = trap[1]
        self._send(self._server, message.data, 0)

    def _messages(self, data: bytes) -> list[_Message]:
        """Part what was read at the borders of messages, which may begin and end anywhere in it."""
        found = []
        while data:
            if self._left:
                part, data = data[: self._left], data[self._left :]
                self._left -= len(part)
                found.append(_Message(self._kind, part, False))
                continue
            whole = 5 if self._begun else 4
            taken = whole - len(self._header)
            self._header, data = self._header + data[:taken], data[taken:]
            if len(self._header) < whole:
                break
            self._kind = self._header[: whole - 4]
            length = int.from_bytes(self._header[-4:], "big") - 4
            part, data = data[:length], data[length:]
            self._left = length - len(part)
            found.append(_Message(self._kind, self._header + part, True))
            self._header, self._begun = b"", True
        return found
