"""Confirmation of dangerous commands: the version key is typed, at the prompt or as --confirm."""

from __future__ import annotations

import shlex
import sys

from revector.console.context import Context, note, plain
from revector.core.errors import RefusedError, UsageError


def require_yes(refusal: str, remedy: str = "") -> None:
    """Ask at the terminal whether to continue. Raises RefusedError with `refusal` for anything but yes."""
    sys.stderr.write("Continue? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RefusedError(refusal, remedy)


def confirmed_key(
    own: Context, key: str, given: str | None, effect: str, *, what: str = "version key", flips: bool = False
) -> str:
    """The key as typed at the terminal, below what will happen and where, or as given by --confirm.

    `what` is the word for what is typed. Where nobody can be asked the command's own key counts, except for one that
    `flips`: it raises UsageError with the command to give. Raises RefusedError when the typed key differs (the flip
    itself does, where it `flips`); an empty --confirm (an unset variable) differs too.
    """
    typed = given
    if typed is None:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            if not flips:
                return key
            raise UsageError(
                f"Without a terminal {own.command} needs --confirm {plain(key)}: nothing was changed.",
                f"If you mean it: {_with_confirm(key)}",
            )
        from revector.screens.wording.facts import place

        note(f"{effect}\nOn {place(own.database, own.settings).plain}.")
        sys.stderr.write(f"Type the {what} {plain(key)} to confirm: ")
        sys.stderr.flush()
        typed = sys.stdin.readline().strip()
    if typed != key and not flips:
        raise RefusedError(
            f"The typed {what.split()[-1]} is {typed!r}, not {key!r}: nothing was changed.", "Type it exactly."
        )
    return typed


def _with_confirm(key: str) -> str:
    """The command as it was given, with --confirm; without the connection string, which may hold a password."""
    words, before = ["revector"], ""
    for word in [*sys.argv[1:], "--confirm", key]:
        hidden = "…" if before == "--dsn" else "--dsn=…" if word.startswith("--dsn=") else ""
        words.append(hidden or shlex.quote(plain(word)))
        before = word
    return " ".join(words)
