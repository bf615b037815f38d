"""Why a key or a click does nothing now, and the pause after it in which letters are not commands."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from revector.screens.actions import Action, label_of, why_not
from revector.screens.situation import Situation
from revector.screens.tabs import refused

_PAUSE_S = 2.0
"""After this long without a key, letters are commands again."""
_SHOWN_S = 6.0
_IGNORED = " (keys are ignored until you pause)"


class Refusals:
    """The last key that was refused.

    A user who types the version key for a question that did not open must not trigger other actions: after a
    dangerous key was refused, the letters that follow do nothing. `clock` is in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._reason = ""
        self._shown_until = self._deaf_until = -math.inf

    @property
    def text(self) -> str:
        """`u: 1 guard fails: recall`; '' when no key was recently refused."""
        return self._reason if self.clock() < self._shown_until else ""

    @property
    def deaf(self) -> bool:
        """Whether letters are ignored now."""
        return self.clock() < self._deaf_until

    def refuse(self, key: str, situation: Situation, action: Action | None = None) -> None:
        """Explain a key that does nothing now, or a click on an action that is no longer offered."""
        self.forget()
        action = action or refused(key, situation)
        reason = why_not(action, situation) if action is not None else None
        if action is not None and reason is not None:
            self._reason = f"{label_of(key)}: {reason}"
            self._shown_until = self.clock() + _SHOWN_S
            if action.dangerous:
                self._deaf_until = self.clock() + _PAUSE_S

    def swallow(self) -> None:
        """Ignore a letter, and restart the pause."""
        self._reason = self._reason.removesuffix(_IGNORED) + _IGNORED
        self._shown_until, self._deaf_until = self.clock() + _SHOWN_S, self.clock() + _PAUSE_S

    def forget(self) -> None:
        """Clear the refusal, because another key was pressed."""
        self._shown_until = self._deaf_until = -math.inf
