"""Everything that can be done in the console: one table, from which keys, footer, palette, help and buttons come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from revector.core.roles import Need
from revector.screens.situation import AT_WORK, Situation, key_of

When = Callable[[Situation], bool]

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
class Action:
    """One thing to do. `handler` is a method of the tab's screen, or of the app for an action of no tab."""

    id: str
    keys: tuple[str, ...]
    label: str
    help: str
    handler: str
    tab: str | None = None
    when: When = lambda _situation: True
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
    argument: str | None = None


def offered(action: Action, situation: Situation) -> bool:
    """Whether an action is there at this moment."""
    state = situation.state
    return (
        action.tab in (None, state.tab)
        and (state.live or action.offline)
        and permitted(action, situation)
        and (not action.typing or state.typing)
        and bool(shown_keys(action, situation))
        and action.when(situation)
    )


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


# -- conditions --------------------------------------------------------------------------------------------


def _has_versions(situation: Situation) -> bool:
    return bool(situation.versions)


def _has_several(situation: Situation) -> bool:
    return len(situation.versions) > 1


def _can_compare(situation: Situation) -> bool:
    return sum(status.embedded > 0 for status in situation.versions) > 1


def _can_compare_selected(situation: Situation) -> bool:
    return situation.selected is not None and situation.selected.embedded > 0 and _can_compare(situation)


def _can_propose(situation: Situation) -> bool:
    return situation.selected is not None and not situation.selected.version.active


def _can_run(situation: Situation) -> bool:
    selected = situation.selected
    if selected is not None and key_of(selected) in situation.state.staying:
        job = situation.job(selected)  # the run that stays is here: it waits to be told to go on
        return job is not None and job.state in ("paused", "failed")
    return _can_begin(situation)


def _can_begin(situation: Situation) -> bool:
    selected = situation.selected
    if selected is None or not selected.version.encoder_spec or key_of(selected) in situation.state.working:
        return False
    job = situation.job(selected)
    return job is None or job.state not in ("pausing", "proving")


def _runs_here(situation: Situation) -> bool:
    return key_of(situation.selected) in situation.state.working


def _can_pause(situation: Situation) -> bool:
    job = situation.job(situation.selected)
    return job is not None and job.state in ("running", "proving", "interrupted")


def _can_cancel(situation: Situation) -> bool:
    job = situation.job(situation.selected)
    return job is not None and job.state in (*AT_WORK, "paused", "interrupted", "failed")


def _has_failures(situation: Situation) -> bool:
    return situation.selected is not None and situation.selected.failed > 0


def _can_retry(situation: Situation) -> bool:
    return _has_failures(situation) and _has_encoder(situation)


def _has_encoder(situation: Situation) -> bool:
    return situation.selected is not None and bool(situation.selected.version.encoder_spec)


def _has_job(situation: Situation) -> bool:
    return situation.job(situation.selected) is not None


def _has_rows(situation: Situation) -> bool:
    return situation.state.rows


def _is_tight(situation: Situation) -> bool:
    return situation.state.tight


def _compared(situation: Situation) -> bool:
    return situation.state.compared


def _browsing(situation: Situation) -> bool:
    return situation.state.browsing and _can_compare(situation)


def _can_evaluate(situation: Situation) -> bool:
    return len(situation.versions) > 1 and not situation.state.evaluating


def _is_evaluating(situation: Situation) -> bool:
    return situation.state.evaluating


def _evaluated(situation: Situation) -> bool:
    return situation.state.evaluated


def _can_compare_runs(situation: Situation) -> bool:
    return situation.state.listing_runs and not situation.state.evaluating


def _can_show_parts(situation: Situation) -> bool:
    return situation.state.tight and situation.state.evaluated


def _has_candidate(situation: Situation) -> bool:
    return situation.candidate is not None


def _can_cut_over(situation: Situation) -> bool:
    return (
        situation.candidate is not None
        and situation.state.cleared == key_of(situation.candidate)
        and not situation.state.flipping
    )


