"""Tab 3: one query, two versions, side by side. Ranks are compared, never distances."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Input, Static

from revector.core.errors import RevectorError
from revector.core.evaluation.judged_sets.judged_hits import JudgedHits
from revector.core.retrieval import Comparison, Hit
from revector.screens.compare.actions import CompareState
from revector.screens.compare.control import CompareControl
from revector.screens.compare.diff import diff_page
from revector.screens.compare.explain_page import explain_page
from revector.screens.compare.export import write_comparison, write_file
from revector.screens.compare.hit_list import HitList
from revector.screens.compare.hit_page import hit_page
from revector.screens.compare.pair import VersionPair
from revector.screens.pane import Pane
from revector.screens.services import Services
from revector.screens.situation import Situation, key_of
from revector.screens.widgets.chart import Chart, Series
from revector.screens.widgets.inputs import QueryBox
from revector.screens.widgets.table import Table
from revector.screens.widgets.words import Words, titled
from revector.screens.wording.grades import ndcg_words
from revector.screens.wording.marking import marked
from revector.screens.wording.text import figure, milliseconds, printable, shorten
from revector.screens.wording.theme import FAINT, GOOD, TITLE

if TYPE_CHECKING:
    from revector.core.explain import Explanation

_PREVIEW = 2_000
_WIDE = 100
_ROOMY = 110
"""From this width on both charts fit beside the text."""


class ComparePane(Pane):
    """The query, the hits of both versions, overlap by depth, RBO by segment, and the text of the hit under the cursor.

    Searches while the user types if the encoders are local and free, else on Enter.
    """

    DEFAULT_CSS = """
    ComparePane #ask { height: 1; padding: 0 1; }
    ComparePane #prompt { width: auto; }
    ComparePane #pair { width: auto; max-width: 50%; padding: 0 0 0 2; color: $secondary; }
    ComparePane #lists { height: 63%; }
    ComparePane #below { height: 1fr; }
    ComparePane Chart { width: 1fr; }
    ComparePane.-tight #segments { display: none; }
    ComparePane.-tight.-segments #segments { display: block; }
    ComparePane.-tight.-segments #lists { height: 38%; }
    ComparePane.-tight.-segments #overlap { display: none; }
    ComparePane #preview { width: 1fr; height: 1fr; border: round $border-blurred; padding: 0 1;
                           border-title-color: $secondary; }
    ComparePane #measures { height: 1; padding: 0 1; }
    """

    ROW_ACTION = "open-hit"

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.box: QueryBox = QueryBox()
        self.pair: VersionPair = VersionPair(self, self._show_facts, lambda error: self.control.fail(error))
        self.control: CompareControl = CompareControl(
            self, self.pair, self.box, on_found=self._show_comparison, on_judged=self._show_judgements
        )

    def compose(self) -> ComposeResult:
        with Horizontal(id="ask"):
            yield Static("query › ", id="prompt", markup=False)
            yield self.box
            yield Words(id="pair")
        with Horizontal(id="lists"):
            yield HitList("primary")
            yield HitList("candidate")
        with Horizontal(id="below"):
            yield Chart("overlap by depth", nothing="No query yet: press /", limits=(0, 1), id="overlap")
            yield Chart("RBO by segment", nothing="", limits=(0, 1), id="segments")
            with Vertical(id="preview"):
                yield Words()
        yield Words(id="measures")

    # -- what is compared ---------------------------------------------------------------------------------

    @property
    def comparison(self) -> Comparison | None:
        """The latest result for the current pair."""
        return self.control.comparison

    def entered(self) -> None:
        """Clear the message of an earlier visit, and look for a new evaluation."""
        self.control.message = Text("")
        self.pair.forget()

    def on_unmount(self) -> None:
        self.control.searcher.close()

    def state(self, situation: Situation) -> CompareState:
        return CompareState(compared=self.comparison is not None, browsing=self.pair.browsing is not None)

    @property
    def tight(self) -> bool:
        """Whether the charts are shown in turn."""
        return self.size.width < _ROOMY

    def on_resize(self) -> None:
        self.set_class(self.tight, "-tight")
        self.post_message(self.Changed())

    def focus_main(self) -> None:
        """Focus the hits, not the query box, where the keys of the tabs would be text."""
        self._lists[0].focus()

    def draw(self) -> None:
        """Draw the pair and its results; drops results of another pair."""
        self.pair.look()
        self.control.follow()
        primary, candidate = self.pair.keys
        word = "active" if primary == key_of(self.situation.active) else "primary"
        pair = f"k {self.control.k}"
        if self.size.width >= _WIDE:
            pair = f"{word} {printable(primary or '—')} │ candidate {printable(candidate or '—')}  {pair}"
        self.query_one("#pair", Static).update(Text(pair, no_wrap=True, overflow="ellipsis"))
        if self.comparison is None:
            self.query_one("#primary", HitList).show_nothing(word, primary)
            self.query_one("#candidate", HitList).show_nothing("candidate", candidate)
            self.query_one("#overlap", Chart).plot([])
            self._preview(None)
        self.query_one("#measures", Static).update(self.control.message)

    def _show_comparison(self, stay: bool) -> None:
        comparison = self.comparison
        if comparison is None:
            return
        self.query_one("#lists").styles.max_height = max(len(comparison.primary.hits), 10) + 2
        primary, candidate = self.query_one("#primary", HitList), self.query_one("#candidate", HitList)
        active = comparison.primary.version_key == key_of(self.situation.active)
        primary.show_result("active" if active else "primary", comparison.primary, comparison.primary_moves)
        candidate.show_result("candidate", comparison.candidate, comparison.candidate_moves)
        self.query_one("#overlap", Chart).plot([Series(tuple(comparison.overlap_by_depth))])
        self.control.say(measures(comparison, self.size.width))
        browsed = self.control.browsed
        primary.border_subtitle = Content(f" {printable(browsed.words)} " if browsed else "")
        if not stay and not isinstance(self.screen.focused, HitList):
            primary.focus()
        self._link()
        self.changed()

    def _show_judgements(self, judged: JudgedHits) -> None:
        for hits in self.query(HitList):
            hits.show_stars(judged)
        if self.comparison is not None:
            self.control.say(measures(self.comparison, self.size.width, judged))

    def _show_facts(self) -> None:
        facts, box = self.pair.facts, self.box
        box.placeholder = "press / and type a query"
        if facts is not None and facts.remote is not None:
            box.placeholder += f"; press Enter to search ({printable(facts.remote)} is remote)"
        chart = self.query_one("#segments", Chart)
        titled(chart, f" {printable(facts.title)} " if facts else " RBO by segment ")
        chart.border_subtitle = Content(f" {facts.legend} " if facts and facts.legend else "")
        chart.plot_ranges(facts.ranges if facts else [], printable(facts.nothing, lines=True) if facts else "")

    # -- the linked lists ---------------------------------------------------------------------------------

    @property
    def _lists(self) -> tuple[HitList, HitList]:
        """The leading list (with the focus, or the last one with it), and the other one."""
        primary, candidate = self.query_one("#primary", HitList), self.query_one("#candidate", HitList)
        return (candidate, primary) if candidate.has_class("-leads") else (primary, candidate)

    def _link(self) -> None:
        leader, follower = self._lists
        leader.show_cursor = True
        follower.link(leader.hit)
        self._preview(leader.hit)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        if isinstance(event.widget, HitList):
            for hits in self.query(HitList):
                hits.set_class(hits is event.widget, "-leads")
            self._link()

    def on_data_table_row_highlighted(self, event: Table.RowHighlighted) -> None:
        event.stop()
        if event.data_table is self._lists[0]:
            self._link()

    def _preview(self, hit: Hit | None) -> None:
        preview = self.query_one("#preview", Vertical)
        titled(preview, f" {shorten(printable(hit.source_id), 60)} " if hit else " hit ")
        text = printable(hit.content[:_PREVIEW], lines=True) if hit else ""
        query = self.comparison.query if self.comparison else ""
        preview.query_one(Static).update(marked(text, query))

    # -- actions ------------------------------------------------------------------------------------------

    def focus_query(self) -> None:
        self.box.focus()
        self.box.cursor_position = len(self.box.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.post_message(self.Act("search"))

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.control.typed(event.value)

    def open_hit(self) -> None:
        hit = self._lists[0].hit
        if hit is not None and self.comparison is not None:
            of_candidate = self._lists[0].id == "candidate"
            read = partial(self.control.searcher.facts, hit.chunk_id) if self.situation.state.live else None
            self.app.push_screen(hit_page(hit, of_candidate, self.comparison, self.control.judged, read))

    def open_diff(self) -> None:
        if self.comparison is not None:
            self.app.push_screen(diff_page(self.comparison, self.control.judged))

    def explain_hit(self) -> None:
        hit, found = self._lists[0].hit, self.comparison
        primary, candidate = self.pair.versions
        if hit is None or found is None or primary is None or candidate is None:
            return
        chunk_id, query, k = hit.chunk_id, found.query, found.k
        sides = (("primary", primary.version), ("candidate", candidate.version))

        def work() -> list[tuple[str, Explanation]]:
            return [(role, self.control.searcher.explain(query, version, chunk_id, k)) for role, version in sides]

        self.app.push_screen(explain_page(hit, work, k))

    def next_chart(self) -> None:
        self.toggle_class("-segments")

    def next_disagreement(self) -> None:
        self._lists[0].next_disagreement()

    def copy_hit(self) -> None:
        hit = self._lists[0].hit
        if hit is not None:
            self.app.copy_to_clipboard(hit.content)
            self.control.say(Text(f"Copied {len(hit.content):,} characters of {printable(hit.source_id)}."))

    def export(self, kind: str) -> None:
        """Write the comparison to a file: as json, as csv, or svg for a picture of the screen."""
        if self.comparison is None:
            return
        try:
            if kind == "svg":
                picture = self.app.export_screenshot(title="revector: compare")
                path = write_file(self.comparison.query, Path.cwd(), kind, picture)
            else:
                path = write_comparison(self.comparison, Path.cwd(), kind, self.control.judged)
        except RevectorError as error:
            self.control.fail(error)
        else:
            self.control.say(Text(f"Written to {printable(str(path))}", GOOD))

    def step_candidate(self, step: int) -> None:
        key = self.pair.other_candidate(step)
        if key is not None:
            self.post_message(self.Select(key))


def measures(comparison: Comparison, width: int, judged: JudgedHits | None = None) -> Text:
    """`overlap@10 0.70  Jaccard 0.54  RBO 0.81  tau 0.55`, then nDCG of judged queries, or the time of the
    search."""
    overlap = comparison.overlap
    text = Text(no_wrap=True, overflow="ellipsis")
    figures = [
        (f"overlap@{overlap.k}", f"{overlap.overlap:.2f}"),
        ("Jaccard", f"{overlap.jaccard:.2f}"),
        ("RBO", f"{overlap.rbo:.2f}"),
        ("tau", figure(overlap.kendall_tau)),
    ]
    known = ""
    if judged is not None:
        name, values, known = ndcg_words(judged)
        figures.append((name, values))
    for name, value in figures:
        text.append(f"{name} ", FAINT)
        text.append(f"{value}  ", TITLE)
    if judged is not None:
        return text.append(f"{known}, {printable(judged.query_set)}" if width >= _WIDE else "", FAINT)
    sides = (comparison.primary, comparison.candidate)
    if width < _WIDE:
        times = [f"{side.encode_s * 1000:.1f}+{side.search_s * 1000:.1f}" for side in sides]
        return text.append(f"{' │ '.join(times)} ms", FAINT)
    times = [f"{milliseconds(side.encode_s)} + {milliseconds(side.search_s)}" for side in sides]
    return text.append(f"encode + search {' │ '.join(times)}", FAINT)
