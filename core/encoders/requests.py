"""What a spec says of requests beside the provider's own part: fields of the body, headers and URL parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from revector.core.encoders import kinds
from revector.core.encoders.spec import EncoderSpec

MOST_PARALLEL = 64

SETTINGS: Mapping[str, kinds.Setting] = {
    "base_url": kinds.SERVICE_URL,
    "batch_size": kinds.whole_number(),
    "dimensions": kinds.whole_number(),
    "document.NAME": kinds.TEXT,
    "field.NAME": kinds.TEXT,
    "header.NAME": kinds.HEADER,
    "header_env.NAME": kinds.ENVIRONMENT_NAME,
    "key_env": kinds.ENVIRONMENT_NAME,
    "key_header": kinds.HEADER_NAME,
    "max_request_tokens": kinds.whole_number(),
    "max_retries": kinds.whole_number(0),
    "parallel": kinds.whole_number(1, MOST_PARALLEL),
    "param.NAME": kinds.TEXT,
    "price": kinds.AMOUNT,
    "query.NAME": kinds.TEXT,
    "requests_per_minute": kinds.whole_number(),
    "revision": kinds.TEXT,
    "timeout_s": kinds.SECONDS,
    "tokenizer": kinds.TEXT,
    "tokens_per_minute": kinds.whole_number(),
}
"""Of every provider over HTTP. A body has `field.NAME`, one for documents `document.NAME` too, one for queries
`query.NAME`; a request has `header.NAME`, `header_env.NAME` from a variable, and `param.NAME` in its URL."""


def named(spec: EncoderSpec, family: str) -> dict[str, str]:
    """The settings `family.NAME` by NAME."""
    start = f"{family}."
    return {name.removeprefix(start): text for name, text in spec.settings.items() if name.startswith(start)}


def fields(spec: EncoderSpec, role: str) -> dict[str, Any]:
    """Further fields of a body for documents or queries. A value is JSON, or else a text."""
    return {name: _value(text) for name, text in (named(spec, "field") | named(spec, role)).items()}


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)  # NaN and Infinity are texts
    except ValueError:
        return text


def _refuse(constant: str) -> None:
    raise ValueError(constant)
