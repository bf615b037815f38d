"""The dialogs of the Cutover screen that ask for a reason: a request, its withdrawal, and the waiver of one guard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text
from textual.app import ComposeResult

from revector.core.cutover import Guard
from revector.screens.widgets.form import Form, wrong
from revector.screens.wording.facts import facts
from revector.screens.wording.text import printable
from revector.screens.wording.theme import CAUTION, FAINT


class ReasonDialog(Form[str | None]):
    """Returns the reason, or None. `required` says why it may not be empty; '' when it may."""

    def __init__(
        self, title: str, lines: Sequence[tuple[str, str | Text]], verb: str, *, required: str = ""
    ) -> None:
        super().__init__()
        self._heading, self._lines, self._verb, self._required = title, lines, verb, required

    def compose(self) -> ComposeResult:
        with self.frame(printable(self._heading)):
            yield self.about(facts(self._lines))
            yield self.field("reason", "reason", hint="" if self._required else "optional")
            yield from self.end_of_form(self._verb)

    def objection(self) -> Text:
        return Text(self._required, FAINT) if self._required and not self.text("reason") else Text()

    def go(self) -> None:
        self.dismiss(self.text("reason"))


class WaiveDialog(Form[tuple[str, str] | None]):
    """Returns a guard that need not pass and why, or None; without a reason it must pass again.

    The guard's name must be typed, so that none is waived by reflex.
    """

    def __init__(self, key: str, guards: Sequence[Guard], waived: Mapping[str, str], *, approved: bool) -> None:
        super().__init__()
        self._key, self._guards, self._waived, self._approved = key, guards, waived, approved

    def compose(self) -> ComposeResult:
        with self.frame(f"Waive a guard of {printable(self._key)}"):
            lines: list[tuple[str, str | Text]] = []
            for guard in self._guards:
                detail = Text(f"{guard.verdict}: {printable(guard.detail)}")
                if guard.name in self._waived:
                    detail.append(f"\nwaived: {printable(self._waived[guard.name])}", CAUTION)
                lines.append((guard.name, detail))
            effect = "It becomes part of the request, and approvers see it." if self._approved else (
                "It is logged permanently, with your role and the reason."
            )  # fmt: skip
            lines.append(("", Text(effect, FAINT)))
            yield self.about(facts(lines))
            yield self.field("guard", "guard", hint="its name")
            yield self.field("reason", "reason", hint="why the cutover is safe without it")
            yield from self.end_of_form("Waive")

    def objection(self) -> Text:
        name, reason = self.text("guard"), self.text("reason")
        names = [guard.name for guard in self._guards]
        if name not in names:
            choice = Text(f"Type the name of the guard: {', '.join(names)}.", FAINT)
            return (
                wrong(f"Guard {name!r} cannot be waived here.", f"You can waive: {', '.join(names)}.")
                if name
                else choice
            )
        if not reason and name not in self._waived:
            return Text("A waiver needs a reason.", FAINT)
        return Text()

    def go(self) -> None:
        """Waive the guard, or remove the waiver."""
        self.dismiss((self.text("guard"), self.text("reason")))
