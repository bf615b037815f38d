"""Tab 4: evaluations and runs; measures by segment with their intervals, gates with verdicts, and the worst queries."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from revector.core.evaluation.document import Evaluation
from revector.core.evaluation.judged_sets.query_sets import WHOLE_SET
from revector.screens.evaluate import text
from revector.screens.evaluate.actions import EvaluateState
from revector.screens.evaluate.control import EvaluateControl
from revector.screens.evaluate.lists import EVALUATIONS, RUNS, evaluation_row, run_row
from revector.screens.evaluate.reader import EvaluationReader
from revector.screens.pane import Pane, step_through
from revector.screens.services import Services
from revector.screens.situation import Situation, key_of
from revector.screens.tabs import EVALUATE
from revector.screens.widgets.buttons import Buttons
from revector.screens.widgets.chart import Chart
from revector.screens.widgets.parts import Parts
from revector.screens.widgets.table import Table
from revector.screens.widgets.words import Words, titled
from revector.screens.wording.text import printable
from revector.screens.wording.theme import FAINT

_CAVEATS = 4
"""The number of lines for caveats."""


class EvaluatePane(Pane):
    """One evaluation: verdict, caveats, segments, chart, worst queries, gates; below it the list of all, or of runs."""

    DEFAULT_CSS = """
    EvaluatePane Table, EvaluatePane #gates, EvaluatePane #nothing {
        border: round $border-blurred; border-title-color: $secondary; border-subtitle-color: $secondary;
    }
    EvaluatePane Table:focus, EvaluatePane #gates:focus { border: round $border; }
    EvaluatePane #evaluations, EvaluatePane #runs { height: auto; max-height: 8; }
    EvaluatePane #nothing { height: 1fr; padding: 0 1; }
    EvaluatePane #verdict, EvaluatePane #measures, EvaluatePane #parts { height: 1; padding: 0 1; }
    EvaluatePane #caveats, EvaluatePane #said { height: auto; max-height: 4; padding: 0 1; }
    EvaluatePane #upper, EvaluatePane #lower { height: 1fr; }
    EvaluatePane #upper Table, EvaluatePane #queries { width: 64%; height: 1fr; }
    EvaluatePane Chart, EvaluatePane #gates { width: 1fr; height: 1fr; }
    EvaluatePane #gates { padding: 0 1; scrollbar-size-vertical: 1; }
    EvaluatePane.-tight Buttons { display: none; }
    EvaluatePane.-tight #evaluations, EvaluatePane.-tight #runs { height: 1fr; max-height: 100%; }
    EvaluatePane.-tight #upper Table, EvaluatePane.-tight #queries { width: 100%; }
    """

    ROW_ACTION = "open-evaluated"
    PARTS: ClassVar[tuple[str, ...]] = ("segments", "intervals", "queries", "gates", "list")

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.reader: EvaluationReader = EvaluationReader(
            self, self._show_evaluation, lambda error: self.control.fail(error)
        )
        self.control: EvaluateControl = EvaluateControl(self, self.reader, self._draw_said)
        self.listing_runs = False
        self.part = "segments"
        self.segment = WHOLE_SET
        self._measure = ""

    def compose(self) -> ComposeResult:
        yield Words(id="verdict")
        yield Words(id="caveats")
        yield Words(id="said")
        yield Parts("m", id="parts")
        yield Parts("n", id="measures")
        with Horizontal(id="upper"):
            yield Table(text.SEGMENTS, id="segments")
            yield Table(text.SPREADS, id="spreads")
            yield Chart("intervals", nothing="", id="intervals")
        with Horizontal(id="lower"):
            yield Table(text.QUERIES, id="queries")
            with VerticalScroll(id="gates"):
                yield Words()
        yield Words(id="nothing")
        yield Table(EVALUATIONS, id="evaluations")
        yield Table(RUNS, id="runs")
        yield Buttons(EVALUATE)

    def on_unmount(self) -> None:
        """Cancel the evaluation; its searches are kept for the next one."""
        self.control.cancel()

    def entered(self) -> None:
        """Clear the message of an earlier visit, and read the lists again."""
        self.control.say(Text())
        self.reader.forget()

    # -- what is shown ------------------------------------------------------------------------------------

    def state(self, situation: Situation) -> EvaluateState:
        return EvaluateState(
            evaluated=self.shown is not None, evaluating=self.control.evaluating, listing_runs=self.listing_runs
        )

    @property
    def shown(self) -> Evaluation | None:
        return self.reader.shown

    def _show_evaluation(self, first: bool) -> None:
        self.listing_runs = False
        self.changed()
        if first or not self.screen.focused or not self.screen.focused.is_on_screen:
            self.focus_main()

    @property
    def measure(self) -> str:
        """The chosen measure, or the evaluation's first."""
        names = text.measures_of(self.shown) if self.shown else []
        return self._measure if self._measure in names else next(iter(names), "")

    @property
    def _front(self) -> str:
        return "list" if self.shown is None or self.listing_runs else self.part

    def on_resize(self) -> None:
        self.changed()

    def focus_main(self) -> None:
        """Focus the visible part, or the segments when all parts are visible."""
        if self.shown is None or self.listing_runs:
            self._list.focus()
        elif self.tight:
            self._focus_part(self.part)
        else:
            self._segments.focus()

    @property
    def _list(self) -> Table:
        return self.query_one("#runs" if self.listing_runs else "#evaluations", Table)

    @property
    def _segments(self) -> Table:
        return self.query_one("#spreads" if self.measure in text.OVERLAPS else "#segments", Table)

    def _focus_part(self, part: str) -> None:
        places = {"list": self._list, "segments": self._segments, "queries": self.query_one("#queries", Table)}
        widget = places.get(part) or self.query_one(f"#{part}")
        if widget.can_focus:
            widget.focus()
        else:
            self.screen.set_focus(None)

    # -- drawing ------------------------------------------------------------------------------------------

    def draw(self) -> None:
        if not self.app.is_running or not self.query(Buttons):
            return  # a background read may arrive while the console ends
        self.reader.look()
        found, tight = self.shown, self.tight
        self._arrange(found, tight=tight)
        self._draw_list()
        self._draw_said()
        if found is None:
            nothing = Text("Reading …", FAINT) if self.reader.opening else Text(self.control.what_to_do)
            self.query_one("#nothing", Static).update(nothing)
            return
        width = self.app.size.width - 2
        self.query_one("#verdict", Static).update(text.verdict_line(found, width))
        self.query_one("#caveats", Static).update(text.caveat_lines(found, width, _CAVEATS))
        names = [(name, text.measure_words(name, found.k)) for name in text.measures_of(found)]
        self.query_one("#measures", Parts).show(names, self.measure)
        self.query_one("#parts", Parts).show([(name, name) for name in self.PARTS], self._front)
        self._draw_segments(found)
        self._draw_queries(found)
        gates = self.query_one("#gates", VerticalScroll)
        titled(gates, text.gates_title(found.gates))
        gates.query_one(Static).update(text.gate_lines(found.gates))

    def _arrange(self, found: Evaluation | None, *, tight: bool) -> None:
        self.set_class(tight, "-tight")
        there = set(self.PARTS) if found is not None else {"list"}
        front = there & {self._front} if tight else there
        spread = self.measure in text.OVERLAPS
        for place, shown in (
            ("evaluations", "list" in front and bool(self.reader.lists.evaluations) and not self.listing_runs),
            ("runs", "list" in front and self.listing_runs),
            ("verdict", found is not None),
            ("caveats", found is not None),
            ("measures", found is not None and not (tight and self._front in ("list", "gates"))),
            ("parts", found is not None and tight),
            ("segments", "segments" in front and not spread),
            ("spreads", "segments" in front and spread),
            ("intervals", "intervals" in front),
            ("queries", "queries" in front),
            ("gates", "gates" in front),
            ("upper", bool(front & {"segments", "intervals"})),
            ("lower", bool(front & {"queries", "gates"})),
            ("nothing", found is None and not (self.listing_runs and self.reader.lists.runs)),
        ):
            self.query_one(f"#{place}").display = shown

    def _draw_list(self) -> None:
        number, lists, marked = self.shown.id if self.shown else None, self.reader.lists, self.control.marked
        evaluations, runs = self.query_one("#evaluations", Table), self.query_one("#runs", Table)
        evaluations.show([evaluation_row(one, number) for one in lists.evaluations])
        of = f" of {printable(self.reader.only)}" if self.reader.only else ""
        titled(evaluations, f" evaluations{of}, the newest first ")
        runs.show([run_row(run, marked) for run in lists.runs])
        how = "c: against the marked one" if marked else "c: mark it, then c on another of its query set"
        titled(runs, f" stored runs, the newest first ─ {how} ")

    def _draw_said(self) -> None:
        self.show_line("#said", self.control.said())

    def _draw_segments(self, found: Evaluation) -> None:
        measure = self.measure
        spread = measure in text.OVERLAPS
        rows = text.spread_rows(found, measure) if spread else text.segment_rows(found, measure)
        if self.segment not in [row.key for row in rows]:
            self.segment = WHOLE_SET
        table, words = self._segments, text.measure_words(measure, found.k)
        table.show(rows)
        over = "all queries" if spread else f"judged queries, {found.confidence:.4g} confidence"
        titled(table, f" {words} by segment ─ {over} ")
        table.border_subtitle = Content(" ▲ better  ▼ worse " if not spread else "")
        table.move_to(self.segment)
        ranges, limits, legend = text.ranges_of(found, measure)
        chart = self.query_one("#intervals", Chart)
        titled(chart, f" {words}{'' if spread else ': candidate − primary'} ")
        chart.border_subtitle = Content(f" {legend} ")
        chart.plot_ranges(ranges, "No judgements.", limits)

    def _draw_queries(self, found: Evaluation) -> None:
        rows = text.worst_queries(found, self.measure, self.segment)
        table = self.query_one("#queries", Table)
        table.show(text.query_rows(rows, self.measure))
        titled(table, text.queries_title(found, self.measure, self.segment, rows))
        table.border_subtitle = Content(" ↵ compare ")

    # -- choosing -----------------------------------------------------------------------------------------

    def on_data_table_row_highlighted(self, event: Table.RowHighlighted) -> None:
        """The queries follow the segment under the cursor."""
        event.stop()
        table = event.data_table
        if table is not self._segments or not isinstance(table, Table) or self.shown is None:
            return
        if table.row_key not in (None, self.segment):
            self.segment = table.row_key or WHOLE_SET
            self._draw_queries(self.shown)
            self.query_one("#queries", Table).move_cursor(row=0)

    def step_measure(self, step: int) -> None:
        if self.shown is not None:
            self._choose_measure(step_through(text.measures_of(self.shown), self.measure, step) or "")

    def _choose_measure(self, measure: str) -> None:
        had_focus = self._segments.has_focus
        self._measure = measure
        self.draw()
        if had_focus:
            self._segments.focus()

    def next_part(self) -> None:
        self._show_part(step_through(list(self.PARTS), self._front, 1) or "list")

    def _show_part(self, part: str) -> None:
        self.part, self.listing_runs = part, False
        self.changed()
        self._focus_part(part)

    def on_parts_chosen(self, event: Parts.Chosen) -> None:
        event.prevent_default().stop()
        if event.part_of == "measures":
            self._choose_measure(event.name)
        else:
            self._show_part(event.name)

    def open_row(self) -> None:
        focused = self.screen.focused
        queries = self.query_one("#queries", Table)
        if focused is queries:
            self.control.open_query(queries.row_key)
        elif focused is self._list:
            self._open_listed()
        elif focused is self._segments:
            self.part = "queries"
            self.changed()
            queries.focus()
        else:
            self.control.open_details()

    def _open_listed(self) -> None:
        key = self._list.row_key
        if self.listing_runs:
            self.control.open_run(key)
        elif key is not None:
            self.part = "segments"
            self.reader.load(int(key))

    def toggle_runs(self) -> None:
        self.listing_runs = not self.listing_runs
        self.changed()
        self._list.focus()

    def compare_runs(self) -> None:
        self.control.compare_run(self.query_one("#runs", Table).row_key)

    def step_candidate(self, step: int) -> None:
        keys = [status.version.version_key for status in self.situation.versions if not status.version.active]
        key = step_through(keys, key_of(self.situation.candidate), step)
        if key is not None:
            self.control.say(Text(f"The candidate is {printable(key)}: r evaluates it.", FAINT))
            if self.reader.only is not None:
                self.reader.list_only(key)
            self.post_message(self.Select(key))
