"""The way to a server: its URL, the connections, and what a request that fails on the way means."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from revector.core.encoders.answers import in_short
from revector.core.errors import UnreachableError
from revector.core.secrets import hide

if TYPE_CHECKING:
    import httpx2


class ThrottledError(Exception):
    """The request may be sent again, after the seconds that the provider asks for, if any.

    `refused` says that the provider works, but refused this request for now; `is_doubtful` that the texts may be at
    fault as well as the provider.
    """

    def __init__(
        self, reason: str, asked: float | None = None, *, refused: bool = False, is_doubtful: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.asked = asked
        self.refused = refused
        self.is_doubtful = is_doubtful and asked is None and not refused


class Channel:
    """Connections to one URL, as many as requests may be in flight. May be used from several threads."""

    def __init__(self, url: str, connections: int, timeout_s: float) -> None:
        import httpx2

        self.url = url
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = httpx2.Client(timeout=timeout_s, limits=limits)

    def post(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> httpx2.Response:
        """Send a request. Raises ThrottledError when there is no answer."""
        import httpx2

        try:
            return self._client.post(self.url, json=body, headers=headers)
        except httpx2.TransportError as error:  # without the cause, whose message may contain the key
            reason = in_short(f"Connection error: {str(error) or type(error).__name__}")
            nobody = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            raise ThrottledError(reason, is_doubtful=not nobody) from None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def read_key(variable: str, name: str, *, needed: bool) -> str:
    """The key in an environment variable, '' without one; `name` is the encoder's.

    It is stripped: the HTTP library refuses a key with a line end, and quotes it in the error. Raises
    UnreachableError for a key that no header can carry, and for none where it is needed.
    """
    key = os.environ.get(variable, "").strip()
    if not key and needed:
        raise UnreachableError(
            f"{name} needs an API key, and the environment variable {variable} is not set.",
            f"Set {variable}, or name another variable with key_env=….",
        )
    if not (key.isascii() and key.isprintable()):
        raise UnreachableError(
            f"The key in the environment variable {variable} has characters that no key has.",
            "Set it again: ASCII letters, digits and punctuation, on one line.",
        )
    hide(key)
    return key
