"""What a guard is, what it says, and a check of all of them."""

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
"""What the function of a guard has found: the verdict, the figure behind it, and what to do."""
Source = Literal["version", "counts", "index", "active version", "evaluation", "request", "server"]
"""What a console that reads the database every second knows of anyway, and sees change."""


def passes(detail: str, remedy: str = "") -> Found:
    """Nothing is wrong; a remedy goes with a warning."""
    return "pass", detail, remedy


def fails(detail: str, remedy: str) -> Found:
    """This is wrong, and this is to be done about it."""
    return "fail", detail, remedy


def unsure(detail: str, remedy: str = "") -> Found:
    """It cannot be told, and this is why."""
    return "inconclusive", detail, remedy


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
        """Whether it stands in the way no more: it passes, or it is waived."""
        return self.verdict == "pass" or bool(self.waived)


@dataclass(frozen=True)
class Check:
    """All guards of a version."""

    version_key: Annotated[str, "the version that would become active"]
    guards: Annotated[tuple[Guard, ...], "in their order"]

    @property
    def ready(self) -> Annotated[bool, "whether each guard passes or is waived"]:
        """Whether nothing stands in the way of a cutover."""
        return all(guard.clear for guard in self.guards)


@dataclass(frozen=True)
class Subject:
    """What guards look at: a version, by the policy in force, on a connection of the caller's.

    `encoders` opens the version's encoder when a guard needs it.
    """

    connection: Connection
    version: Version
    policy: Policy
    encoders: EncoderCache


@dataclass(frozen=True)
class GuardRule:
    """All there is to know of one guard: its name, what it looks at in one sentence, and the function that looks.

    One that is `in_flip` is quick and liable to change, and runs once more inside the flip's transaction. One
    that is not `waivable` guards against a state in which searches would be wrong or nobody would have agreed.
    `settings` are those of the policy that it goes by. `after` are guards without which it would look in vain, or at
    a price: while one of them fails it is not run, and is inconclusive. One that is `slow` (it encodes, or reads much
    of a table) is run after the others.

    The console looks again when what is in `looks_at`, or one of the `settings`, has changed; with `each_minute`
    each minute too, for what it does not see by itself.
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
        """Look now."""
        return Guard(self.name, *self.find(subject))
