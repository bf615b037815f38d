"""Failures of TLS, against a server with a certificate of its own: each says what is wrong, and none is waited for."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from revector.core.encoders import open_encoder
from revector.core.errors import UnreachableError
from tests.protocol_server import ProtocolServer, embed

CERTIFICATE = Path(__file__).parents[2] / "localhost.pem"
"""Made for tests, for the name localhost, signed by itself; its key is in the file."""


@pytest.fixture
def server() -> Iterator[ProtocolServer]:
    with ProtocolServer(certificate=CERTIFICATE) as running:
        yield running


@pytest.fixture
def plain() -> Iterator[ProtocolServer]:
    with ProtocolServer() as running:
        yield running


def encode(base_url: str) -> Any:
    encoder = open_encoder(f"openai:house-model?base_url={base_url}")
    encoder.wait = lambda seconds: pytest.fail("it waited")  # type: ignore[attr-defined]
    try:
        return encoder.encode_query("a key")
    finally:
        encoder.close()


def refusal(base_url: str) -> UnreachableError:
    with pytest.raises(UnreachableError) as caught:
        encode(base_url)
    assert not caught.value.temporary
    return caught.value


def test_a_certificate_that_is_trusted(server: ProtocolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    named = server.base_url.replace("127.0.0.1", "localhost")
    np.testing.assert_allclose(encode(named), embed("a key", "house-model"), atol=1e-6)


def test_a_certificate_that_nobody_knows(server: ProtocolServer) -> None:
    error = refusal(server.base_url.replace("127.0.0.1", "localhost"))
    assert "was not signed by anybody whom this machine trusts: self-signed certificate" in error.problem
    assert "SSL_CERT_FILE=" in error.remedy


def test_a_certificate_for_another_host(server: ProtocolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    error = refusal(server.base_url)
    assert "is another host's: IP address mismatch, certificate is not valid for '127.0.0.1'" in error.problem
    assert "the name that it is for" in error.remedy


def test_https_where_http_is_spoken(plain: ProtocolServer) -> None:
    error = refusal(plain.base_url.replace("http:", "https:"))
    assert "does not speak TLS" in error.problem
    assert "http://" in error.remedy


def test_http_where_https_is_spoken(server: ProtocolServer) -> None:
    error = refusal(server.base_url.replace("https:", "http:"))
    assert "was asked in plain HTTP, and expects TLS" in error.problem
    assert "https://" in error.remedy


def test_no_common_version_of_tls(plain: ProtocolServer) -> None:
    """Anything else that OpenSSL finds is said in its words."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA")  # for another kind of key than the certificate's
    plain.serve_tls(context)
    error = refusal(plain.base_url)
    assert "TLS with https://127.0.0.1" in error.problem
    assert "Check base_url" in error.remedy
