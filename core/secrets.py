"""Passwords and keys, kept out of every log, report and error from the moment this process has them."""

from __future__ import annotations

import re
from urllib.parse import quote

_known: set[str] = set()
_PATTERNS = (
    re.compile(r"(://[^/\s:@]*:)\S*(?=@)"),
    re.compile(r"(password\s*=\s*|Bearer\s+)(?:'(?:[^'\\]|\\.)*'|[^\s&'\"]+)", re.IGNORECASE),
)
"""The password of a connection string, as a URL and as key=value, and a token in a header."""


def hide(secret: str | None) -> None:
    """Take this out of everything that `scrub` sees from now on."""
    if secret:
        _known.update({secret, quote(secret, safe="")})


def scrub(text: str) -> str:
    """The text without the secrets that are known, and without what looks like one."""
    for secret in sorted(_known, key=len, reverse=True):
        text = text.replace(secret, "[secret]")
    for pattern in _PATTERNS:
        text = pattern.sub(r"\1[secret]", text)
    return text