def _has_request(situation: Situation) -> bool:
    return situation.state.request is not None


def _can_request(situation: Situation) -> bool:
    request = situation.state.request
    over = request is None or request.state in ("void", "expired")
    return situation.candidate is not None and over and not situation.state.flipping


def _can_approve(situation: Situation) -> bool:
    """Nobody approves their own, and nobody twice: the database refuses it, so it is not offered."""
    request, role = situation.state.request, situation.rights.role
    if request is None or request.state != "open":
        return False
    return role not in (request.requested_by, *(one.approved_by for one in request.approvals))


def _can_refuse(situation: Situation) -> bool:
    return _has_request(situation) and not situation.rights.operate


def _can_waive_guard(situation: Situation) -> bool:
    return situation.state.waivable and not situation.state.flipping


def _has_evidence(situation: Situation) -> bool:
    return situation.state.evidence


def _can_roll_back(situation: Situation) -> bool:
    return situation.rollback is not None and not situation.state.flipping


def _has_log(situation: Situation) -> bool:
    return bool(situation.overview and situation.overview.log)


def _shadowing(situation: Situation) -> bool:
    return situation.state.shadowing is True


def _can_shadow(situation: Situation) -> bool:
    candidate = situation.candidate
    if situation.active is None or candidate is None or situation.state.shadowing is not False:
        return False
    return candidate.embedded > 0 and bool(candidate.version.encoder_spec)


def _can_choose_shadow(situation: Situation) -> bool:
    return _has_several(situation) and situation.state.shadowing is False


def _disagreeing(situation: Situation) -> bool:
    return situation.state.disagreeing


def _judgeable(situation: Situation) -> bool:
    return situation.state.judgeable


def _lost(situation: Situation) -> bool:
    return not situation.state.live


# -- the table ---------------------------------------------------------------------------------------------

_NEXT = ("right_square_bracket", "v")
_BEFORE = ("left_square_bracket",)

TABS = (("1", "Versions"), ("2", "Backfill"), ("3", "Compare"), ("4", "Evaluate"), ("5", "Shadow"),
        ("6", "Cutover"), ("8", "Log"))  # fmt: skip
"""7 Health keeps its number."""

