"""Whatever is sent, the answer is as the OpenAPI document says, and never a 500. schemathesis makes what is sent."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck
from schemathesis.specs.openapi.schemas import OpenApiSchema

from tests.console.serve.conftest import TOKEN, Server
from tests.faults.numbers import LONG


@pytest.fixture(scope="session")
def document(serving: Server) -> OpenApiSchema:
    """The server's own document, read from it."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return schemathesis.openapi.from_url(f"{serving.url}/openapi.json", headers=headers)


openapi = schemathesis.pytest.from_fixture("document")


@pytest.fixture(scope="session")
def session() -> Iterator[requests.Session]:
    """One connection for all of it."""
    with requests.Session() as session:
        yield session


@openapi.parametrize()
@hypothesis.settings(
    max_examples=500 if LONG else 10,
    deadline=None,
    derandomize=not LONG,
    suppress_health_check=list(HealthCheck),
)
def test_no_answer_but_what_the_document_says(case: schemathesis.Case, session: requests.Session) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"} if case.path != "/healthz" else {}
    case.call_and_validate(headers=headers, session=session)


def test_the_document_names_every_path(serving: Server) -> None:
    paths = serving.client.get("/openapi.json").json()["paths"]
    assert {path: set(methods) for path, methods in paths.items()} == {
        "/search": {"get", "post"},
        "/search/vector": {"post"},
        "/versions": {"get"},
        "/metrics": {"get"},
        "/healthz": {"get"},
    }
    open_to_all = [
        path for path, methods in paths.items() if any("security" not in one for one in methods.values())
    ]
    assert open_to_all == ["/healthz"]
