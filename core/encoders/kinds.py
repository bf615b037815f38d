"""The kinds of settings in a spec, and what text each accepts."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Setting:
    """One kind of setting: what it accepts, in words and as a test."""

    expected: str
    accepts: Callable[[str], bool]
    # People paste keys by mistake where a URL or a variable's name belongs, so such text is never repeated.
    repeatable: bool = True


def whole_number(least: int = 1, most: int | None = None) -> Setting:
    """A whole number in canonical form, so that equal settings are equal texts."""

    def accepts(text: str) -> bool:
        if not re.fullmatch("0|[1-9][0-9]{0,17}", text):
            return False
        return int(text) >= least and (most is None or int(text) <= most)

    bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
    return Setting(f"a whole number {bounds}", accepts)


def choice(*values: str) -> Setting:
    """One of these."""
    return Setting(" or ".join(values), lambda text: text in values)


def _is_amount(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and float(text) >= 0
    except ValueError:
        return False


def _is_service_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        usual = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        return usual and not (url.query or url.fragment)
    except ValueError:
        return False


TEXT = Setting("any text", lambda _: True)
FLAG = Setting("true or false", lambda text: text in ("true", "false"))
AMOUNT = Setting("a number of at least 0", _is_amount)
SECONDS = Setting("a number of seconds above 0", lambda text: _is_amount(text) and float(text) > 0)
SERVICE_URL = Setting("an http or https URL without a query", _is_service_url, repeatable=False)
ENVIRONMENT_NAME = Setting(
    "the name of an environment variable, in capitals",
    lambda text: re.fullmatch("[A-Z][A-Z0-9_]*", text) is not None,
    repeatable=False,
)

_NAME = re.compile("[A-Za-z][A-Za-z0-9_.-]*")
_OUR_HEADERS = re.compile(
    "host|forwarded|x-forwarded-.*|content-.*|transfer-encoding|connection|te|upgrade|expect"
)
"""With these a row could send a request to another host than the address in it, or break the request."""


def _is_header(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and _OUR_HEADERS.fullmatch(name.lower()) is None


HEADER = Setting("printable ASCII", lambda text: text.isascii() and text.isprintable(), repeatable=False)
HEADER_NAME = Setting("the name of a header", _is_header, repeatable=False)


def find_kind(name: str, known: Mapping[str, Setting]) -> Setting | None:
    """The kind of a setting among those known, of which some have any name after a dot: `header.NAME`."""
    family, dot, rest = name.partition(".")
    if not dot or not _NAME.fullmatch(rest):
        return known.get(name)
    if family in ("header", "header_env") and not _is_header(rest):
        return None
    return known.get(f"{family}.NAME")


# The settings that every provider understands, including those of other packages.
COMMON: Mapping[str, Setting] = {
    "query_prefix": TEXT,
    "document_prefix": TEXT,
    "normalise": FLAG,
    "max_tokens": whole_number(),
}


def is_this_machine(host: str) -> bool:
    """Whether a host's name is a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
