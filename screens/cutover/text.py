"""The texts of the Cutover screen: the change, evidence, request and approvals, and the processes."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from revector.core.cutover import Request
from revector.core.serving import BEHIND_S, Process
from revector.screens.cutover.facts import Facts
from revector.screens.situation import Situation, key_of
from revector.screens.wording.facts import facts as fact_lines
from revector.screens.wording.text import chunks, counted, date_and_time, duration, milliseconds, printable
from revector.screens.wording.theme import BAD, CAUTION, FAINT, GOOD

_VERDICTS = {"pass": ("✓ pass", GOOD), "fail": ("✗ fail", BAD), "inconclusive": ("? inconclusive", CAUTION)}
_NAMED = 2
"""How many late processes are named in one line."""


def change_lines(situation: Situation, facts: Facts | None, *, broken: bool) -> RenderableType:
    """The active version, the candidate, the rollback target, and processes that have not followed the last flip.

    With `broken`, also the limits that the watch found broken, since the watch itself may not be visible.
    """
    active, candidate, target = situation.active, situation.candidate, situation.rollback
    before = printable(key_of(active) or "no version")
    lines: list[tuple[str, str | Text]] = []
    if facts is not None and facts.watch is not None and key_of(candidate) == facts.watch.previous:
        lines.append(
            ("active", Text.assemble((before, "bold"), (f", before it {printable(facts.watch.previous)}", FAINT)))
        )
    elif candidate is not None:
        lines.append(("cut over", Text(f"{before}  →  {printable(candidate.version.version_key)}", "bold")))
    else:
        lines.append(("cut over", Text(f"{before} is active", "bold")))
    if target is None:
        back = Text("nothing to roll back to", FAINT)
    else:
        lacks = f"misses {chunks(target.missing)}" if target.missing else "is complete"
        back = Text(f"{printable(target.version.version_key)}, which {lacks}", CAUTION if target.missing else "")
    lines.append(("roll back to", back))
    if facts is not None:
        lines.append(("served by", serving_line(facts)))
        if broken and facts.watch is not None and facts.watch.breaches:
            names = ", ".join(one.limit for one in facts.watch.breaches)
            lines.append(("watch", Text(f"✗ LIMIT BROKEN: {names}", f"bold {BAD}")))
    return fact_lines(lines)


def serving_line(facts: Facts) -> Text:
    """Whether every process serves the active version; those that are late come first."""
    late, count = facts.late, len(facts.processes)
    processes = counted(count, "process", "processes")
    if not count:
        return Text("No search service is connected", FAINT)
    if late:
        names = ", ".join(f"{_name(one)} serves {_served(one)}" for one in late[:_NAMED])
        more = f" and {len(late) - _NAMED} more" if len(late) > _NAMED else ""
        behind = duration(max(one.behind_s or 0.0 for one in late))
        have = "has" if len(late) == 1 else "have"
        said = f"✗ {len(late)} of {processes} {have} not switched {behind} after the flip: "
        return Text(f"{said}{printable(names)}{more}", f"bold {BAD}")
    pinned = sum(one.pinned for one in facts.processes)
    following = sum(one.behind_s is not None for one in facts.processes)
    text = Text(processes)
    text.append(f", {following} switching" if following else ", all up to date", CAUTION if following else GOOD)
    if pinned:
        text.append(f", {pinned} pinned", CAUTION)
    return text


def serving_table(facts: Facts) -> RenderableType:
    """Every process, with the version it serves and since when."""
    if not facts.processes:
        return Text("No search service is connected. Processes that use the Retriever appear here.", FAINT)
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for one in sorted(facts.processes, key=lambda one: -(one.behind_s or 0.0)):
        state, style = _follows(one)
        line = Text(f"{printable(_name(one))} serves {printable(_served(one))}")
        if one.since:
            line.append(f", connected {date_and_time(one.since)}", FAINT)
        grid.add_row(Text(state, style), line)
    return grid


def _follows(one: Process) -> tuple[str, str]:
    if one.pinned:
        return "! pinned", CAUTION
    if one.behind_s is None:
        return "✓ up to date", GOOD
    if one.behind_s > BEHIND_S:
        return f"✗ {duration(one.behind_s)} behind", BAD
    return "… switching", CAUTION


def _name(one: Process) -> str:
    return f"{one.program} {one.host}:{one.pid}"


def _served(one: Process) -> str:
    return one.version_key or "no version"


# -- evidence ----------------------------------------------------------------------------------------------


def evidence_lines(facts: Facts) -> RenderableType:
    """The evaluation of the pair and the figures of the shadow, each with the key that opens it."""
    return fact_lines([("evaluation", _evaluation(facts)), ("shadow", _shadow(facts))])


def _evaluation(facts: Facts) -> Text:
    found = facts.evaluation
    if found is None:
        need = {"required": "the policy requires one", "off": "the policy does not require one"}
        why = need.get(facts.policy.evaluation, "not required")
        return Text(f"none of this pair; {why}", CAUTION if facts.policy.evaluation == "required" else FAINT)
    words, style = _VERDICTS[found.verdict] if found.verdict else ("without gates", FAINT)
    text = Text.assemble((words, style), f"  {found.id} on {printable(found.query_set)}")
    text.append(f", {date_and_time(found.created_at)} by {printable(found.created_by)}", FAINT)
    return text.append("  e opens it", FAINT)


def _shadow(facts: Facts) -> Text:
    found, wanted = facts.shadow, facts.policy.shadow_queries
    required = f"{wanted:,} required" if wanted else "none required"
    if found is None:
        return Text(f"none of this version; {required}", CAUTION if wanted else FAINT)
    enough = found.queries >= wanted
    text = Text.assemble((f"{found.queries:,} queries", CAUTION if not enough else GOOD if wanted else ""))
    text.append(f" ({required})", FAINT)
    if found.overlap is not None:
        text.append(f", overlap {found.overlap:.2f}")
    if found.rbo is not None:
        text.append(f", RBO {found.rbo:.2f}")
    if found.failures:
        text.append(f", {found.failures:,} failed", BAD)
    if found.primary_ms.p95 is not None and found.candidate_ms.p95 is not None:
        text.append(
            f", p95 {milliseconds(found.candidate_ms.p95 / 1_000)} against {milliseconds(found.primary_ms.p95 / 1_000)}"
        )
    state = "runs" if found.run.stopped_at is None else f"stopped {date_and_time(found.run.stopped_at)}"
    return text.append(f"; {state}  s opens it", FAINT)


# -- approvals ---------------------------------------------------------------------------------------------

_STATES = {
    "open": ("… OPEN", CAUTION),
    "approved": ("✓ APPROVED", GOOD),
    "void": ("✗ VOID", BAD),
    "expired": ("✗ EXPIRED", BAD),
}


def approvals_word(facts: Facts | None) -> str:
    """`1/2`, for a title."""
    if facts is None or (facts.request is None and not facts.policy.approvals):
        return ""
    if facts.request is None:
        return f" 0/{facts.policy.approvals}"
    if facts.request.state in ("void", "expired"):
        return f" {facts.request.state}"
    needed = facts.policy.approvals
    return f" {facts.request.given}/{needed}" if needed else ""


def approval_lines(facts: Facts, *, asks: bool) -> RenderableType:
    """The request: who made it and why, who approved it and when, and what made it void.

    `asks` is whether this role may request it again.
    """
    again = ": r requests it again" if asks else ""
    request, needed = facts.request, facts.policy.approvals
    others = "1 approval by another" if needed == 1 else f"{needed} approvals by others"
    if request is None:
        if not needed:
            return Text("The policy requires no approval.", FAINT)
        text = Text(f"Not requested yet; {others} required.", CAUTION)
        return text.append("\nPress r to request it, with a reason for the approvers." if asks else "", FAINT)
    words, style = _STATES.get(request.state, (request.state, FAINT))
    state = Text(words, f"bold {style}")
    if request.state == "open":
        state.append(f"  waits for {request.waits_for}, until {date_and_time(request.expires_at)}")
    elif request.state == "approved":
        state.append(f"  until {date_and_time(request.expires_at)}")
    elif request.state == "expired":
        state.append(f"  on {date_and_time(request.expires_at)}{again}")
    lines: list[tuple[str, str | Text]] = [(f"request {request.id}", state)]
    if request.void_because:
        lines.append(("changed", Text(printable(request.void_because), BAD)))
        lines.append(("", Text(f"The approval no longer applies{again}.", CAUTION)))
    lines.append(
        ("asked by", f"{_who(request.requested_by, request.client)}, {date_and_time(request.requested_at)}")
    )
    lines.append(("reason", request.reason))
    lines += [
        ("waives", Text(f"{printable(name)}: {printable(why)}", CAUTION)) for name, why in request.waivers.items()
    ]
    lines.append(("required", others if needed else "none"))
    for one in request.approvals:
        said = Text.assemble(("✓ ", GOOD), printable(_who(one.approved_by, one.client)))
        said.append(f", {date_and_time(one.approved_at)}", FAINT)
        if one.comment:
            said.append(f": {printable(one.comment)}")
        lines.append(("approved", said))
    return fact_lines(lines)


def _who(role: str, client: str) -> str:
    return f"{role} ({client})" if client else role


def request_figures(request: Request) -> list[tuple[str, str]]:
    """What an approver reads before approving."""
    return [
        (
            "request",
            f"{request.id} by {_who(request.requested_by, request.client)}, {date_and_time(request.requested_at)}",
        ),
        ("reason", request.reason),
        *(("waives", f"{name}: {why}") for name, why in request.waivers.items()),
    ]


def sql_page(key: str, statements: Sequence[str], *, ready: bool) -> RenderableType:
    """The statements of a flip, as they would be run."""
    note = Text(
        "Every guard passes or is waived." if ready else "A guard does not pass: a cutover would be refused."
    )
    note.stylize(GOOD if ready else CAUTION)
    cli = f"revector cutover run {printable(key)} --dry-run"
    about = Text(f"Nothing was changed. In a form for psql: {cli}\n", FAINT)
    return Group(note, about, *(Text(printable(one, lines=True)) for one in statements))
