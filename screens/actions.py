"""What can be done in the console: an action, when it is offered, and the conditions that several tabs share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic

from typing_extensions import TypeVar

from revector.core.roles import Need
from revector.screens.situation import Situation

Condition = Callable[[Situation], str | None]
"""Answers None when an action can be done, else in a few words why not."""

Target = TypeVar("Target", default=Any)
"""What does an action: the pane of its tab, or the console."""

NEXT, BEFORE = ("right_square_bracket", "v"), ("left_square_bracket",)
"""The keys of the next candidate and of the one before, on every tab that has candidates."""

SYMBOLS = {
    "enter": "↵",
    "escape": "esc",
    "slash": "/",
    "question_mark": "?",
    "greater_than_sign": ">",
    "less_than_sign": "<",
    "full_stop": ".",
    "comma": ",",
    "plus": "+",
    "minus": "-",
    "equals_sign": "=",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "ctrl+c": "^c",
    "ctrl+p": "^p",
    "ctrl+q": "^q",
}
"""What is written on a key."""


@dataclass(frozen=True)
class Action(Generic[Target]):
    """One thing to do. Keys, footer, palette, help and buttons come from it."""

    id: str
    keys: tuple[str, ...]
    label: str
    help: str
    do: Callable[[Target], Coroutine[Any, Any, None] | None]
    when: Condition = lambda _situation: None
    dangerous: bool = False
    """It changes the database: not there at all in read-only mode."""
    needs: Need | None = None
    """The right that it takes; one that is dangerous takes that of an operator unless it says so here."""
    offline: bool = False
    """It needs no database."""
    typing: bool = False
    """It is for the text box: offered while that has the focus, and only then."""
    footer: bool = True
    button: bool = False
    tab: str | None = None
    """The key of its tab, which the table of tabs puts in; None for one that is there on every tab."""


def offered(action: Action, situation: Situation) -> bool:
    """Whether an action is there at this moment."""
    state = situation.state
    return (
        action.tab in (None, state.tab)
        and (not action.typing or state.typing)
        and bool(shown_keys(action, situation))
        and why_not(action, situation) is None
    )


def why_not(action: Action, situation: Situation) -> str | None:
    """Why an action of the tab in front cannot be done now, in a few words; None when it can."""
    if not permitted(action, situation):
        if action.dangerous and situation.state.read_only:
            return "this session is read-only"
        kind = "approver" if action.needs == "approve" else "operator"
        return f"your role {situation.rights.role} may not: ask an {kind}"
    if not situation.state.live and not action.offline:
        return "not connected to the database"
    return action.when(situation)


def permitted(action: Action, situation: Situation) -> bool:
    """Whether this session may do it at all: not in read-only mode, and only with the right that it takes."""
    if action.dangerous and situation.state.read_only:
        return False
    return situation.rights.allow(action.needs or ("operate" if action.dangerous else None))


def shown_keys(action: Action, situation: Situation) -> tuple[str, ...]:
    """The keys that do it now: while somebody types, a letter is a letter."""
    if action.typing or not situation.state.typing:
        return action.keys
    return tuple(key for key in action.keys if key.startswith("ctrl+"))


def label_of(key: str) -> str:
    """What is written on a key: `↵` for enter."""
    return SYMBOLS.get(key, key)


# -- conditions of several tabs ---------------------------------------------------------------------------


def needs(test: Callable[[Situation], object], reason: str, after: Condition | None = None) -> Condition:
    """The condition that a test holds, with what is said when it does not; and then another one."""

    def condition(situation: Situation) -> str | None:
        if not test(situation):
            return reason
        return after(situation) if after is not None else None

    return condition


has_versions = needs(lambda moment: moment.versions, "there is no version yet")
has_several = needs(lambda moment: len(moment.versions) > 1, "there is no other version")
can_compare = needs(
    lambda moment: sum(status.embedded > 0 for status in moment.versions) > 1,
    "fewer than two versions have vectors",
)
has_candidate = needs(lambda moment: moment.candidate is not None, "there is no candidate")
is_tight = needs(lambda moment: moment.state.tight, "all parts are on the screen")
