"""Encoders: one protocol, one file for each provider, and specs that name them in one line of text.

Importing this is cheap: NumPy, clients, tokenizers and models load when an encoder is opened.
"""

from __future__ import annotations

from collections.abc import Callable

from revector.core.encoders.base import Encoder, Metered, Parallel, Throttled
from revector.core.encoders.checks import PROBE_TEXT, check_vectors, find_bad_rows, probe
from revector.core.encoders.providers import check_settings, find_provider, parse_spec
from revector.core.encoders.spec import EncoderSpec

__all__ = [
    "PROBE_TEXT",
    "Encoder",
    "EncoderSpec",
    "Metered",
    "Parallel",
    "Throttled",
    "check_vectors",
    "find_bad_rows",
    "open_encoder",
    "parse_spec",
    "probe",
    "runs_here",
]


def runs_here(spec: str) -> bool:
    """Whether a spec names an encoder that runs on this machine at no cost; known without opening it."""
    return bool(spec) and bool(getattr(find_provider(parse_spec(spec).provider), "runs_here", False))


def open_encoder(spec: str | EncoderSpec, *, on_throttle: Callable[[float, str], None] | None = None) -> Encoder:
    """Open the encoder of a spec. `on_throttle` is one of the hooks of a `Throttled` encoder."""
    if isinstance(spec, str):
        spec = parse_spec(spec)
    else:
        check_settings(spec)
    encoder = find_provider(spec.provider)(spec)
    if on_throttle is not None and isinstance(encoder, Throttled):
        encoder.on_throttle = on_throttle
    return encoder
