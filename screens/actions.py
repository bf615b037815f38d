"""Everything that can be done in the console: one table, from which keys, footer, palette, help and buttons come."""

from __future__ import annotations

from dataclasses import dataclass

from revector.core.roles import Need
from revector.screens import conditions as when
from revector.screens.conditions import Condition
from revector.screens.situation import Situation

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
    """One thing to do. `handler` is a method of the tab's pane or of a part of it (`control.waive`), or of the app."""

    id: str
    keys: tuple[str, ...]
    label: str
    help: str
    handler: str
    tab: str | None = None
    when: Condition = when.always
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
        return f"your role {situation.rights.role} may not: it takes an {kind}"
    if not situation.state.live and not action.offline:
        return "not connected to the database"
    return action.when(situation)


def refused(key: str, situation: Situation) -> Action | None:
    """The action of a key that does nothing now, None for a key that has none: the tab's before the app's."""
    own = [
        action
        for action in ACTIONS
        if key in action.keys and action.tab in (None, situation.state.tab) and not action.typing
    ]
    return min(own, key=lambda action: (action.tab is None, not permitted(action, situation)), default=None)


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
           when.has_versions),
    Action("to-backfill", ("b",), "backfill", "The backfill of the selected version.", "to_backfill", "1",
           when.has_versions),
    Action("to-compare", ("c",), "compare", "Compare the selected version with the active one.", "to_compare",
           "1", when.can_compare_selected),
    Action("to-cutover", ("u",), "cut over", "The guards of the selected version, and its cutover.", "to_cutover",
           "1", when.can_propose),
    # Backfill
    Action("run", ("r",), "run", "Run the backfill here, or let the process that stays with it go on; "
           "then build the index.",
           "run_backfill", "2", when.can_run, dangerous=True, button=True),
    Action("run-with", ("o",), "options", "Run it with options: workers, a run that stays, Ray, no index.",
           "run_with_options", "2", when.can_begin, dangerous=True),
    Action("let-go", ("k",), "let go", "End the run of this console in order; the backfill is not paused by it.",
           "let_go", "2", when.runs_here, dangerous=True),
    Action("pause", ("p",), "pause", "Pause the backfill, whoever runs it.", "pause", "2", when.can_pause,
           dangerous=True, button=True),
    Action("cancel", ("x",), "cancel", "End the backfill; what is embedded stays.", "cancel", "2", when.can_cancel,
           dangerous=True, button=True),
    Action("set", ("s",), "settings", "The settings of the backfill: batch size, workers, rate, limits, spend cap.",
           "open_settings", "2", when.has_encoder, dangerous=True, button=True),
    Action("plan", ("P",), "plan", "What the backfill will take: chunks, tokens, cost, time, disk; and what would make "
           "it fail.", "plan", "2", when.has_encoder),
    Action("more-workers", ("plus", "equals_sign"), "worker", "One more worker for each run of the backfill.",
           "more_workers", "2", when.has_job, dangerous=True),
    Action("fewer-workers", ("minus",), "worker", "One worker less for each run of the backfill.",
           "fewer_workers", "2", when.has_job, dangerous=True),
    Action("part", ("m",), "next part", "Map, rate, workers and failed chunks in turn, where they have no room beside "
           "each other.", "next_part", "2", when.is_tight),
    Action("open-row", ("enter",), "open", "The failed chunk or the worker under the cursor, in full.", "open_row",
           "2", when.has_rows, offline=True),
    Action("failures", ("f",), "failures", "The chunks that could not be embedded, and why.", "open_failures",
           "2", when.has_failures, button=True),
    Action("retry-failures", ("t",), "retry", "Queue the failed chunks once more, and run if nobody does.",
           "retry_failures", "2", when.can_retry, dangerous=True, button=True),
    Action("waive", ("w",), "waive", "Accept that a failed chunk is missing; asks for the reason.", "waive_failure",
           "2", when.has_failures, dangerous=True, button=True),
    Action("load", ("L",), "load", "Load vectors made elsewhere from a file: .npy with its ids, or Parquet.",
           "load_vectors", "2", when.has_versions, dangerous=True),
    Action("job-log", ("l",), "log", "What happened to the backfill: changes of state, proofs, settings.", "open_log",
           "2", when.has_job),
    Action("next-backfill", _NEXT, "next version", "The backfill of the next version.", "next_version", "2",
           when.has_several),
    Action("previous-backfill", _BEFORE, "version before", "The backfill of the version before.",
           "previous_version", "2", when.has_several, footer=False),
    # Compare
    Action("search", ("enter",), "search both", "Search both versions for the query.", "search", "3",
           when.can_compare, typing=True),
    Action("older-query", ("up",), "older query", "The query before, in the query box.", "older_query", "3",
           typing=True, offline=True),
    Action("newer-query", ("down",), "newer", "The query after, in the query box.", "newer_query", "3",
           typing=True, offline=True, footer=False),
    Action("leave-query", ("escape",), "results", "From the query box to the results.", "leave_query", "3",
           when.compared, typing=True, offline=True),
    Action("query", ("slash",), "query", "Type a query.", "focus_query", "3", when.can_compare),
    Action("open-hit", ("enter",), "open", "Read the hit in full.", "open_hit", "3", when.compared, offline=True),
    Action("next-disagreement", ("n",), "next disagreement", "The next hit that stands elsewhere in the other "
           "version.", "next_disagreement", "3", when.compared, offline=True),
    Action("choose-query", ("o",), "queries", "Choose a query of a query set; those that moved most come first.",
           "choose_query", "3", when.can_compare),
    Action("next-query", ("greater_than_sign", "full_stop"), "next query", "The next query of the query set.",
           "next_query", "3", when.browsing),
    Action("previous-query", ("less_than_sign", "comma"), "query before", "The query of the query set before.",
           "previous_query", "3", when.browsing, footer=False),
    Action("next-moved-query", ("N",), "next that moved", "The next query of the set on which the versions disagree.",
           "next_moved_query", "3", when.browsing),
    Action("diff", ("d",), "diff", "Both lists as one: what is gone, new and moved.", "open_diff", "3", when.compared,
           offline=True),
    Action("explain", ("x",), "explain", "Why the hit stands where it does: distances, ranks without the index, plan, "
           "times.", "explain_hit", "3", when.compared),
    Action("chart", ("m",), "chart", "Overlap by depth or RBO by segment, where both have no room.", "next_chart", "3",
           when.is_tight, offline=True),
    Action("more", ("plus", "equals_sign"), "more", "Five more results.", "more", "3", when.can_compare),
    Action("fewer", ("minus",), "fewer", "Five fewer results.", "fewer", "3", when.can_compare),
    Action("next-candidate", _NEXT, "candidate", "The next version as candidate.", "next_candidate", "3",
           when.can_compare),
    Action("previous-candidate", _BEFORE, "candidate", "The version before as candidate.", "previous_candidate",
           "3", when.can_compare, footer=False),
    Action("next-primary", ("P",), "primary", "Hold the candidate against another version than the active one.",
           "next_primary", "3", when.can_compare, footer=False),
    Action("export-json", ("e",), "export", "Write the comparison to a JSON file in the working directory.",
           "export_json", "3", when.compared, offline=True),
    Action("export-csv", ("E",), "export CSV", "Write the comparison to a CSV file in the working directory.",
           "export_csv", "3", when.compared, offline=True, footer=False),
    Action("export-svg", ("S",), "picture", "Write a picture of the screen (SVG) into the working directory.",
           "export_svg", "3", when.compared, offline=True, footer=False),
    Action("copy-hit", ("y",), "copy", "Copy the hit's text to the clipboard of your terminal (OSC 52).",
           "copy_hit", "3", when.compared, offline=True),
    # Evaluate
    Action("open-evaluated", ("enter",), "open", "What is under the cursor: an evaluation, the worst queries of a "
           "segment, a query on the Compare tab.", "open_row", "4"),
    Action("evaluate", ("r",), "evaluate", "Evaluate two versions: choose query set, search, judges, measures, gates.",
           "evaluate", "4", when.can_evaluate, dangerous=True, button=True),
    Action("cancel-evaluation", ("x",), "cancel", "End the evaluation that runs here; what was searched is kept.",
           "cancel_evaluation", "4", when.is_evaluating, dangerous=True, button=True),
    Action("evaluation-part", ("m",), "next part", "List, segments, intervals, queries and gates in turn, where they "
           "have no room beside each other.", "next_part", "4", when.can_show_parts, offline=True),
    Action("next-measure", ("n",), "measure", "The next measure.", "next_measure", "4", when.evaluated, offline=True),
    Action("previous-measure", ("N",), "measure", "The measure before.", "previous_measure", "4", when.evaluated,
           offline=True, footer=False),
    Action("runs", ("l",), "runs", "The stored runs in place of the evaluations, and back.", "toggle_runs", "4",
           offline=True, button=True),
    Action("compare-runs", ("c",), "compare runs", "Mark the run under the cursor; on another one, compare it with the "
           "marked one.", "compare_runs", "4", when.can_compare_runs, dangerous=True, button=True),
    Action("evaluation-details", ("d",), "details", "All of the evaluation: warnings, runs, gates, every measure, rank "
           "overlap.", "open_details", "4", when.evaluated, offline=True, button=True),
    Action("thresholds", ("t",), "thresholds", "Which score threshold of the candidate keeps as many results.",
           "open_thresholds", "4", when.evaluated, button=True),
    Action("export-evaluation", ("e",), "export", "Write a report to a file in the working directory: Markdown, HTML, "
           "JUnit XML or JSON.", "export", "4", when.evaluated, offline=True, button=True),
    Action("only-candidate", ("f",), "only this candidate", "List the evaluations of the selected candidate only, or "
           "all again.", "toggle_only", "4", when.has_candidate, footer=False),
    Action("next-evaluated", _NEXT, "candidate", "The next version as candidate.", "next_candidate", "4",
           when.has_several, footer=False),
    Action("previous-evaluated", _BEFORE, "candidate", "The version before as candidate.", "previous_candidate", "4",
           when.has_several, footer=False),
    # Cutover
    Action("cut-over", ("u",), "cut over", "Make the candidate the active version.", "control.cut_over", "6",
           when.can_cut_over, dangerous=True, button=True),
    Action("roll-back", ("R",), "roll back", "Make the version that was active before active again.",
           "control.roll_back", "6", when.can_roll_back, dangerous=True, button=True),
    Action("request-cutover", ("r",), "request", "Request the cutover, with a reason: others approve it.",
           "control.ask_for_approval", "6", when.can_request, dangerous=True, button=True),
    Action("approve", ("a",), "approve", "Approve the request of somebody else; asks for the version key.",
           "control.approve", "6", when.can_approve, dangerous=True, needs="approve", button=True),
    Action("withdraw", ("x",), "withdraw", "End the request for the cutover.", "control.withdraw", "6",
           when.has_request, dangerous=True),
    Action("refuse", ("x",), "refuse", "End the request of somebody else, as one who approves.", "control.withdraw",
           "6", when.can_refuse, dangerous=True, needs="approve"),
    Action("waive-guard", ("w",), "waive", "Let the cutover go on without one guard, by its name and with a reason "
           "that stays in the log.", "control.waive", "6", when.can_waive_guard, dangerous=True),
    Action("check-guards", ("g",), "check again", "Look at all the guards again.", "checks.check_again", "6",
           when.has_candidate, button=True),
    Action("cutover-part", ("m",), "next part", "Guards, evidence, approvals, watch, processes and history in turn, "
           "where they have no room beside each other.", "next_part", "6", when.is_tight, offline=True),
    Action("dry-run", ("d",), "dry run", "The SQL of the flip on a page; nothing is changed.", "control.plan", "6",
           when.has_candidate),
    Action("to-evaluation", ("e",), "evaluation", "The evaluation of the two versions, on the Evaluate tab.",
           "open_evaluation", "6", when.has_evidence),
    Action("to-shadow", ("s",), "shadow", "The shadow of users' queries, on the Shadow tab.", "open_shadow", "6",
           when.has_candidate),
    Action("open-cutover", ("enter",), "open", "What has the focus, in full: a flip of the history, the evaluation, "
           "the guards.", "open_row", "6", offline=True, footer=False),
    Action("next-cutover", _NEXT, "candidate", "The next version as candidate.", "next_candidate", "6",
           when.has_several),
    Action("previous-cutover", _BEFORE, "candidate", "The version before as candidate.", "previous_candidate",
           "6", when.has_several, footer=False),
    # Log
    Action("log-entry", ("enter",), "open", "All of the entry, with its figures.", "open_entry", "8", when.has_log,
           offline=True),
    # Shadow
    Action("shadow-open", ("enter",), "open", "The disagreement under the cursor: on the Compare tab where its text is "
           "stored, else both rankings.", "open_row", "5", when.disagreeing),
    Action("shadow-start", ("s",), "start", "Send a sample of users' queries to the candidate too; asks how many, "
           "what is kept of them, and for the version key.", "start", "5", when.can_shadow, dangerous=True,
           button=True),
    Action("shadow-stop", ("x",), "stop", "End the shadow; what it found stays for as long as its retention says.",
           "stop", "5", when.shadowing, dangerous=True, button=True),
    Action("shadow-judge", ("t",), "to judging", "Send the worst disagreements to the judging queue, as queries of a "
           "query set.", "send_to_judging", "5", when.judgeable, dangerous=True, button=True),
    Action("shadow-part", ("m",), "next part", "Overlap, latency by segment and disagreements in turn, where they "
           "have no room beside each other.", "next_part", "5", when.is_tight, offline=True),
    Action("next-shadow", _NEXT, "candidate", "The next version as candidate.", "next_candidate", "5",
           when.can_choose_shadow, footer=False),
    Action("previous-shadow", _BEFORE, "candidate", "The version before as candidate.", "previous_candidate", "5",
           when.can_choose_shadow, footer=False),
    # Everywhere
    Action("judge", ("J",), "judge", "Judge what both versions find, blind to which of them did.", "open_judging",
           None, when.can_compare, dangerous=True, footer=False),
    Action("retry", ("r",), "try again now", "Try to reach the database at once.", "retry", None, when.lost,
           offline=True),
    Action("help", ("question_mark",), "help", "All keys.", "show_help", offline=True),
    Action("palette", ("ctrl+p",), "commands", "Find an action by its name.", "show_palette", offline=True,
           footer=False),
    Action("quit", ("q", "ctrl+q", "ctrl+c"), "quit", "Leave. A backfill that runs here is paused, after a "
           "question.", "leave", offline=True),
)  # fmt: skip

BY_ID = {action.id: action for action in ACTIONS}
