"""Tab 5: the shadow: overlap and latency of both versions' answers to users, and where they disagree."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from revector.core import shadow
from revector.core.database import Connection
from revector.core.errors import RevectorError
from revector.core.shadow import ShadowReport, ShadowRun
from revector.screens.pane import Pane, step_through
from revector.screens.services import Services
from revector.screens.shadow import text
from revector.screens.shadow.actions import ShadowState
from revector.screens.situation import Situation, key_of
from revector.screens.tabs import COMPARE, SHADOW
from revector.screens.widgets.buttons import Buttons
from revector.screens.widgets.parts import Parts
from revector.screens.widgets.table import Table
from revector.screens.widgets.words import Words, titled
from revector.screens.wording.errors import error_text
from revector.screens.wording.text import printable
from revector.screens.wording.theme import FAINT, GOOD

_PARTS = {"overlaps": "overlap", "segments": "latency, segments", "worst": "disagreements"}
_LOOK_EVERY_S = 2.0
_WORST = 50


class ShadowPane(Pane):
    """Head, counts, trouble; histogram of overlap beside the segments with both latencies; the worst disagreements."""

    DEFAULT_CSS = """
    ShadowPane Table, ShadowPane #overlaps, ShadowPane #nothing {
        border: round $border-blurred; border-title-color: $secondary; border-subtitle-color: $secondary;
    }
    ShadowPane Table:focus, ShadowPane #overlaps:focus { border: round $border; }
    ShadowPane #head, ShadowPane #counts { height: 1; padding: 0 1; }
    ShadowPane #trouble, ShadowPane #said { height: auto; max-height: 4; padding: 0 1; }
    ShadowPane #upper { height: 15; }
    ShadowPane #overlaps { width: 1fr; height: 1fr; padding: 0 1; scrollbar-size-vertical: 1; }
    ShadowPane #segments { width: 68%; height: 1fr; }
    ShadowPane #worst { height: 1fr; }
    ShadowPane #nothing { height: 1fr; padding: 0 1; }
    ShadowPane.-tight #upper { height: 1fr; }
    ShadowPane.-tight #segments { width: 100%; }
    """

    PARTS: ClassVar[tuple[str, ...]] = tuple(_PARTS)
    WIDE = 110

    def __init__(self, services: Services) -> None:
        super().__init__(services)
        self.report: ShadowReport | None = None
        self.part = "overlaps"
        self._known = False
        self._error: RevectorError | None = None
        self._said = Text()
        self._looked_at: float | None = None
        self._looking_since: float | None = None
        self._patience_s = services.database.connect_timeout_s + 5 * services.settings.read_timeout_s

    def compose(self) -> ComposeResult:
        yield Words(id="head")
        yield Words(id="counts")
        yield Words(id="trouble")
        yield Words(id="said")
        yield Parts("m", id="parts")
        with Horizontal(id="upper"):
            with VerticalScroll(id="overlaps"):
                yield Words()
            yield Table(text.SEGMENTS, id="segments")
        yield Table(text.WORST, id="worst")
        yield Words(id="nothing")
        yield Buttons(SHADOW)

    # -- what actions depend on ---------------------------------------------------------------------------

    @property
    def running(self) -> bool | None:
        """Whether a shadow runs; None before that was read."""
        return None if not self._known else self.report is not None and self.report.run.stopped_at is None

    @property
    def judgeable(self) -> bool:
        """Whether the text of a disagreement is stored."""
        return self.report is not None and any(one.query for one in self.report.worst)

    def state(self, situation: Situation) -> ShadowState:
        return ShadowState(
            shadowing=self.running,
            disagreeing=self.report is not None and bool(self.report.worst),
            judgeable=self.judgeable,
        )

    @property
    def tight(self) -> bool:
        """Whether one part is shown at a time."""
        return self._has_figures and super().tight

    @property
    def _has_figures(self) -> bool:
        return self.report is not None and self.report.queries > 0

    # -- reading ------------------------------------------------------------------------------------------

    def entered(self) -> None:
        """Clear the message of an earlier visit, and read the report again."""
        self._said = Text()
        self._looked_at = None

    def look(self) -> None:
        """Read the report, unless it was just read or is being read."""
        now = time.monotonic()
        fresh = self._looked_at is not None and now - self._looked_at < _LOOK_EVERY_S
        busy = self._looking_since is not None and now - self._looking_since < self._patience_s
        if fresh or busy or not self.situation.state.live:
            return
        self._looking_since = now

        def read(connection: Connection) -> ShadowReport | None:
            run = shadow.latest(connection)
            return shadow.report(connection, shadow_id=run.id, limit=_WORST) if run else None

        self.read("shadow", read, self._show_report, self._no_report)

    def look_again(self) -> None:
        self._looked_at = self._looking_since = None
        self.look()

    def _show_report(self, found: ShadowReport | None) -> None:
        self.report, self._known, self._error = found, True, None
        self._read()

    def _no_report(self, error: RevectorError) -> None:
        self._error = error
        self._read()

    def _read(self) -> None:
        self._looked_at, self._looking_since = time.monotonic(), None
        self.changed()

    # -- drawing ------------------------------------------------------------------------------------------

    def on_resize(self) -> None:
        self.changed()

    def focus_main(self) -> None:
        """Focus the disagreements, or the visible part."""
        if not self._has_figures:
            self.screen.set_focus(None)
        else:
            self.query_one(f"#{self.part if self.tight else 'worst'}").focus()

    def draw(self) -> None:
        if not self.app.is_running or not self.query(Buttons):
            return  # a background read may arrive while the console ends
        self.look()
        found = self.report
        self._arrange(found)
        self.show_line("#said", error_text(self._error) if self._error is not None else self._said)
        if found is not None:
            self.query_one("#head", Static).update(text.head_line(found.run))
            self.query_one("#counts", Static).update(text.counts_line(found))
            self.show_line("#trouble", text.trouble_lines(found))
        if found is None or not found.queries:
            nothing = text.what_to_do(self.situation, found) if self._known else Text("Reading …", FAINT)
            self.query_one("#nothing", Static).update(nothing)
            return
        self.query_one("#parts", Parts).show(list(_PARTS.items()), self.part)
        self._draw_figures(found)

    def _arrange(self, found: ShadowReport | None) -> None:
        tight, figures = self.tight, self._has_figures
        self.set_class(tight, "-tight")
        front = ({self.part} if tight else set(self.PARTS)) if figures else set()
        for place, shown in (
            ("head", found is not None),
            ("counts", found is not None),
            ("trouble", found is not None),
            ("parts", figures and tight),
            ("upper", bool(front & {"overlaps", "segments"})),
            ("overlaps", "overlaps" in front),
            ("segments", "segments" in front),
            ("worst", "worst" in front),
            ("nothing", not figures),
        ):
            self.query_one(f"#{place}").display = shown

    def _draw_figures(self, found: ShadowReport) -> None:
        overlaps = self.query_one("#overlaps", VerticalScroll)
        titled(overlaps, text.overlap_title(found))
        width = self.app.size.width if self.tight else int(self.app.size.width * 0.32)
        overlaps.query_one(Static).update(text.histogram(found, width - 6))
        segments = self.query_one("#segments", Table)
        titled(segments, " by segment ─ latency in ms, encoding included ")
        segments.show(text.segment_rows(found))
        worst = self.query_one("#worst", Table)
        titled(worst, f" worst disagreements of the newest {found.queries:,} queries ")
        worst.border_subtitle = Content(" ↵ compare " if self.judgeable else " ↵ both rankings ")
        worst.show(text.worst_rows(found))

    # -- parts and rows -----------------------------------------------------------------------------------

    def next_part(self) -> None:
        self._show_part(step_through(list(self.PARTS), self.part, 1) or "overlaps")

    def _show_part(self, part: str) -> None:
        self.part = part
        self.changed()
        self.focus_main()

    def on_data_table_row_selected(self, event: Table.RowSelected) -> None:
        if event.data_table.id == "worst":
            self.post_message(self.Act("shadow-open"))

    def open_row(self) -> None:
        found = self.report
        key = self.query_one("#worst", Table).row_key
        one = next((one for one in found.worst if str(one.id) == key), None) if found else None
        if found is None or one is None:
            return
        if self.tight and self.part != "worst":
            self._show_part("worst")
        elif one.query is not None:
            query, primary, key = one.query, one.primary_version, found.run.candidate
            self.post_message(
                self.Open(COMPARE, lambda tab: tab.control.open_text(query, primary=primary), select=key)
            )
        else:
            from revector.screens.widgets.page import Page

            self.app.push_screen(Page(one.name, text.both_rankings(one, found.run.candidate)))

    # -- starting, stopping, judging ----------------------------------------------------------------------

    def start(self) -> None:
        from revector.screens.shadow.dialogs import StartShadow

        candidate = self.situation.candidate
        if candidate is None:
            return

        def chosen(start: Callable[[Connection], ShadowRun]) -> None:
            self._say(Text("Starting …", FAINT))
            self._steer(lambda connection: _started(start(connection)))

        self.ask(StartShadow(self.services, candidate.version), chosen)

    def stop(self) -> None:
        from revector.screens.widgets.confirm import Ask

        run = self.report.run if self.report else None
        if run is None:
            return
        question = f"Stop the shadow of {run.candidate}? Its results are kept for {run.retention_days:g} days."

        def confirmed(_yes: bool) -> None:
            self._say(Text("Stopping …", FAINT))
            self._steer(_stop)

        self.ask(Ask(question, "Let it run", "Stop it"), confirmed)

    def send_to_judging(self) -> None:
        from revector.screens.shadow.dialogs import SendToJudging

        ids = [one.id for one in self.report.worst if one.query] if self.report else []
        if ids:
            self.ask(
                SendToJudging(len(ids)),
                lambda name: self._steer(lambda connection: _send(connection, ids, name)),
            )

    def _steer(self, work: Callable[[Connection], str]) -> None:
        self.write("steer", work, self._steered, self._refused)

    def _steered(self, words: str) -> None:
        self._say(Text(words, GOOD))
        self.look_again()
        self.post_message(self.Changed(database=True))

    def _refused(self, error: RevectorError) -> None:
        self._say(error_text(error))
        self.look_again()

    def _say(self, message: Text) -> None:
        self._said = message
        self.draw()

    def step_candidate(self, step: int) -> None:
        keys = [s.version.version_key for s in self.situation.versions if s.embedded and not s.version.active]
        key = step_through(keys, key_of(self.situation.candidate), step)
        if key is not None:
            self._say(Text(f"candidate for a shadow: {printable(key)}"))
            self.post_message(self.Select(key))


def _started(run: ShadowRun) -> str:
    name = printable(run.candidate)
    return f"✓ The shadow of {name} is running. Processes with a mirror follow within a second."


def _stop(connection: Connection) -> str:
    return f"✓ The shadow of {printable(shadow.stop(connection).candidate)} is stopped."


def _send(connection: Connection, ids: Sequence[int], name: str) -> str:
    sent = shadow.send_to_judging(connection, ids, name)
    there = f", {sent.there_already} already there" if sent.there_already else ""
    return f"✓ Added to the query set {printable(name)}: {sent.added}{there}. J judges them."
