"""Actions of the Compare tab, and when they are offered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from revector.screens.actions import BEFORE, NEXT, Action, can_compare, is_tight, needs

if TYPE_CHECKING:
    from revector.screens.compare.pane import ComparePane


@dataclass(frozen=True)
class CompareState:
    """What the tab knows in addition to the snapshot."""

    compared: bool = False
    browsing: bool = False
    """Whether the user steps through a query set."""


compared = needs(lambda moment: moment.of(CompareState).compared, "there are no results yet: / to search")
browsing = needs(
    lambda moment: moment.of(CompareState).browsing, "no query set is open: o chooses one", can_compare
)


ACTIONS: tuple[Action[ComparePane], ...] = (
    Action("search", ("enter",), "search both", "Search both versions for the query.",
           lambda pane: pane.control.search(), can_compare, typing=True),
    Action("older-query", ("up",), "older query", "The previous query, in the query box.",
           lambda pane: pane.box.step(-1), typing=True, offline=True),
    Action("newer-query", ("down",), "newer", "The next query, in the query box.",
           lambda pane: pane.box.step(1), typing=True, offline=True, footer=False),
    Action("leave-query", ("escape",), "results", "From the query box to the results.",
           lambda pane: pane.focus_main(), compared, typing=True, offline=True),
    Action("query", ("slash",), "query", "Type a query.", lambda pane: pane.focus_query(), can_compare),
    Action("open-hit", ("enter",), "open", "Read the hit in full.", lambda pane: pane.open_hit(), compared,
           offline=True),
    Action("next-disagreement", ("n",), "next disagreement", "The next hit that stands elsewhere in the other "
           "version.", lambda pane: pane.next_disagreement(), compared, offline=True),
    Action("choose-query", ("o",), "queries", "Choose a query of a query set; those that moved most come first.",
           lambda pane: pane.control.choose_query(), can_compare),
    Action("next-query", ("greater_than_sign", "full_stop"), "next query", "The next query of the query set.",
           lambda pane: pane.control.step_query(1), browsing),
    Action("previous-query", ("less_than_sign", "comma"), "query before", "The query of the query set before.",
           lambda pane: pane.control.step_query(-1), browsing, footer=False),
    Action("next-moved-query", ("N",), "next that moved", "The next query of the set on which the versions "
           "disagree.", lambda pane: pane.control.next_moved_query(), browsing),
    Action("diff", ("d",), "diff", "Both lists as one: what is gone, new and moved.",
           lambda pane: pane.open_diff(), compared, offline=True),
    Action("explain", ("x",), "explain", "Why the hit stands where it does: distances, ranks without the index, "
           "plan, times.", lambda pane: pane.explain_hit(), compared),
    Action("chart", ("m",), "chart", "Switch between overlap by depth and RBO by segment on a small screen.",
           lambda pane: pane.next_chart(), is_tight, offline=True),
    Action("more", ("plus", "equals_sign"), "more", "Five more results.", lambda pane: pane.control.step_k(1),
           can_compare),
    Action("fewer", ("minus",), "fewer", "Five fewer results.", lambda pane: pane.control.step_k(-1), can_compare),
    Action("next-candidate", NEXT, "candidate", "The next version as candidate.",
           lambda pane: pane.step_candidate(1), can_compare),
    Action("previous-candidate", BEFORE, "candidate", "The version before as candidate.",
           lambda pane: pane.step_candidate(-1), can_compare, footer=False),
    Action("next-primary", ("P",), "primary", "Compare the candidate with another version than the active one.",
           lambda pane: pane.pair.next_primary(), can_compare, footer=False),
    Action("export-json", ("e",), "export", "Write the comparison to a JSON file in the working directory.",
           lambda pane: pane.export("json"), compared, offline=True),
    Action("export-csv", ("E",), "export CSV", "Write the comparison to a CSV file in the working directory.",
           lambda pane: pane.export("csv"), compared, offline=True, footer=False),
    Action("export-svg", ("S",), "picture", "Write a picture of the screen (SVG) into the working directory.",
           lambda pane: pane.export("svg"), compared, offline=True, footer=False),
    Action("copy-hit", ("y",), "copy", "Copy the hit's text to the clipboard of your terminal (OSC 52).",
           lambda pane: pane.copy_hit(), compared, offline=True),
)  # fmt: skip
