"""Guards: their rules, their results, and a check of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from revector.core.cutover.policy import Policy
from revector.core.database import Connection
from revector.core.evaluation.document import Verdict
from revector.core.registry import Version

if TYPE_CHECKING:
    from revector.core.retrieval import EncoderCache

Found = tuple[Verdict, str, str]
"""The result of a guard's function: the verdict, the figure behind it, and what to do."""
Source = Literal["version", "counts", "index", "active version", "evaluation", "request", "server"]
"""What the console reads every second anyway, and so notices when it changes."""


def passes(detail: str, remedy: str = "") -> Found:
    """Nothing is wrong; a remedy makes it a warning."""
    return "pass", detail, remedy


def fails(detail: str, remedy: str) -> Found:
    """Something is wrong; the remedy says what to do."""
    return "fail", detail, remedy


def unsure(detail: str, remedy: str = "") -> Found:
    """The verdict cannot be determined; `detail` says why."""
    return "inconclusive", detail, remedy


def would_see(n: int, rows: int) -> str:
    """What share of damaged rows n random ones show with 95 % probability: 1 − (1 − share)ⁿ = 0.95."""
    if n >= rows:
        return "a single damaged row would be seen"
    return f"damage to {100 * (1 - 0.05 ** (1 / max(1, n))):.2g}% of the rows would be seen with 95% probability"


@dataclass(frozen=True)
class Guard:
    """A check before a flip."""

    name: Annotated[str, "what it looks at"]
    verdict: Annotated[Verdict, "pass, fail or inconclusive"]
    detail: Annotated[str, "the figure behind it"]
    remedy: Annotated[str, "what to do about it; empty when nothing is"] = ""
    waived: Annotated[str, "why it need not pass; empty when it must"] = ""

    @property
    def clear(self) -> bool:
        """Whether it passes or is waived."""
        return self.verdict == "pass" or bool(self.waived)


@dataclass(frozen=True)
class Check:
    """All guards of a version."""

    version_key: Annotated[str, "the version that would become active"]
    guards: Annotated[tuple[Guard, ...], "in their order"]

    @property
    def ready(self) -> Annotated[bool, "whether each guard passes or is waived"]:
        """Whether every guard passes or is waived."""
        return all(guard.clear for guard in self.guards)


@dataclass(frozen=True)
class Subject:
    """What guards check: a version, under the policy in force, on the caller's connection.

    `encoders` opens the version's encoder when a guard needs it. `in_flip`: all guards passed a moment ago, and others
    wait behind the flip's transaction.
    """

    connection: Connection
    version: Version
    policy: Policy
    encoders: EncoderCache
    in_flip: bool = False


@dataclass(frozen=True)
class GuardRule:
    """One guard: its name, what it checks in one sentence, and the function that checks it.

    A guard that is `in_flip` is quick and likely to change, and runs again inside the flip's transaction. One that
    is not `waivable` protects against wrong searches or an unapproved flip. `settings` are the policy settings it
    uses. While a guard in `after` fails, this one would be pointless or costly: it is not run, and is
    inconclusive. A `slow` guard (it encodes, or reads much of a table) runs after the others.

    The console checks again when something in `looks_at`, or one of the `settings`, has changed; with
    `each_minute` also every minute, for changes that it cannot see.
    """

    name: str
    about: str
    find: Callable[[Subject], Found]
    in_flip: bool = False
    waivable: bool = True
    settings: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    slow: bool = False
    looks_at: tuple[Source, ...] = get_args(Source)
    each_minute: bool = False

    def run(self, subject: Subject) -> Guard:
        """Check now."""
        return Guard(self.name, *self.find(subject))