ACTIONS: tuple[Action, ...] = (
    *(
        Action(
            f"tab-{key}", (key,), name, f"Show {name}.", "go_to", offline=True, footer=False, argument=key
        )
        for key, name in TABS
    ),
    # Versions
    Action("details", ("enter",), "details", "All that is known about the version.", "open_details", "1",
           _has_versions),
    Action("to-backfill", ("b",), "backfill", "The backfill of the selected version.", "to_backfill", "1",
           _has_versions),
    Action("to-compare", ("c",), "compare", "Compare the selected version with the active one.", "to_compare",
           "1", _can_compare_selected),
    Action("to-cutover", ("u",), "cut over", "The guards of the selected version, and its cutover.", "to_cutover",
           "1", _can_propose),
    # Backfill
    Action("run", ("r",), "run", "Run the backfill here, or let the process that stays with it go on; "
           "then build the index.",
           "run_backfill", "2", _can_run, dangerous=True, button=True),
    Action("run-with", ("o",), "options", "Run it with options: workers, a run that stays, Ray, no index.",
           "run_with_options", "2", _can_begin, dangerous=True),
    Action("let-go", ("k",), "let go", "End the run of this console in order; the backfill is not paused by it.",
           "let_go", "2", _runs_here, dangerous=True),
    Action("pause", ("p",), "pause", "Pause the backfill, whoever runs it.", "pause", "2", _can_pause,
           dangerous=True, button=True),
    Action("cancel", ("x",), "cancel", "End the backfill; what is embedded stays.", "cancel", "2", _can_cancel,
           dangerous=True, button=True),
    Action("set", ("s",), "settings", "The settings of the backfill: batch size, workers, rate, limits, spend cap.",
           "open_settings", "2", _has_encoder, dangerous=True, button=True),
    Action("plan", ("P",), "plan", "What the backfill will take: chunks, tokens, cost, time, disk; and what would make "
           "it fail.", "plan", "2", _has_encoder),
    Action("more-workers", ("plus", "equals_sign"), "worker", "One more worker for each run of the backfill.",
           "more_workers", "2", _has_job, dangerous=True),
    Action("fewer-workers", ("minus",), "worker", "One worker less for each run of the backfill.",
           "fewer_workers", "2", _has_job, dangerous=True),
    Action("part", ("m",), "next part", "Map, rate, workers and failed chunks in turn, where they have no room beside "
           "each other.", "next_part", "2", _is_tight),
    Action("open-row", ("enter",), "open", "The failed chunk or the worker under the cursor, in full.", "open_row",
           "2", _has_rows, offline=True),
    Action("failures", ("f",), "failures", "The chunks that could not be embedded, and why.", "open_failures",
           "2", _has_failures, button=True),
    Action("retry-failures", ("t",), "retry", "Queue the failed chunks once more, and run if nobody does.",
           "retry_failures", "2", _can_retry, dangerous=True, button=True),
    Action("waive", ("w",), "waive", "Accept that a failed chunk is missing; asks for the reason.", "waive_failure",
           "2", _has_failures, dangerous=True, button=True),
    Action("load", ("L",), "load", "Load vectors made elsewhere from a file: .npy with its ids, or Parquet.",
           "load_vectors", "2", _has_versions, dangerous=True),
    Action("job-log", ("l",), "log", "What happened to the backfill: changes of state, proofs, settings.", "open_log",
           "2", _has_job),
    Action("next-backfill", _NEXT, "next version", "The backfill of the next version.", "next_version", "2",
           _has_several),
    Action("previous-backfill", _BEFORE, "version before", "The backfill of the version before.",
           "previous_version", "2", _has_several, footer=False),
    # Compare
    Action("search", ("enter",), "search both", "Search both versions for the query.", "search", "3",
           _can_compare, typing=True),
    Action("older-query", ("up",), "older query", "The query before, in the query box.", "older_query", "3",
           typing=True, offline=True),
    Action("newer-query", ("down",), "newer", "The query after, in the query box.", "newer_query", "3",
           typing=True, offline=True, footer=False),
    Action("leave-query", ("escape",), "results", "From the query box to the results.", "leave_query", "3",
           _compared, typing=True, offline=True),
    Action("query", ("slash",), "query", "Type a query.", "focus_query", "3", _can_compare),
    Action("open-hit", ("enter",), "open", "Read the hit in full.", "open_hit", "3", _compared, offline=True),
    Action("next-disagreement", ("n",), "next disagreement", "The next hit that stands elsewhere in the other "
           "version.", "next_disagreement", "3", _compared, offline=True),
    Action("choose-query", ("o",), "queries", "Choose a query of a query set; those that moved most come first.",
           "choose_query", "3", _can_compare),
    Action("next-query", ("greater_than_sign", "full_stop"), "next query", "The next query of the query set.",
           "next_query", "3", _browsing),
    Action("previous-query", ("less_than_sign", "comma"), "query before", "The query of the query set before.",
           "previous_query", "3", _browsing, footer=False),
    Action("next-moved-query", ("N",), "next that moved", "The next query of the set on which the versions disagree.",
           "next_moved_query", "3", _browsing),
    Action("diff", ("d",), "diff", "Both lists as one: what is gone, new and moved.", "open_diff", "3", _compared,
           offline=True),
    Action("explain", ("x",), "explain", "Why the hit stands where it does: distances, ranks without the index, plan, "
           "times.", "explain_hit", "3", _compared),
    Action("chart", ("m",), "chart", "Overlap by depth or RBO by segment, where both have no room.", "next_chart", "3",
           _is_tight, offline=True),
    Action("more", ("plus", "equals_sign"), "more", "Five more results.", "more", "3", _can_compare),
    Action("fewer", ("minus",), "fewer", "Five fewer results.", "fewer", "3", _can_compare),
    Action("next-candidate", _NEXT, "candidate", "The next version as candidate.", "next_candidate", "3",
           _can_compare),
    Action("previous-candidate", _BEFORE, "candidate", "The version before as candidate.", "previous_candidate",
           "3", _can_compare, footer=False),
    Action("next-primary", ("P",), "primary", "Hold the candidate against another version than the active one.",
           "next_primary", "3", _can_compare, footer=False),
    Action("export-json", ("e",), "export", "Write the comparison to a JSON file in the working directory.",
           "export_json", "3", _compared, offline=True),
    Action("export-csv", ("E",), "export CSV", "Write the comparison to a CSV file in the working directory.",
           "export_csv", "3", _compared, offline=True, footer=False),
    Action("export-svg", ("S",), "picture", "Write a picture of the screen (SVG) into the working directory.",
           "export_svg", "3", _compared, offline=True, footer=False),
    Action("copy-hit", ("y",), "copy", "Copy the hit's text to the clipboard of your terminal (OSC 52).",
           "copy_hit", "3", _compared, offline=True),
    # Evaluate
    Action("open-evaluated", ("enter",), "open", "What is under the cursor: an evaluation, the worst queries of a "
           "segment, a query on the Compare tab.", "open_row", "4"),
    Action("evaluate", ("r",), "evaluate", "Evaluate two versions: choose query set, search, judges, measures, gates.",
           "evaluate", "4", _can_evaluate, dangerous=True, button=True),
    Action("cancel-evaluation", ("x",), "cancel", "End the evaluation that runs here; what was searched is kept.",
           "cancel_evaluation", "4", _is_evaluating, dangerous=True, button=True),
    Action("evaluation-part", ("m",), "next part", "List, segments, intervals, queries and gates in turn, where they "
           "have no room beside each other.", "next_part", "4", _can_show_parts, offline=True),
    Action("next-measure", ("n",), "measure", "The next measure.", "next_measure", "4", _evaluated, offline=True),
    Action("previous-measure", ("N",), "measure", "The measure before.", "previous_measure", "4", _evaluated,
           offline=True, footer=False),
    Action("runs", ("l",), "runs", "The stored runs in place of the evaluations, and back.", "toggle_runs", "4",
           offline=True, button=True),
    Action("compare-runs", ("c",), "compare runs", "Mark the run under the cursor; on another one, compare it with the "
           "marked one.", "compare_runs", "4", _can_compare_runs, dangerous=True, button=True),
    Action("evaluation-details", ("d",), "details", "All of the evaluation: warnings, runs, gates, every measure, rank "
           "overlap.", "open_details", "4", _evaluated, offline=True, button=True),
    Action("thresholds", ("t",), "thresholds", "Which score threshold of the candidate keeps as many results.",
           "open_thresholds", "4", _evaluated, button=True),
    Action("export-evaluation", ("e",), "export", "Write a report to a file in the working directory: Markdown, HTML, "
           "JUnit XML or JSON.", "export", "4", _evaluated, offline=True, button=True),
    Action("only-candidate", ("f",), "only this candidate", "List the evaluations of the selected candidate only, or "
           "all again.", "toggle_only", "4", _has_candidate, footer=False),
    Action("next-evaluated", _NEXT, "candidate", "The next version as candidate.", "next_candidate", "4",
           _has_several, footer=False),
    Action("previous-evaluated", _BEFORE, "candidate", "The version before as candidate.", "previous_candidate", "4",
           _has_several, footer=False),
    # Cutover
    Action("cut-over", ("u",), "cut over", "Make the candidate the active version.", "cut_over", "6",
           _can_cut_over, dangerous=True, button=True),
    Action("roll-back", ("R",), "roll back", "Make the version that was active before active again.",
           "roll_back", "6", _can_roll_back, dangerous=True, button=True),
    Action("request-cutover", ("r",), "request", "Request the cutover, with a reason: others approve it.",
           "ask_for_approval", "6", _can_request, dangerous=True, button=True),
    Action("approve", ("a",), "approve", "Approve the request of somebody else; asks for the version key.", "approve",
           "6", _can_approve, dangerous=True, needs="approve", button=True),
    Action("withdraw", ("x",), "withdraw", "End the request for the cutover.", "withdraw", "6", _has_request,
           dangerous=True),
    Action("refuse", ("x",), "refuse", "End the request of somebody else, as one who approves.", "withdraw", "6",
           _can_refuse, dangerous=True, needs="approve"),
    Action("waive-guard", ("w",), "waive", "Let the cutover go on without one guard, by its name and with a reason "
           "that stays in the log.", "waive", "6", _can_waive_guard, dangerous=True),
    Action("check-guards", ("g",), "check again", "Look at all the guards again.", "check_guards", "6", _has_candidate,
           button=True),
    Action("cutover-part", ("m",), "next part", "Guards, evidence, approvals, watch, processes and history in turn, "
           "where they have no room beside each other.", "next_part", "6", _is_tight, offline=True),
    Action("dry-run", ("d",), "dry run", "The SQL of the flip on a page; nothing is changed.", "plan", "6",
           _has_candidate),
    Action("to-evaluation", ("e",), "evaluation", "The evaluation of the two versions, on the Evaluate tab.",
           "open_evaluation", "6", _has_evidence),
    Action("to-shadow", ("s",), "shadow", "The shadow of users' queries, on the Shadow tab.", "open_shadow", "6",
           _has_candidate),
    Action("open-cutover", ("enter",), "open", "What has the focus, in full: a flip of the history, the evaluation, "
           "the guards.", "open_row", "6", offline=True, footer=False),
    Action("next-cutover", _NEXT, "candidate", "The next version as candidate.", "next_candidate", "6",
           _has_several),
    Action("previous-cutover", _BEFORE, "candidate", "The version before as candidate.", "previous_candidate",
           "6", _has_several, footer=False),
    # Log
    Action("log-entry", ("enter",), "open", "All of the entry, with its figures.", "open_entry", "8", _has_log,
           offline=True),
    # Shadow
    Action("shadow-open", ("enter",), "open", "The disagreement under the cursor: on the Compare tab where its text is "
           "stored, else both rankings.", "open_row", "5", _disagreeing),
    Action("shadow-start", ("s",), "start", "Send a sample of users' queries to the candidate too; asks how many, "
           "what is kept of them, and for the version key.", "start", "5", _can_shadow, dangerous=True, button=True),
    Action("shadow-stop", ("x",), "stop", "End the shadow; what it found stays for as long as its retention says.",
           "stop", "5", _shadowing, dangerous=True, button=True),
    Action("shadow-judge", ("t",), "to judging", "Send the worst disagreements to the judging queue, as queries of a "
           "query set.", "send_to_judging", "5", _judgeable, dangerous=True, button=True),
    Action("shadow-part", ("m",), "next part", "Overlap, latency by segment and disagreements in turn, where they "
           "have no room beside each other.", "next_part", "5", _is_tight, offline=True),
    Action("next-shadow", _NEXT, "candidate", "The next version as candidate.", "next_candidate", "5",
           _can_choose_shadow, footer=False),
    Action("previous-shadow", _BEFORE, "candidate", "The version before as candidate.", "previous_candidate", "5",
           _can_choose_shadow, footer=False),
    # Everywhere
    Action("judge", ("J",), "judge", "Judge what both versions find, blind to which of them did.", "open_judging",
           None, _can_compare, dangerous=True, footer=False),
    Action("retry", ("r",), "try again now", "Try to reach the database at once.", "retry", None, _lost,
           offline=True),
    Action("help", ("question_mark",), "help", "All keys.", "show_help", offline=True),
    Action("palette", ("ctrl+p",), "commands", "Find an action by its name.", "show_palette", offline=True,
           footer=False),
    Action("quit", ("q", "ctrl+q", "ctrl+c"), "quit", "Leave. A backfill that runs here is paused, after a "
           "question.", "leave", offline=True),
)  # fmt: skip

BY_ID = {action.id: action for action in ACTIONS}
