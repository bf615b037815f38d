"""Tab 3: one query, two versions, side by side. Ranks are compared, never distances."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Input, Static

from core.errors import RevectorError
from core.registry import VersionStatus
from core.retrieval import Comparison, Hit
from screens.background import in_background
from screens.chart import Chart, Series
from screens.hits import HitList
from screens.pane import Pane, Services, step_through
from screens.query import QueryBox
from screens.searcher import Searcher
from screens.situation import key_of
from screens.table import Table
from screens.text import milliseconds, printable, shorten
from screens.theme import BAD, FAINT, GOOD, TITLE

_STEP = 5
_MOST = 100
_PREVIEW = 2_000
_WIDE = 100


class ComparePane(Pane):
    """The query, the hits of both versions, overlap by depth, and the text of the hit under the cursor."""

    DEFAULT_CSS = """
    ComparePane #ask { height: 1; padding: 0 1; }
    ComparePane #prompt { width: auto; }
    ComparePane #pair { width: auto; max-width: 50%; padding: 0 0 0 2; color: $secondary; }
    ComparePane #lists { height: 63%; }
    ComparePane #below { height: 1fr; }
    ComparePane #overlap { width: 1fr; }
    ComparePane #preview { width: 1fr; height: 1fr; border: round $border-blurred; padding: 0 1;
                           border-title-color: $secondary; }
    ComparePane #measures { height: 1; padding: 0 1; }
    """

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.k = 10
        self.comparison: Comparison | None = None
        self._primary: str | None = None
        self._searcher = Searcher(services.connections)
        self._message = Text("")

    def compose(self) -> ComposeResult:
        """As the sketch in the design has it."""
        with Horizontal(id="ask"):
            yield Static("query › ", id="prompt", markup=False)
            yield QueryBox()
            yield Static(id="pair", markup=False)
        with Horizontal(id="lists"):
            yield HitList("primary")
            yield HitList("candidate")
        with Horizontal(id="below"):
            yield Chart("overlap by depth", nothing="No query yet: press /", limits=(0, 1), id="overlap")
            with Vertical(id="preview"):
                yield Static(markup=False)
        yield Static(id="measures", markup=False)

    # -- what is compared ---------------------------------------------------------------------------------

    @property
    def pair(self) -> tuple[VersionStatus | None, VersionStatus | None]:
        """Primary (the active version, or the one chosen) and candidate."""
        with_vectors = [status for status in self.situation.versions if status.embedded]
        chosen = next((s for s in with_vectors if key_of(s) == self._primary), None)
        primary = chosen or self.situation.active or next(iter(with_vectors), None)
        candidate = self.situation.candidate
        if candidate is None or not candidate.embedded or key_of(candidate) == key_of(primary):
            candidate = next((s for s in reversed(with_vectors) if key_of(s) != key_of(primary)), None)
        return primary, candidate

    def entered(self) -> None:
        """A message of an earlier visit is over."""
        self._message = Text("")

    def focus_main(self) -> None:
        """The hits. Not the query box: there the keys of the tabs would be letters."""
        self._lists[0].focus()

    def draw(self) -> None:
        """Draw the pair and what was found for it; what was found for another pair goes."""
        primary, candidate = map(key_of, self.pair)
        found = self.comparison
        if found is not None and (found.primary.version_key, found.candidate.version_key) != (primary, candidate):
            self.comparison = found = None
            self._message = Text("Another pair of versions: press / and Enter to search again.", FAINT)
            self.post_message(self.Changed())
        word = "active" if primary == key_of(self.situation.active) else "primary"
        pair = f"k {self.k}"
        if self.size.width >= _WIDE:
            pair = f"{word} {printable(primary or '—')} │ candidate {printable(candidate or '—')}  {pair}"
        self.query_one("#pair", Static).update(Text(pair, no_wrap=True, overflow="ellipsis"))
        if found is None:
            self.query_one("#primary", HitList).show_nothing(word, primary)
            self.query_one("#candidate", HitList).show_nothing("candidate", candidate)
            self.query_one("#overlap", Chart).plot([])
            self._preview(None)
            if candidate is None:
                self._message = Text("Two versions with vectors are needed: backfill another one (2).")
        self.query_one("#measures", Static).update(self._message)

    def show_comparison(self, comparison: Comparison) -> None:
        """Draw what was found, and put the cursor into the results."""
        self.comparison = comparison
        self.query_one("#lists").styles.max_height = max(len(comparison.primary.hits), 10) + 2
        primary, candidate = self.query_one("#primary", HitList), self.query_one("#candidate", HitList)
        active = comparison.primary.version_key == key_of(self.situation.active)
        primary.show_result("active" if active else "primary", comparison.primary, comparison.primary_moves)
        candidate.show_result("candidate", comparison.candidate, comparison.candidate_moves)
        self.query_one("#overlap", Chart).plot([Series(tuple(comparison.overlap_by_depth))])
        self._message = measures(comparison, self.size.width)
        if not isinstance(self.screen.focused, HitList):
            primary.focus()
        self._link()
        self.draw()
        self.post_message(self.Changed())

    # -- the linked lists ---------------------------------------------------------------------------------

    @property
    def _lists(self) -> tuple[HitList, HitList]:
        """The list that leads (it has the focus, or had it last), and the other one."""
        primary, candidate = self.query_one("#primary", HitList), self.query_one("#candidate", HitList)
        return (candidate, primary) if candidate.has_class("-leads") else (primary, candidate)

    def _link(self) -> None:
        leader, follower = self._lists
        leader.show_cursor = True
        follower.link(leader.hit)
        self._preview(leader.hit)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """The list that gets the focus leads."""
        if isinstance(event.widget, HitList):
            for hits in self.query(HitList):
                hits.set_class(hits is event.widget, "-leads")
            self._link()

    def on_data_table_row_highlighted(self, event: Table.RowHighlighted) -> None:
        """The other list follows the cursor."""
        event.stop()
        if event.data_table is self._lists[0]:
            self._link()

    def on_data_table_row_selected(self, event: Table.RowSelected) -> None:
        """A click on the hit under the cursor."""
        event.stop()
        self.post_message(self.Act("open-hit"))

    def _preview(self, hit: Hit | None) -> None:
        preview = self.query_one("#preview", Vertical)
        preview.border_title = Content(f" {shorten(printable(hit.source_id), 60)} " if hit else " hit ")
        text = printable(hit.content[:_PREVIEW], lines=True) if hit else ""
        preview.query_one(Static).update(Text(text))

    # -- actions ------------------------------------------------------------------------------------------

    def focus_query(self) -> None:
        """Type a query."""
        self.query_one(QueryBox).focus()

    def leave_query(self) -> None:
        """Back to the results."""
        self._lists[0].focus()

    def older_query(self) -> None:
        """The query before."""
        self.query_one(QueryBox).step(-1)

    def newer_query(self) -> None:
        """The query after."""
        self.query_one(QueryBox).step(1)

    def on_unmount(self) -> None:
        """The connection of the searches is not needed any more."""
        self._searcher.close()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter in the query box."""
        event.stop()
        self.post_message(self.Act("search"))

    def search(self) -> None:
        """Search both versions for the query in the box."""
        primary, candidate = self.pair
        query = self.query_one(QueryBox).value
        if primary is None or candidate is None or not query.strip():
            return
        self.query_one(QueryBox).remember(query)
        self._say(Text("Searching …", FAINT))
        k = self.k

        def compare(_tell: object) -> Comparison:
            return self._searcher.compare(query, primary.version, candidate.version, k)

        in_background(self, "search", compare, self.show_comparison, self._fail)

    def more(self) -> None:
        """Five more results."""
        self._change_k(min(_MOST, self.k + _STEP))

    def fewer(self) -> None:
        """Five fewer results."""
        self._change_k(max(_STEP, self.k - _STEP))

    def _change_k(self, k: int) -> None:
        self.k = k
        self.draw()
        if self.comparison is not None:
            self.search()

    def next_candidate(self) -> None:
        """The next version as candidate."""
        self._step_candidate(1)

    def previous_candidate(self) -> None:
        """The version before as candidate."""
        self._step_candidate(-1)

    def _step_candidate(self, step: int) -> None:
        primary, candidate = map(key_of, self.pair)
        active = key_of(self.situation.active)
        key = step_through([key for key in self._comparable() if key not in (primary, active)], candidate, step)
        if key is not None:
            self.post_message(self.Select(key))

    def next_primary(self) -> None:
        """Another version in the place of the active one; the active one comes again after the last."""
        primary, candidate = map(key_of, self.pair)
        self._primary = step_through([key for key in self._comparable() if key != candidate], primary, 1)
        self.draw()

    def _comparable(self) -> list[str]:
        return [status.version.version_key for status in self.situation.versions if status.embedded]

    def open_hit(self) -> None:
        """The hit under the cursor in full."""
        from screens.hit import hit_page

        hit = self._lists[0].hit
        if hit is not None and self.comparison is not None:
            self.app.push_screen(hit_page(hit, self._lists[0].id == "candidate", self.comparison))

    def next_disagreement(self) -> None:
        """The next hit that stands elsewhere in the other version."""
        self._lists[0].next_disagreement()

    def copy_hit(self) -> None:
        """Send the hit's text to the terminal's clipboard."""
        hit = self._lists[0].hit
        if hit is not None:
            self.app.copy_to_clipboard(hit.content)
            self._say(Text(f"Copied {len(hit.content):,} characters of {printable(hit.source_id)}."))

    def export_json(self) -> None:
        """Write the comparison as JSON."""
        self._export("json")

    def export_csv(self) -> None:
        """Write the comparison as CSV."""
        self._export("csv")

    def _export(self, kind: str) -> None:
        from screens.export import write_comparison

        if self.comparison is None:
            return
        try:
            path = write_comparison(self.comparison, Path.cwd(), kind)
        except RevectorError as error:
            self._fail(error)
        else:
            self._say(Text(f"Written to {printable(str(path))}", GOOD))

    def _fail(self, error: RevectorError) -> None:
        self._say(Text(f"✗ {printable(error.problem)} {printable(error.remedy)}".strip(), BAD))

    def _say(self, message: Text) -> None:
        self._message = message
        self.query_one("#measures", Static).update(message)


def measures(comparison: Comparison, width: int) -> Text:
    """`overlap@10 0.70  Jaccard 0.54  RBO 0.81  tau 0.55`, and what encoding and searching took."""
    overlap = comparison.overlap
    tau = "—" if overlap.kendall_tau is None else f"{overlap.kendall_tau:.2f}"
    text = Text(no_wrap=True, overflow="ellipsis")
    for name, value in (
        (f"overlap@{overlap.k}", f"{overlap.overlap:.2f}"),
        ("Jaccard", f"{overlap.jaccard:.2f}"),
        ("RBO", f"{overlap.rbo:.2f}"),
        ("tau", tau),
    ):
        text.append(f"{name} ", FAINT)
        text.append(f"{value}  ", TITLE)
    sides = (comparison.primary, comparison.candidate)
    if width < _WIDE:
        times = [f"{side.encode_s * 1000:.1f}+{side.search_s * 1000:.1f}" for side in sides]
        return text.append(f"{' │ '.join(times)} ms", FAINT)
    times = [f"{milliseconds(side.encode_s)} + {milliseconds(side.search_s)}" for side in sides]
    return text.append(f"encode + search {' │ '.join(times)}", FAINT)
