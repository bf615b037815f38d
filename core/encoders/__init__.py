"""Encoders: one protocol, one file for each provider, and specs that name them in one line of text.

Importing this is cheap: NumPy, clients, tokenizers and models load when an encoder is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from revector.core.encoders.base import Encoder as Encoder
from revector.core.encoders.base import Metered as Metered
from revector.core.encoders.base import Parallel as Parallel
from revector.core.encoders.base import Throttled as Throttled
from revector.core.encoders.checks import PROBE_TEXT as PROBE_TEXT
from revector.core.encoders.checks import check_vectors as check_vectors
from revector.core.encoders.checks import find_bad_rows as find_bad_rows
from revector.core.encoders.checks import probe as probe
from revector.core.encoders.providers import check_settings, find_provider
from revector.core.encoders.providers import parse_spec as parse_spec
from revector.core.encoders.spec import EncoderSpec as EncoderSpec
from revector.core.errors import RevectorError


def runs_here(spec: str) -> bool:
    """Whether a spec names an encoder that runs on this machine at no cost; known without opening it."""
    return bool(spec) and bool(getattr(find_provider(parse_spec(spec).provider), "runs_here", False))


def completed_spec(spec: str, encoder: Encoder) -> str:
    """The spec with what its encoder has learned of the server since: the next one need not learn it again."""
    learned: Mapping[str, str] = getattr(encoder, "learned", {})
    if not learned:
        return spec
    parsed = parse_spec(spec)
    return str(EncoderSpec(parsed.provider, parsed.model, {**parsed.settings, **learned}))


def spec_at(spec: str, revision: str) -> str:
    """The spec that opens an encoder at the revision that a version has, where its provider still has that one."""
    try:
        parsed = parse_spec(spec)
        older: Callable[[], Sequence[str]] = getattr(find_provider(parsed.provider), "older_revisions", tuple)
    except RevectorError:  # opening it says what is wrong
        return spec
    if "revision" in parsed.settings or revision not in older():
        return spec
    return str(EncoderSpec(parsed.provider, parsed.model, {**parsed.settings, "revision": revision}))


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
