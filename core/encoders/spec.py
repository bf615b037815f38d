"""Encoder specs: one line of text for an encoder, such as `openai:text-embedding-3-small?dimensions=512`.

PROVIDER:MODEL?SETTING=VALUE&…, percent-encoded as in a query string (a blank is %20 or +, a plus %2B). A spec is
stored, logged and shown, so it never contains a secret: it names the environment variable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlencode

from revector.core.errors import UsageError


@dataclass(frozen=True)
class EncoderSpec:
    """An encoder and its settings as text. `str()` of it is canonical: equal specs have equal texts."""

    provider: str
    model: str
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", dict(sorted(self.settings.items())))
        _refuse_secrets(self)

    def __str__(self) -> str:
        head = f"{self.provider}:{quote(self.model, safe='/:@+,=~')}"
        settings = urlencode(self.settings, safe="/:,")
        return f"{head}?{settings}" if settings else head

    @property
    def name(self) -> str:
        """The spec without its settings, unquoted: what a version calls its encoder."""
        return f"{self.provider}:{self.model}"

    @property
    def query_prefix(self) -> str:
        """What is put before a query."""
        return self.settings.get("query_prefix", "")

    @property
    def document_prefix(self) -> str:
        """What is put before a document."""
        return self.settings.get("document_prefix", "")

    @property
    def normalise(self) -> bool:
        """Whether vectors are scaled to length one (the default)."""
        return self.settings.get("normalise") != "false"

    @property
    def max_tokens(self) -> int | None:
        """The longest text that the spec allows, in tokens."""
        text = self.settings.get("max_tokens")
        return None if text is None else int(text)


def read_spec(text: str) -> EncoderSpec:
    """Parse a spec without checking its provider and settings."""
    head, _, query = text.partition("?")
    provider, colon, model = head.partition(":")
    if not (provider and colon and model):
        raise UsageError(
            f"{head!r} is not an encoder spec.",
            "Expected PROVIDER:MODEL?SETTING=VALUE&…, such as static:wordllama-256.",
        )
    settings: dict[str, str] = {}
    for number, pair in enumerate(query.split("&") if query else [], start=1):
        quoted_name, equals, quoted_value = pair.partition("=")
        if not equals:
            # Named by number, since the text might be a bare key.
            raise UsageError(f"Setting {number} of the {provider} spec has no value.", "Expected: NAME=VALUE.")
        name = _unquote(quoted_name)
        if name in settings:
            raise UsageError(f"The {provider} setting {name!r} is given twice.", "Set it once.")
        settings[name] = _unquote(quoted_value.replace("+", " "))
    return EncoderSpec(provider, _unquote(model), settings)


def _unquote(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise UsageError(
            "A percent-encoded part of the encoder spec is not UTF-8.", "Write a percent sign as %25."
        ) from None


_SECRET_NAMES = re.compile(r"(key|token|secret|password|passwd|pwd|authorization|bearer|credentials?)$|^auth$")
_USERINFO = re.compile(r"//[^/?#]*@")


def _refuse_secrets(spec: EncoderSpec) -> None:
    for name, text in spec.settings.items():
        names_variable = name.startswith("header_env.") and re.fullmatch("[A-Z][A-Z0-9_]*", text)
        if _SECRET_NAMES.search(name.lower()) and not names_variable:
            raise _secret(f"The {spec.provider} setting {name!r} looks like a secret")
        if _USERINFO.search(text):
            raise _secret(f"The {spec.provider} setting {name!r} is a URL with a user or password in it")
    if _USERINFO.search(spec.model):
        raise _secret("The model is a URL with a user or password in it")


def _secret(problem: str) -> UsageError:
    return UsageError(
        f"{problem}, and a spec is stored and shown.",
        "Put the secret in an environment variable and name it: key_env=NAME_OF_THE_VARIABLE; one that belongs in "
        "another header: header_env.HEADER=NAME_OF_THE_VARIABLE.",
    )
