"""All errors in one format: type, detail and remedy. No tracebacks, no secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from starlette.responses import Response

from revector.core.errors import (
    EncoderError,
    PinnedVersionError,
    RefusedError,
    RevectorError,
    UnreachableError,
    UsageError,
)

RETRY_AFTER = {"retry-after": "1"}


@dataclass(frozen=True)
class Problem:
    """An error as an answer. `kind` is for programs, `detail` and `remedy` are for people."""

    status: int
    kind: str
    detail: str
    remedy: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        """The problem as an HTTP response."""
        return Response(self.body, self.status, self.head)

    @property
    def head(self) -> dict[str, str]:
        """Its headers, with those of the document."""
        return {**self.headers, "content-type": "application/json", "content-length": str(len(self.body))}

    @property
    def body(self) -> bytes:
        """The JSON document. A lone surrogate from the request becomes `?`."""
        texts = {"type": self.kind, "detail": self.detail, "remedy": self.remedy}
        return msgspec.json.encode(
            {name: text.encode("utf-8", "replace").decode() for name, text in texts.items()}
        )


class Refused(Exception):  # noqa: N818  (it says what is done)
    """Ends a request with a problem as the answer."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


UNAUTHORIZED = Problem(
    401,
    "unauthorized",
    "This needs the server's token.",
    "Send it as a header: Authorization: Bearer TOKEN",
    {"www-authenticate": 'Bearer realm="revector"'},
)
FOREIGN_HOST = Problem(
    401,
    "unauthorized",
    "A server without a token accepts only local host names.",
    "Use 127.0.0.1 or localhost, or start it with a token.",
    {"www-authenticate": 'Bearer realm="revector"'},
)
STOPPING = Problem(
    503, "stopping", "This server is shutting down.", "Use another server, or retry in a moment.", RETRY_AFTER
)
INTERNAL = Problem(
    500,
    "internal",
    "Something went wrong in the server.",
    "Its standard error says where. Please report it with that line.",
)


def too_large(limit: int) -> Problem:
    """A body larger than the limit."""
    return Problem(
        413,
        "too_large",
        f"The request's body has more than {limit:,} bytes.",
        "Send less, or raise --max-body-bytes.",
    )


def busy(limit: int) -> Problem:
    """All slots are taken."""
    return Problem(
        503,
        "busy",
        f"The server is already working on {limit:,} requests.",
        "Retry in a moment, or raise --max-concurrency.",
        RETRY_AFTER,
    )


def too_slow(seconds: float) -> Problem:
    """A search that exceeded its time limit."""
    return Problem(
        504,
        "timeout",
        f"The search took longer than {seconds:g} s.",
        "Retry when the server is less busy, or raise --timeout-s.",
    )


def slow_body(seconds: float) -> Problem:
    """A body that did not arrive in time."""
    return Problem(408, "timeout", f"The request's body did not arrive within {seconds:g} s.", "Send it faster.")


def of_error(error: RevectorError) -> Problem:
    """The problem for one of our own errors."""
    match error:
        case UsageError():
            return Problem(422, "invalid", error.problem, error.remedy)
        case PinnedVersionError():  # nothing that the client asks could be answered
            return Problem(503, "refused", error.problem, error.remedy, RETRY_AFTER)
        case RefusedError():
            return Problem(409, "refused", error.problem, error.remedy)
        case UnreachableError():
            return Problem(503, "unreachable", error.problem, error.remedy, RETRY_AFTER)
        case EncoderError():
            return Problem(502, "encoder", error.problem, error.remedy)
    return Problem(500, "internal", error.problem, error.remedy)
