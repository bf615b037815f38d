"""A TCP proxy that knows the statements of a flip, and fails before or after a chosen one of them.

A statement is what ends with a Query or a Sync message, and its answer ends with ReadyForQuery ("Message Flow" of
Postgres' protocol 3.0). The flip's statements are numbered from the one that sets its isolation level to its COMMIT.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from psycopg.conninfo import conninfo_to_dict

FIRST = b"ISOLATION LEVEL READ COMMITTED"

Moment = tuple[int, str]
"""The statement's number, and `before` or `after`: before the server has it, after it has answered and before the
client has the answer."""


class StatementProxy:
    """Listens on 127.0.0.1; `dsn` leads through it to the server of another."""

    def __init__(self, dsn: str) -> None:
        parts = conninfo_to_dict(dsn)
        self._server = f"{parts['host']}/.s.PGSQL.{parts['port']}"
        self._moment: Moment | None = None
        self._deed: Callable[[], None] = lambda: None
        self.refusing = False
        self.sprung = threading.Event()
        self.statements: list[bytes] = []
        """Those of the newest flip, as far as it came."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        port = self._listener.getsockname()[1]
        self.dsn = f"postgresql://postgres@127.0.0.1:{port}/{parts['dbname']}?sslmode=disable&gssencmode=disable"
        threading.Thread(target=self._take, daemon=True).start()

    def arm(self, moment: Moment | None, deed: Callable[[], None] = lambda: None) -> None:
        """At that moment of the next flip `deed` is done, and then its connection is cut."""
        self._moment, self._deed, self.refusing = moment, deed, False
        self.sprung.clear()

    def due(self, number: int, when: str) -> bool:
        """Whether this is the moment; the deed is done then."""
        if self._moment != (number, when):
            return False
        self._moment = None
        self._deed()
        self.sprung.set()
        return True

    def close(self) -> None:
        self.refusing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                try:
                    if self.refusing:
                        raise ConnectionRefusedError
                    server.connect(self._server)
                except OSError:
                    client.close()
                    continue
                # Many small messages: each would wait for the word that the one before has arrived.
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _Link(self, client, server)


class _Link:
    """One connection: a thread each way."""

    def __init__(self, proxy: StatementProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy, self._client, self._server = proxy, client, server
        self._number = 0
        self._after: int | None = None
        for target in (self._from_client, self._from_server):
            threading.Thread(target=self._guarded, args=(target,), daemon=True).start()

    def _guarded(self, target: Callable[[], None]) -> None:
        with contextlib.suppress(OSError, EOFError):
            target()
        self._cut()

    def _cut(self) -> None:
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _from_client(self) -> None:
        self._server.sendall(_message(self._client, 4)[1])  # the start-up message has no kind
        statement = b""
        while True:
            kind, message = _message(self._client, 5)
            statement += message
            if kind not in b"QSX":
                continue
            if self._number or FIRST in statement:
                self._number += 1
                if self._number == 1:
                    self._proxy.statements.clear()
                self._proxy.statements.append(statement)
                if self._proxy.due(self._number, "before"):
                    return
                self._after = self._number
            if statement.endswith((b"COMMIT\0", b"ROLLBACK\0")):
                self._number = 0
            self._server.sendall(statement)
            statement = b""

    def _from_server(self) -> None:
        answer = b""
        while True:
            kind, message = _message(self._server, 5)
            answer += message
            if kind == b"Z":
                after, self._after = self._after, None
                if after is not None and self._proxy.due(after, "after"):
                    return
            # Nothing of an answer arrives before its end, except for the last words of a server that goes.
            if kind in (b"Z", b"E") or self._after is None:
                self._client.sendall(answer)
                answer = b""


def _message(end: socket.socket, header: int) -> tuple[bytes, bytes]:
    """One message: its kind (b"" in a header of four bytes) and all of it."""
    head = _read(end, header)
    return head[: header - 4], head + _read(end, int.from_bytes(head[-4:], "big") - 4)


def _read(end: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = end.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return data
