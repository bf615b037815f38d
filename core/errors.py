"""Every error that revector raises on purpose: what went wrong, with what, and what to do.

The exit statuses are those of the command line (0 yes, 1 the answer is no, 2 usage, 3 inconclusive, 4 database or
encoder cannot be reached), so callers need not map messages to numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class RevectorError(Exception):
    """An error for a person: `problem` says what and which one, `remedy` says what to do about it.

    `kind` is for scripts: one word for each class.
    """

    exit_status: ClassVar[int] = 1
    kind: ClassVar[str] = "failed"

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(problem if not remedy else f"{problem}\n{remedy}")
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[RevectorError], tuple[str, str], dict[str, object]]:
        """Pickle with all parts, so that errors survive crossing processes."""
        return type(self), (self.problem, self.remedy), vars(self)


class UsageError(RevectorError):
    """The request cannot be understood: an unknown name, a malformed spec, a missing file."""

    exit_status = 2
    kind = "usage"


class NotFoundError(UsageError):
    """A name that the collection does not know: a version key, a query set, a model."""


class RefusedError(RevectorError):
    """The request was understood and the answer is no: a guard failed, a state does not allow it."""

    kind = "refused"
    recorded = False
    """Whether the audit log has it."""


class MisfitError(RefusedError):
    """A worker has another release than the others, or its encoder makes other vectors."""


class ClosedError(RefusedError):
    """A search after its retriever was closed."""


class PinnedVersionError(RefusedError):
    """The version that this process is pinned to is gone, or has no vectors: its operator has to act, no user."""


class UnreachableError(RevectorError):
    """The database or the encoder cannot be reached, or is not what revector needs.

    `temporary` says that waiting may help: a backfill then waits instead of ending.
    """

    exit_status = 4
    kind = "unreachable"

    def __init__(self, problem: str, remedy: str = "", *, temporary: bool = False) -> None:
        super().__init__(problem, remedy)
        self.temporary = temporary


class BusyError(UnreachableError):
    """The database answers, but did not answer this in time: wait, ask for less, or allow more time."""


class NotReadyError(BusyError):
    """The model of an encoder or a reranker is still being opened."""


class DatabaseUnreachableError(UnreachableError):
    """The server does not answer, or rejects the connection."""


class EncoderError(RevectorError):
    """The encoder answered with something that must not be stored: wrong shape, NaN, a zero vector."""

    kind = "encoder"


class EncoderUnreachableError(UnreachableError, EncoderError):
    """In a search: the encoder does not answer, answers too late, or refuses."""

    kind = "unreachable"


def unknown_name(kind: str, name: str, known: Iterable[str], *, most: int = 10) -> NotFoundError:
    """The error for an unknown name, with near matches (or up to `most` of the known names when none is near)."""
    names = sorted(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return NotFoundError(f"There is no {kind} {name!r}.", f"Did you mean {' or '.join(near)}?")
    if names:
        more = f", and {len(names) - most} more" if len(names) > most else ""
        return NotFoundError(f"There is no {kind} {name!r}.", f"Known: {', '.join(names[:most])}{more}.")
    return NotFoundError(f"There is no {kind} {name!r}, and none is registered yet.")
