"""Actions of the console: what they do, when they are offered, and the conditions that several tabs share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic

from typing_extensions import TypeVar

from revector.core.roles.kinds import Need
from revector.screens.situation import Situation

Condition = Callable[[Situation], str | None]
"""Returns None when an action can be done, else a few words on why not."""

Target = TypeVar("Target", default=Any)
"""What an action acts on: the pane of its tab, or the console."""

NEXT, BEFORE = ("right_square_bracket", "v"), ("left_square_bracket",)
"""The keys for the next and the previous candidate, on every tab that has candidates."""

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
"""The label of a key."""


@dataclass(frozen=True)
class Action(Generic[Target]):
    """One action. Keys, footer, palette, help and buttons are made from it."""

    id: str
    keys: tuple[str, ...]
    label: str
    help: str
    do: Callable[[Target], Coroutine[Any, Any, None] | None]
    when: Condition = lambda _situation: None
    dangerous: bool = False
    """It changes the database; absent in read-only mode."""
    needs: Need | None = None
    """The right that it needs; by default a dangerous one needs an operator's."""
    offline: bool = False
    """It needs no database."""
    typing: bool = False
    """It belongs to the text box, and is offered only while that has the focus."""
    footer: bool = True
    button: bool = False
    tab: str | None = None
    """The key of its tab, set by the table of tabs; None for an action of every tab."""


def offered(action: Action, situation: Situation) -> bool:
    """Whether an action is offered now."""
    state = situation.state
    return (
        action.tab in (None, state.tab)
        and (not action.typing or state.typing)
        and bool(shown_keys(action, situation))
        and why_not(action, situation) is None
    )


def why_not(action: Action, situation: Situation) -> str | None:
    """Why an action of the current tab cannot be done now, in a few words; None when it can."""
    if not permitted(action, situation):
        if action.dangerous and situation.state.read_only:
            return "this session is read-only"
        kind = "approver" if action.needs == "approve" else "operator"
        return f"your role {situation.rights.role} may not: ask an {kind}"
    if not situation.state.live and not action.offline:
        return "not connected to the database"
    return action.when(situation)


def permitted(action: Action, situation: Situation) -> bool:
    """Whether this session may do it: dangerous actions need write access, and some a right."""
    if action.dangerous and situation.state.read_only:
        return False
    return situation.rights.allow(action.needs or ("operate" if action.dangerous else None))


def shown_keys(action: Action, situation: Situation) -> tuple[str, ...]:
    """The keys that do it now: while the user types, letters are text."""
    if action.typing or not situation.state.typing:
        return action.keys
    return tuple(key for key in action.keys if key.startswith("ctrl+"))


def label_of(key: str) -> str:
    """What is written on a key: `↵` for enter."""
    return SYMBOLS.get(key, key)


# -- conditions of several tabs ---------------------------------------------------------------------------


def needs(test: Callable[[Situation], object], reason: str, after: Condition | None = None) -> Condition:
    """The condition that a test holds, with the reason if it does not, followed by another condition."""

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
