"""Keeps passwords and keys that this process has seen out of every log, report and error."""

from __future__ import annotations

import re
from urllib.parse import quote

_known: set[str] = set()
_PATTERNS = (
    re.compile(r"(://[^/\s:@]*:)\S*(?=@)"),
    re.compile(r"(password\s*=\s*|Bearer\s+)(?:'(?:[^'\\]|\\.)*'|[^\s&'\"]+)", re.IGNORECASE),
)
"""Matches the password of a connection string, as a URL and as key=value, and a token in a header."""


_SHORT = 8
"""Below this many characters a secret is often a word, or a part of one: it is removed where it stands alone."""


def hide(secret: str | None) -> None:
    """Remove this secret from everything that `scrub` sees from now on."""
    if secret:
        _known.update({secret, quote(secret, safe="")})


def scrub(text: str) -> str:
    """The text without known secrets, and without anything that looks like one."""
    for secret in sorted(_known, key=len, reverse=True):
        if len(secret) < _SHORT and secret.isalnum():
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "[secret]", text)
        else:
            text = text.replace(secret, "[secret]")
    for pattern in _PATTERNS:
        text = pattern.sub(r"\1[secret]", text)
    return text
