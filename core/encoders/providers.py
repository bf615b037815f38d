"""Providers of encoders: the built-in ones, and those of other packages by entry point.

A provider is a callable `(EncoderSpec) -> Encoder`, usually the encoder's class, with an attribute `settings` that
maps the names of its settings to their kinds. Other packages register theirs in the entry point group
`revector.encoders`, under the name that specs begin with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from revector.core.encoders.kinds import COMMON, Setting, find_kind
from revector.core.encoders.spec import EncoderSpec, read_spec
from revector.core.errors import UnreachableError, UsageError, unknown_name

if TYPE_CHECKING:
    from revector.core.encoders.base import Encoder

GROUP = "revector.encoders"

# Written like entry points: a provider is not imported before a spec names it.
BUILT_IN = tuple(
    EntryPoint(name, f"revector.core.encoders.{target}", GROUP)
    for name, target in (
        ("cohere", "cohere:CohereEncoder"),
        ("openai", "openai:OpenAIEncoder"),
        ("sentence-transformers", "sentence_transformers:SentenceTransformersEncoder"),
        ("static", "static:StaticEncoder"),
        ("voyage", "voyage:VoyageEncoder"),
    )
)


def find_provider(name: str) -> Callable[[EncoderSpec], Encoder]:
    """The provider of that name, imported; a built-in one cannot be replaced by a package."""
    for entry in BUILT_IN:
        if entry.name == name:
            return _load(entry)
    others = entry_points(group=GROUP)
    for entry in others:
        if entry.name == name:
            return _load(entry)
    raise unknown_name("encoder provider", name, {entry.name for entry in (*BUILT_IN, *others)})


def parse_spec(text: str) -> EncoderSpec:
    """Parse a spec and check its settings against its provider; nothing is opened."""
    spec = read_spec(text)
    check_settings(spec)
    return spec


def check_settings(spec: EncoderSpec) -> None:
    """Raise UsageError for a setting that the spec's provider does not have, or a value that it cannot parse."""
    own: Mapping[str, Setting] = getattr(find_provider(spec.provider), "settings", {})
    check_known(spec, {**COMMON, **own})


def check_known(spec: EncoderSpec, known: Mapping[str, Setting]) -> None:
    """Raise UsageError for a setting that is unknown, or a value that its kind does not accept."""
    for name, text in spec.settings.items():
        setting = find_kind(name, known)
        if setting is None:
            raise unknown_name(f"{spec.provider} setting", name, known, most=len(known))
        if not setting.accepts(text):
            got = f"is {text!r}" if setting.repeatable else "cannot be used"
            raise UsageError(f"The {spec.provider} setting {name} {got}.", f"Expected: {setting.expected}.")


def _load(entry: EntryPoint) -> Callable[[EncoderSpec], Encoder]:
    try:
        provider: Callable[[EncoderSpec], Encoder] = entry.load()
    except Exception as error:
        package = entry.dist.name if entry.dist else "revector"
        raise UnreachableError(
            f"The encoder provider {entry.name!r} of the package {package} cannot be loaded: {error}",
            f"Repair or remove the package {package}.",
        ) from error
    return provider
