"""Confirmation of dangerous commands: the version key is typed, at the prompt or as --confirm."""

from __future__ import annotations

import sys

from revector.console.context import note, plain
from revector.core.errors import RefusedError


def require_yes(refusal: str, remedy: str = "") -> None:
    """Ask at the terminal whether to continue. Raises RefusedError with `refusal` for anything but yes."""
    sys.stderr.write("Continue? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RefusedError(refusal, remedy)


def confirmed_key(key: str, given: str | None, effect: str, *, what: str = "version key") -> str:
    """The key as typed at the terminal, or as given by --confirm; in a script, `key` itself.

    `what` is the word for what is typed. In a script the key is already part of the command. Raises RefusedError
    when the typed key differs; an empty --confirm (an unset variable) differs too.
    """
    typed = given
    if typed is None:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return key
        note(effect)
        sys.stderr.write(f"Type the {what} {plain(key)} to confirm: ")
        sys.stderr.flush()
        typed = sys.stdin.readline().strip()
    if typed != key:
        raise RefusedError(
            f"The typed {what.split()[-1]} is {typed!r}, not {key!r}: nothing was changed.", "Type it exactly."
        )
    return typed
