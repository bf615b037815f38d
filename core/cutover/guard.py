"""What a guard says, and a check of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True)
class Guard:
    """A check before a flip: its verdict, the figure behind it, and what to do when it does not pass."""

    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """All guards of a version. It is ready when each one passes."""

    version_key: str
    guards: tuple[Guard, ...]

    @property
    def ready(self) -> bool:
        """Whether every guard passes."""
        return all(guard.verdict == "pass" for guard in self.guards)
