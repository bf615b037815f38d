"""Encoders: one protocol, one file for each provider, and specs that name them in one line of text.

Importing this is cheap: NumPy, clients, tokenizers and models load when an encoder is opened.
"""

from __future__ import annotations

import time
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


def open_encoder(
    spec: str | EncoderSpec,
    *,
    on_throttle: Callable[[float, str], None] | None = None,
    on_resume: Callable[[], None] | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> Encoder:
    """Open the encoder of a spec. `Throttled` describes the hooks that it calls when its provider makes it
    wait."""
    if isinstance(spec, str):
        spec = parse_spec(spec)
    else:
        check_settings(spec)
    encoder = find_provider(spec.provider)(spec)
    if isinstance(encoder, Throttled):
        encoder.wait = wait
        if on_throttle:
            encoder.on_throttle = on_throttle
        if on_resume:
            encoder.on_resume = on_resume
    return encoder
