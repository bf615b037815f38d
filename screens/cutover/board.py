"""The guards on the Cutover screen: their results, which ones are due again, and their lines.

A guard runs again when what it looks at has changed, not at every snapshot: some guards encode, or scan a table.
Guards on things that no snapshot shows run every minute. The guard's rule says which is which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from revector.core.cutover import GUARDS, Check, Guard
from revector.core.cutover.guard import Source
from revector.screens.cutover.facts import Facts
from revector.screens.situation import Situation
from revector.screens.wording.facts import facts as fact_lines
from revector.screens.wording.text import printable
from revector.screens.wording.theme import CAUTION, FAINT, SIGNS, TITLE

_RULES = {rule.name: rule for rule in GUARDS}

Stamps = Mapping[str, object]
"""The values that each guard depends on, as far as the snapshot and the facts show them."""


def stamps_of(situation: Situation, facts: Facts | None) -> Stamps:
    """By guard: the values of the sources and the settings in its rule."""
    candidate, active, overview = situation.candidate, situation.active, situation.overview
    if candidate is None:
        return {}
    policy = facts.policy if facts else None
    request = facts.request if facts else None
    seen: dict[Source, object] = {
        "version": candidate.version,
        "counts": (candidate.embedded, candidate.missing, candidate.failed),
        "index": situation.index(candidate),
        "active version": active.version if active else None,
        "evaluation": facts.evaluation if facts else None,
        "request": request and (request.id, request.state, request.void_because, request.given),
        "server": overview.server if overview else None,
    }
    return {
        rule.name: (
            *(seen[source] for source in rule.looks_at),
            *(getattr(policy, setting, None) for setting in rule.settings),
        )
        for rule in GUARDS
    }


def minute_of(situation: Situation) -> int:
    """Minutes, by the database's clock."""
    overview = situation.overview
    return int(overview.taken_at.timestamp() // 60) if overview else 0


@dataclass(frozen=True)
class Board:
    """The guards of one candidate, as far as known.

    `stamps` are the values that they were run with; `unseen` are those not run because an earlier one does not
    pass; `pending` are those running; `minute` is when the others last ran.
    """

    candidate: str | None = None
    guards: Mapping[str, Guard] = field(default_factory=dict)
    stamps: Stamps = field(default_factory=dict)
    unseen: frozenset[str] = frozenset()
    pending: tuple[str, ...] = ()
    minute: int = 0
    checked_at: str = ""

    def changed(self, stamps: Stamps) -> set[str]:
        """Guards whose values have changed since they ran."""
        return {name for name, stamp in stamps.items() if self.stamps.get(name, self) != stamp}

    def due(self, stamps: Stamps, minute: int) -> set[str]:
        """Guards to run now."""
        again = {name for name, rule in _RULES.items() if rule.each_minute and name in stamps}
        return self.changed(stamps) | (again if self.guards and minute != self.minute else set())

    def known(self, due: Iterable[str]) -> dict[str, Guard]:
        """Guards that need not run again, without their waivers."""
        gone = {*due, *self.unseen}
        return {name: replace(guard, waived="") for name, guard in self.guards.items() if name not in gone}

    def told(self, guard: Guard) -> Board:
        """The board with one more result; guards that waited for it run next."""
        guards = {**self.guards, guard.name: guard}
        freed = {
            name
            for name in self.unseen
            if guard.name in (after := _RULES[name].after)
            and all(other in guards and guards[other].verdict == "pass" for other in after)
        }
        pending = tuple(name for name in _RULES if name in {*self.pending, *freed} - {guard.name})
        return replace(self, guards=guards, pending=pending, unseen=self.unseen - freed)

    def ended(self, check: Check, known: Mapping[str, Guard], checked_at: str) -> Board:
        """The board with the outcome of a check."""
        failing = {guard.name for guard in check.guards if guard.verdict != "pass"}
        unseen = {
            name for name, rule in _RULES.items() if name not in known and not failing.isdisjoint(rule.after)
        }
        guards = {guard.name: guard for guard in check.guards}
        return replace(self, guards=guards, unseen=frozenset(unseen), pending=(), checked_at=checked_at)

    @property
    def in_order(self) -> list[Guard]:
        """The results in the order of the table."""
        names = [*_RULES, *(name for name in self.guards if name not in _RULES)]
        return [self.guards[name] for name in names if name in self.guards]

    @property
    def count(self) -> str:
        """`12 of 13 pass`, and how many others are waived."""
        guards = self.in_order
        waived = sum(guard.verdict != "pass" and guard.clear for guard in guards)
        total = len(guards) + sum(name not in self.guards for name in self.pending)
        text = f"{sum(guard.verdict == 'pass' for guard in guards)} of {total} pass"
        return f"{text}, {waived} waived" if waived else text

    @property
    def verdict(self) -> str:
        """What blocks the cutover, as far as known: `1 guard fails: recall`; '' when nothing does."""
        known = [guard for guard in self.in_order if guard.name not in self.pending and not guard.clear]
        failing = [guard.name for guard in known if guard.verdict == "fail"]
        if names := failing or [guard.name for guard in known]:
            s, fail, are = ("", "fails", "is") if len(names) == 1 else ("s", "fail", "are")
            return f"{len(names)} guard{s} {fail if failing else f'{are} inconclusive'}: {', '.join(names)}"
        return ""

    @property
    def waivable(self) -> tuple[str, ...]:
        """Guards that are waived, or fail and can be waived."""
        return tuple(
            guard.name
            for guard in self.in_order
            if guard.verdict != "pass" and guard.name in _RULES and _RULES[guard.name].waivable
        )


def guard_lines(board: Board) -> RenderableType:
    """Every guard with its verdict, figure and remedy: blocking ones first, unknown ones last."""
    grid = Grid.grid(padding=(0, 2, 0, 0))
    for _ in range(3):
        grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    running = next(iter(board.pending), None)
    names = list(dict.fromkeys([*(_RULES if board.pending else ()), *(guard.name for guard in board.in_order)]))
    in_the_way = [name for name in names if name in board.guards and not board.guards[name].clear]
    for name in dict.fromkeys([*in_the_way, *names]):
        guard = board.guards.get(name)
        if guard is None:
            words = "checking …" if name == running else "waits"
            grid.add_row(Text("·", FAINT), Text("…", FAINT), Text(name, FAINT), Text(words, FAINT))
            continue
        sign, colour = SIGNS[guard.verdict]
        verdict: str = guard.verdict
        if guard.clear and guard.verdict != "pass":
            sign, colour, verdict = "!", CAUTION, "waived"
        again = name in board.pending
        detail = Text(printable(guard.detail), FAINT if again else "")
        if again:
            detail.append("  checking again …" if name == running else "  will be checked again")
        if guard.waived:
            detail.append(f"\nwaived: {printable(guard.waived)}", CAUTION)
        elif guard.remedy:
            detail.append(f"\n→ {printable(guard.remedy)}", CAUTION)
        style = FAINT if again else colour
        grid.add_row(Text(sign, style), Text(verdict, style), Text(printable(name)), detail)
    return grid


def guards_page(board: Board) -> RenderableType:
    """Every guard with its description, in full."""
    parts: list[RenderableType] = []
    for name, rule in _RULES.items():
        guard = board.guards.get(name)
        sign, colour = SIGNS[guard.verdict if guard else None]
        lines: list[tuple[str, str | Text]] = [("looks at", rule.about)]
        if guard is not None:
            lines.append(("found", Text(f"{guard.verdict}: {printable(guard.detail)}")))
            if guard.remedy:
                lines.append(("to do", Text(printable(guard.remedy), CAUTION)))
            if guard.waived:
                lines.append(("waived", Text(printable(guard.waived), CAUTION)))
        notes = ["again inside the flip"] if rule.in_flip else []
        notes.append("can be waived" if rule.waivable else "cannot be waived")
        if rule.settings:
            notes.append(f"policy: {', '.join(rule.settings)}")
        lines.append(("", Text("; ".join(notes), FAINT)))
        parts += [Text.assemble((f"{sign} ", colour), (name, TITLE)), fact_lines(lines), Text()]
    return Group(*parts[:-1])
