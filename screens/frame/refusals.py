"""Why a key or a click does nothing now, and the pause in which what is typed after it is not taken for commands."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from revector.screens.actions import Action, label_of, why_not
from revector.screens.situation import Situation
from revector.screens.tabs import refused

_PAUSE_S = 2.0
"""Without a key for so long, a letter is a command again."""
_SHOWN_S = 6.0
_IGNORED = " (keys are ignored until you pause)"


class Refusals:
    """The last key that was refused.

    Somebody who types the version key for a question that did not open is not to do something else by it: after a
    dangerous key was refused, the letters that follow do nothing. `clock` is in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._reason = ""
        self._shown_until = self._deaf_until = -math.inf

    @property
    def text(self) -> str:
        """`u: 1 guard fails: recall`; '' when no key was refused lately."""
        return self._reason if self.clock() < self._shown_until else ""

    @property
    def deaf(self) -> bool:
        """Whether a letter that is typed now is no command."""
        return self.clock() < self._deaf_until

    def refuse(self, key: str, situation: Situation, action: Action | None = None) -> None:
        """A key was pressed that nothing is bound to now, or an action was clicked that is no longer offered."""
        self.forget()
        action = action or refused(key, situation)
        reason = why_not(action, situation) if action is not None else None
        if action is not None and reason is not None:
            self._reason = f"{label_of(key)}: {reason}"
            self._shown_until = self.clock() + _SHOWN_S
            if action.dangerous:
                self._deaf_until = self.clock() + _PAUSE_S

    def swallow(self) -> None:
        """A letter was typed that is no command: the pause begins again."""
        self._reason = self._reason.removesuffix(_IGNORED) + _IGNORED
        self._shown_until, self._deaf_until = self.clock() + _SHOWN_S, self.clock() + _PAUSE_S

    def forget(self) -> None:
        """Another key was pressed: what was refused before is over."""
        self._shown_until = self._deaf_until = -math.inf
