"""The way to a server: its URL, the connections, and what a request that fails on the way means."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

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

    def __init__(
        self,
        url: str,
        connections: int,
        timeout_s: float,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str],
    ) -> None:
        import httpx2

        self.url = url
        self._has_answered = False
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = httpx2.Client(timeout=timeout_s, limits=limits, headers=headers, params=params)

    def post(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> httpx2.Response:
        """Send a request.

        Raises ThrottledError when there is no answer, UnreachableError when TLS does not let one through.
        """
        import httpx2

        try:
            response = self._client.post(self.url, json=body, headers=headers)
        except httpx2.TransportError as error:  # without the cause, whose message may contain the key
            trouble = _tls_trouble(error, self.url)
            nobody = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            if trouble is None and not (nobody or self._has_answered) and _expects_tls(self.url):
                trouble = f"{self.url} was asked in plain HTTP, and expects TLS.", "Write https:// in base_url."
            if trouble is not None:
                raise UnreachableError(*trouble, temporary=self._has_answered) from None
            reason = in_short(f"Connection error: {str(error) or type(error).__name__}")
            raise ThrottledError(reason, is_doubtful=not nobody) from None
        self._has_answered = True
        return response

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def read_key(variable: str, name: str, *, needed: bool, setting: str = "key_env") -> str:
    """The key in an environment variable, '' without one; `name` is the encoder's, `setting` what names the variable.

    It is stripped: the HTTP library refuses a key with a line end, and quotes it in the error. Raises
    UnreachableError for a key that no header can carry, and for none where it is needed.
    """
    key = os.environ.get(variable, "").strip()
    if not key and needed:
        raise UnreachableError(
            f"{name} needs an API key, and the environment variable {variable} is not set.",
            f"Set {variable}, or name another variable with {setting}=….",
        )
    if not (key.isascii() and key.isprintable()):
        raise UnreachableError(
            f"The key in the environment variable {variable} has characters that no key has.",
            "Set it again: ASCII letters, digits and punctuation, on one line.",
        )
    hide(key)
    return key


_WRONG_HOST = (62, 64)  # by name and by address: OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH
_WRONG_TIME = (9, 10)
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")
_HANDSHAKE_S = 5.0


def _tls_trouble(error: BaseException, url: str) -> tuple[str, str] | None:
    """What is wrong with TLS, and what to do; None when the failure is another one, which may pass."""
    import ssl

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is None or isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return None
    if not isinstance(cause, ssl.SSLCertVerificationError):
        if cause.reason in _NOT_TLS:
            return f"{url} does not speak TLS.", "Write http:// in base_url if the server has no certificate."
        return f"TLS with {url} failed: {in_short(str(cause))}", "Check base_url, and which TLS the server offers."
    why = in_short(cause.verify_message)
    if cause.verify_code in _WRONG_HOST:
        return f"The certificate of {url} is another host's: {why}", "Write the name that it is for in base_url."
    if cause.verify_code in _WRONG_TIME:
        return f"The certificate of {url} is not valid now: {why}", "Renew it, or check this machine's clock."
    return (
        f"The certificate of {url} was not signed by anybody whom this machine trusts: {why}",
        "If it is your own authority's, name the file with its certificate: SSL_CERT_FILE=/path/to/ca.pem",
    )


def _expects_tls(url: str) -> bool:
    """Whether a server that ends plain connections would shake hands. Nothing is sent but the handshake."""
    import socket
    import ssl

    address = urlsplit(url)
    if address.scheme != "http":
        return False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((address.hostname, address.port or 80), _HANDSHAKE_S) as connection:
            context.wrap_socket(connection).close()
    except OSError:
        return False
    return True
