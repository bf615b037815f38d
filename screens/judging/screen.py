"""The judging screen: one pair of query and text at a time, one key for each grade, blind to the version.

An answer counts at once and is stored in the background, in the order of the keys.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from time import monotonic
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from revector.core.errors import RefusedError, RevectorError
from revector.core.evaluation.judged_sets.agreement import Agreement
from revector.core.evaluation.judging.grading import GRADES
from revector.core.evaluation.judging.queue import JudgingItem
from revector.core.registry import Version
from revector.screens.judging import text
from revector.screens.judging.answers import Answers
from revector.screens.judging.desk import JudgingBatch, JudgingChoice, JudgingDesk, Opened
from revector.screens.services import Services
from revector.screens.situation import Following, Situation
from revector.screens.widgets.background import Tell, in_background, readable
from revector.screens.widgets.keyline import Key, KeyLine
from revector.screens.widgets.page import Page
from revector.screens.wording.text import printable, shorten
from revector.screens.wording.theme import BAD, CAUTION, FAINT

_REFILL = 10
"""When fewer pairs are loaded, the next are read."""

_ROOMY = 32

_GRADES = tuple(Key(str(grade), label, f"grade({grade})") for grade, label in enumerate(GRADES))
_KEYS = (
    Key("s", "skip", "skip"),
    Key("u", "undo", "undo"),
    Key("f", "what to judge", "choose"),
    Key("n", "name", "name"),
    Key("r", "read again", "reload"),
)
_ENDS = (Key("?", "help", "help"), Key("esc", "leave", "leave"))


class JudgingScreen(Following, ModalScreen[None]):
    """Fills the terminal; a ModalScreen, so that no key reaches the tab below."""

    DEFAULT_CSS = """
    JudgingScreen { background: $background; }
    JudgingScreen #where, JudgingScreen #progress, JudgingScreen #left {
        height: 1; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis;
    }
    JudgingScreen #where { background: $panel; }
    JudgingScreen #where.-production { background: #8c1d18; color: #ffffff; text-style: bold; }
    JudgingScreen #lost { height: auto; max-height: 2; background: #4a1512; padding: 0 1; display: none; }
    JudgingScreen #message { height: auto; min-height: 1; max-height: 3; padding: 0 1; }
    JudgingScreen VerticalScroll { scrollbar-size-vertical: 1; padding: 0 1; }
    JudgingScreen #query {
        height: auto; max-height: 5; border: round $border; border-title-color: $secondary; text-style: bold;
    }
    JudgingScreen #text {
        height: 1fr; border: round $border; border-title-color: $secondary; border-subtitle-color: $secondary;
    }
    JudgingScreen.-roomy #query { max-height: 9; padding: 1 2; }
    JudgingScreen.-roomy #text { padding: 0 2; }
    JudgingScreen #query:focus, JudgingScreen #text:focus { border: heavy $primary; }
    JudgingScreen #grades { background: $surface; }
    JudgingScreen #keys { background: $panel; }
    JudgingScreen.-lost #lost { display: block; }
    JudgingScreen.-lost #query, JudgingScreen.-lost #text, JudgingScreen.-lost #grades { opacity: 55%; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(key.key, key.action, key.label, show=False) for key in (*_GRADES, *_KEYS)),
        Binding("enter", "search", "Search", show=False),
        Binding("question_mark", "help", "Help", show=False),
        Binding("escape,q", "leave", "Leave", show=False),
    ]

    def __init__(self, services: Services, primary: Version, candidate: Version) -> None:
        super().__init__()
        self.answers = Answers()
        self._services = services
        self._desk = JudgingDesk(services, primary, candidate)
        self._choice = JudgingChoice()
        self._opened = Opened(None, (), None, None)
        self._agreements: tuple[Agreement, ...] = ()
        self._drawn: JudgingItem | str | None = None
        self._status = ""
        self._message = Text()
        self._live = True
        self._reading = False
        self._unread = False
        """The last reading failed."""
        self._exhausted = False
        self._to_search = False
        """The runs are missing; Enter makes them."""
        self._storing = False
        self._leaving = False

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(id="where", classes="-production" if self._services.settings.production else "")
            yield Static(
                Text("✗ No connection to the database: keys are ignored until it is back. Esc: close"), id="lost"
            )
            yield Static(id="progress")
            yield Static(id="left")
            with VerticalScroll(id="query"):
                yield Static(id="query-text", markup=False)
            with VerticalScroll(id="text"):
                yield Static(id="content", markup=False)
            yield Static(id="message")
            yield KeyLine(_GRADES, id="grades")
            yield KeyLine((*_KEYS, *_ENDS), id="keys")

    def on_mount(self) -> None:
        self.query_one("#text").focus()
        self._open()

    def on_unmount(self) -> None:
        self._desk.close()

    def show(self, situation: Situation) -> None:
        """Take no keys while the database is lost; failed reads are repeated when it is back."""
        live = situation.state.live
        if live == self._live:
            return
        self._live = live
        self.set_class(not live, "-lost")
        if live and self._unread:
            self.action_reload()

    # -- reading ------------------------------------------------------------------------------------------

    def _open(self) -> None:
        choice = self._choice
        self._wait("Reading the queue …")
        in_background(self, "read", lambda _tell: self._desk.open(choice), self._now_open, self._not_read)

    def _now_open(self, opened: Opened) -> None:
        self._opened = opened
        if opened.query_set is None:
            self._rest("There is no query set yet. Import one: revector queries import NAME --queries F --qrels F")
        elif opened.pair is None:
            self._to_search = True
            self._rest(
                f"Both versions must first be searched for the {len(opened.query_set.queries):,} queries of "
                f"{printable(opened.query_set.name)}. Each version's encoder encodes them. Enter: start"
            )
        else:
            self._read(count=True)

    def action_search(self) -> None:
        """Enter, when the runs must be made."""
        if not self._to_search or not self._live:
            return
        self._to_search = False
        self._wait("Searching both versions …")
        opened = self._opened

        def search(tell: Tell) -> Opened:
            def progress(_step: str, done: int, total: int) -> None:
                if not self.is_attached:
                    raise RevectorError("The screen was closed.")  # the next time the run continues from here
                tell(lambda: self._wait(f"Searching both versions, one after the other: {done:,} of {total:,}"))

            return self._desk.search(opened, progress)

        in_background(self, "read", search, self._now_open, self._not_read)

    def _read(self, *, count: bool) -> None:
        """Read more pairs after the loaded ones."""
        self._reading = True
        opened, choice, seen = self._opened, self._choice, self.answers.seen

        def read(_tell: Tell) -> JudgingBatch:
            return self._desk.read(opened, choice, seen, count=count)

        in_background(self, "read", read, self._now_read, self._not_read)

    def _now_read(self, batch: JudgingBatch) -> None:
        self._unread = False
        self._exhausted = not batch.items
        self._agreements = batch.agreements
        self.answers.items.extend(batch.items)
        if batch.counts is not None:
            self.answers.counted(batch.counts)
        self._rest("Nothing left to judge here. f: choose something else   u: undo   r: reload")

    def _not_read(self, error: RevectorError) -> None:
        self._unread = True
        self._message = Text("✗ ", BAD).append_text(text.problem(error))
        self._rest("The queue could not be read. r: try again")

    def _wait(self, status: str) -> None:
        self._reading = True
        self._status = status
        self._draw()

    def _rest(self, status: str) -> None:
        self._reading = False
        self._status = status
        self._draw()

    def _start_over(self, choice: JudgingChoice, *, forget: bool) -> None:
        """Read everything again. `forget`: earlier answers were for another choice, and can no longer be
        undone."""
        self._choice = choice
        self._to_search = False
        self._agreements = ()
        self.answers.clear(forget=forget)
        self._open()

    # -- answering ----------------------------------------------------------------------------------------

    @property
    def _taking(self) -> bool:
        return self._live and not self._leaving

    def action_skip(self) -> None:
        """Skip the pair for this session; it stays open."""
        self.action_grade(None)

    def action_grade(self, grade: int | None) -> None:
        if self._taking and self.answers.item is not None:
            self.answers.answer(grade, monotonic())
            self._message = Text()
            self._store()

    def action_undo(self) -> None:
        if not self._taking:
            return
        step = self.answers.undo()
        if step is None:
            self._say(Text("Nothing to undo in this session.", FAINT))
            return
        self._message = Text("The skip" if step.grade is None else f"Your {step.grade}").append(" was undone.")
        self._store()

    def _store(self) -> None:
        """Store pending answers, unless that is already running."""
        if not self._storing:
            self._storing = True
            self.run_worker(self._store_all(), group="store", exit_on_error=False)
        self._draw()

    async def _store_all(self) -> None:
        while self.answers.pending:
            write = self.answers.pending[0]
            work = self._desk.take_back if write.undo else self._desk.write
            try:
                await asyncio.to_thread(work, self._opened, write.step)
            except Exception as error:  # noqa: BLE001  (whatever it is, the answer is not stored)
                self._not_stored(readable(error))
            else:
                self.answers.stored()
        self._storing = False
        if self._leaving:
            self.dismiss(None)
        elif len(self.answers.items) < _REFILL and not (self._exhausted or self._reading):
            self._read(count=False)
        self._draw()

    def _not_stored(self, error: RevectorError) -> None:
        # A refused undo can never succeed, but earlier answers can be undone.
        self.answers.revert(for_good=isinstance(error, RefusedError))
        self._leaving = False
        self._message = Text("✗ Not stored. ", f"bold {BAD}").append_text(text.problem(error))

    # -- choosing and leaving -----------------------------------------------------------------------------

    def action_choose(self) -> None:
        from revector.screens.judging.dialogs import ChoiceDialog

        query_set = self._opened.query_set
        if query_set is not None and self._can_change():
            dialog = ChoiceDialog(self._choice, query_set.name, self._opened.names, self.answers.left)
            self.app.push_screen(dialog, self._chosen)

    def _chosen(self, choice: JudgingChoice | None) -> None:
        if choice is not None and self._can_change():
            self._start_over(choice, forget=choice.query_set != self._choice.query_set)

    def action_name(self) -> None:
        from revector.screens.judging.dialogs import NameDialog

        if self._opened.judge is not None and self._can_change():
            self.app.push_screen(NameDialog(self._opened.judge.name), self._named)

    def _named(self, name: str | None) -> None:
        if name is not None and self._can_change():
            self._start_over(replace(self._choice, name=name), forget=True)

    def action_reload(self) -> None:
        """Read the queue and all counts again."""
        if self._can_change():
            self._message = Text()
            self._start_over(self._choice, forget=False)

    def _can_change(self) -> bool:
        if self.answers.pending:
            self._say(Text("Wait: the last answers are still being stored.", FAINT))
        return self._taking and not self.answers.pending

    def action_help(self) -> None:
        self.app.push_screen(Page("judging", text.help_page()))

    def action_leave(self) -> None:
        """Back to the console, after pending answers are stored. Pressed again, they are dropped."""
        if self.answers.pending and not self._leaving:
            self._leaving = True
            self._say(Text(f"Storing {len(self.answers.pending)} more. Esc again: close and lose them", CAUTION))
        else:
            self.dismiss(None)

    # -- drawing ------------------------------------------------------------------------------------------

    def on_resize(self) -> None:
        """Cut lines to the width, and add space around the query if there is room."""
        self.set_class(self.size.height >= _ROOMY, "-roomy")
        self._draw()

    def _say(self, message: Text) -> None:
        self._message = message
        self._draw()

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        item = self.answers.item
        with self.app.batch_update():
            self.query_one("#where", Static).update(self._where())
            width = self.size.width
            self.query_one("#progress", Static).update(text.progress_line(self.answers, self._choice, width))
            self.query_one("#left", Static).update(text.left_line(self.answers, self._choice, self._agreements))
            if self._drawn != (item or self._status):  # keep the scroll position
                self._drawn = item or self._status
                self._draw_item(item)
            why = text.why_line(item) if item else Text()
            self.query_one("#message", Static).update(self._message if self._message else why)

    def _draw_item(self, item: JudgingItem | None) -> None:
        query, box = self.query_one("#query", VerticalScroll), self.query_one("#text", VerticalScroll)
        content = self.query_one("#content", Static)
        query.display = self.query_one("#grades").display = item is not None
        for part in (query, box):
            part.scroll_home(animate=False)
        if item is None:
            box.border_title = box.border_subtitle = ""
            content.update(Text(self._status))
            return
        query.border_title = Content(f" query ─ segment {shorten(printable(item.segment), 40)} ")
        self.query_one("#query-text", Static).update(Text(printable(item.query, lines=True)))
        box.border_title = Content(f" {shorten(text.source_line(item), max(20, self.size.width - 8))} ")
        box.border_subtitle = Content(" ↑ ↓ PgUp PgDn ")
        content.update(text.passages(item))

    def _where(self) -> Text:
        settings, opened, choice = self._services.settings, self._opened, self._choice
        parts = [
            *(["PRODUCTION"] if settings.production else []),
            f"judging {opened.query_set.name if opened.query_set else '—'}",
            f"as {opened.judge.name if opened.judge else '—'}",
            choice.kind or "every kind",
            f"segment {choice.segment}",
            f"{settings.label or self._services.database.name}/{self._services.database.schema}",
        ]
        return Text(" ─ ".join(map(printable, parts)))
