"""What a guard is, what it says, and a check of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from revector.core.cutover.policy import Policy
from revector.core.database import Connection
from revector.core.registry import Version

if TYPE_CHECKING:
    from revector.core.retrieval import EncoderCache

Verdict = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Guard:
    """A check before a flip: its verdict, the figure behind it, and what to do when it does not pass.

    `waived` is the reason why an operator lets the cutover go on all the same; '' when nobody does.
    """

    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""
    waived: str = ""

    @property
    def clear(self) -> bool:
        """Whether it stands in the way no more: it passes, or it is waived."""
        return self.verdict == "pass" or bool(self.waived)


@dataclass(frozen=True)
class Check:
    """All guards of a version. It is ready when each one passes or is waived."""

    version_key: str
    guards: tuple[Guard, ...]

    @property
    def ready(self) -> bool:
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
    """One guard as code: its name, what it looks at in one sentence, and the function that does.

    One that is `in_flip` is quick and liable to change, and runs once more inside the flip's transaction. One
    that is not `waivable` guards against a state in which searches would be wrong or nobody would have agreed.
    `settings` are those of the policy that it goes by. `after` are guards without which it would look in vain, or at
    a price: while one of them fails it is not run, and is inconclusive.
    """

    name: str
    about: str
    run: Callable[[Subject], Guard]
    in_flip: bool = False
    waivable: bool = True
    settings: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
