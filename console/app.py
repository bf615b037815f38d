"""The Textual app: holds the snapshot, shows it on the tabs, and runs the actions."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from typing import ClassVar

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.message import Message
from textual.widgets import Input

from revector.core.database import Database
from revector.core.logs import crashed
from revector.core.settings import Settings
from revector.screens.actions import Action, offered
from revector.screens.backfill.runs import Backfills
from revector.screens.connections import Connections
from revector.screens.frame.actions import Console
from revector.screens.frame.footer import Footer
from revector.screens.frame.header import Banner, Header, TabBar, Trouble
from revector.screens.frame.key_queue import KeyQueue
from revector.screens.frame.refusals import Refusals
from revector.screens.frame.snapshots import SnapshotReader
from revector.screens.frame.too_small import TooSmall, too_small
from revector.screens.pane import Pane
from revector.screens.services import Services
from revector.screens.situation import Following, Situation, State
from revector.screens.tabs import ACTIONS, BY_ID, COMPARE, TABS, Tab
from revector.screens.wording.theme import THEME

_CLOCK_S = 1.0
_LAST_S = 3.0
"""How long the screen may take to end after its terminal was closed."""


def run_console(database: Database, settings: Settings, *, reader: SnapshotReader | None = None) -> None:
    """Open the console on a collection; returns when the user quits. `reader` may already be running.

    Raises SystemExit, with the status of a process that a signal ended, when one did; RevectorError when it crashed.
    """
    if reader is None:
        reader = SnapshotReader(database, settings)
        reader.start()  # reads while Textual boots
    app = RevectorApp(database, settings, reader=reader)
    try:
        app.run()
    finally:
        app.services.backfills.leave()  # nothing runs any more, unless an error ended the console
    if app._exception is not None:
        raise crashed(getattr(app._exception, "error", app._exception))  # without Textual's WorkerFailed
    if app.return_code:
        sys.exit(app.return_code)


class RevectorApp(App[None], inherit_bindings=False):
    """The console."""

    TITLE = "revector"
    ENABLE_COMMAND_PALETTE = False  # the palette is an action of the table
    CSS = """
    #body { height: 1fr; }
    #body.-old { opacity: 55%; }
    #body.-none { display: none; }
    Trouble.-shown { display: block; }
    SearchIcon { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(",".join(action.keys), f"act('{action.id}')", action.label, show=action.footer)
        for action in ACTIONS
    ]

    class NewReading(Message):
        """The reader has something new."""

    def __init__(self, database: Database, settings: Settings, *, reader: SnapshotReader | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.reader = reader or SnapshotReader(database, settings)
        self.selection: str | None = None
        self.tab = TABS[0].key
        self.panes: dict[str, Pane] = {}
        self.refusals = Refusals()
        self.keys = KeyQueue(self, super().on_event)
        self._ending = False
        self.services = Services(
            database, settings, Connections(database, settings.read_timeout_s), Backfills(database, settings)
        )
        self.header = Header(database, settings)
        self.tab_bar, self.banner, self.trouble, self.footer = TabBar(), Banner(), Trouble(), Footer()
        self.body = Container(id="body")
        self.register_theme(THEME)
        self.theme = THEME.name

    # -- the screen ---------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Everything but the panes of the other tabs, which are made when they are first shown."""
        yield self.header
        yield self.tab_bar
        yield self.banner
        yield self.trouble
        self.panes[self.tab] = TABS[0].load()(self.services)
        with self.body:
            yield self.panes[self.tab]
        yield self.footer

    def on_mount(self) -> None:
        """Start reading, and show what was read before the screen existed."""
        self.services.backfills.on_change = self._tell_new_reading
        self.watch(self.screen, "focused", self.draw_frame, init=False)
        self.reader.start(self._tell_new_reading)
        self.draw()
        self.set_interval(self.settings.refresh_s, self.reader.request)
        self.set_interval(_CLOCK_S, self.draw_frame)
        self.call_after_refresh(_resume_collection)
        self._heed_signals()

    def _tell_new_reading(self) -> None:
        self.post_message(self.NewReading())

    def on_revector_app_new_reading(self) -> None:
        """Draw the new snapshot."""
        self.draw()

    @property
    def situation(self) -> Situation:
        """The current situation."""
        reading = self.reader.latest
        front = self.panes.get(self.tab)
        state = State(
            tab=self.tab,
            live=not reading.lost and reading.overview is not None,
            read_only=self.services.database.read_only,
            typing=isinstance(self.screen_stack[0].focused, Input),
            working=self.services.backfills.working,
            staying=self.services.backfills.staying,
            on_ray=self.services.backfills.on_ray,
            tight=front is not None and front.is_mounted and front.tight,
        )
        situation = Situation(reading.overview, self.selection, state)
        return replace(situation, tabs=tuple(pane.state(situation) for pane in self.panes.values()))

    def draw(self) -> None:
        """Draw the frame and the current tab, as one update of the screen."""
        if not self.is_running:
            return  # widgets disappear one by one while the app ends, and a snapshot may still arrive
        with self.batch_update():
            if self.reader.latest.overview is not None:
                self.panes[self.tab].show(self.situation)
            self.draw_frame()

    def draw_frame(self) -> None:
        """Draw the frame: time, age and trouble change without a new snapshot too."""
        if not self.is_running:
            return
        reading, situation = self.reader.latest, self.situation
        nothing = reading.overview is None
        self.header.show(situation, reading)
        self.tab_bar.tab = self.tab
        self.banner.reading = reading
        self.trouble.set_class(nothing, "-shown")
        self.trouble.reading = reading
        self.body.set_class(nothing, "-none")
        self.body.set_class(not nothing and not situation.state.live, "-old")
        self.footer.show(self.offers(situation), situation)
        self.footer.reason = self.refusals.text
        self.panes[self.tab].show_actions(situation)
        for screen in self.screen_stack[1:]:
            if isinstance(screen, Following):
                screen.show(situation)

    async def on_resize(self, event: events.Resize) -> None:
        """Show a separate screen while the terminal is too small."""
        shown = isinstance(self.screen, TooSmall)
        if too_small(event.size) and not shown:
            await self.push_screen(TooSmall())
        elif shown and not too_small(event.size):
            await self.pop_screen()

    # -- tabs ---------------------------------------------------------------------------------------------

    async def go_to(self, tab: Tab) -> None:
        """Show a tab."""
        if tab.key == self.tab:
            return
        if tab.key not in self.panes:
            self.panes[tab.key] = tab.load()(self.services)
            await self.body.mount(self.panes[tab.key])
        self.tab = tab.key
        for key, pane in self.panes.items():
            pane.display = key == tab.key
        self.panes[tab.key].entered()
        self.draw()
        if self.reader.latest.overview is not None:
            self.panes[tab.key].focus_main()

    def on_pane_select(self, event: Pane.Select) -> None:
        """Another version was selected."""
        self.selection = event.key
        self.draw()

    async def on_pane_open(self, event: Pane.Open) -> None:
        """Show another tab, or something on it."""
        self.selection = event.select or self.selection
        await self.go_to(event.tab)
        if event.do is not None:
            self.panes[event.tab.key].show(self.situation)
            event.do(self.panes[event.tab.key])

    def on_pane_changed(self, event: Pane.Changed) -> None:
        """The state that actions depend on has changed."""
        if event.database:
            self.reader.request()
        self.draw_frame()

    # -- actions ------------------------------------------------------------------------------------------

    def offers(self, situation: Situation) -> list[Action]:
        """The offered actions, in the order of the table."""
        return [action for action in ACTIONS if offered(action, situation)]

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A key whose action is not offered is not bound."""
        if action != "act":
            return True
        return offered(BY_ID[str(parameters[0])], self.situation)

    async def on_event(self, event: events.Event) -> None:
        """Queue what is typed."""
        if isinstance(event, events.Key | events.Paste) and not event.is_forwarded:
            await self.keys.add(event)
        else:
            await super().on_event(event)

    def on_key(self, event: events.Key) -> None:
        """Say why a key does nothing. Right after a dangerous key was refused, letters are not commands."""
        if len(self.screen_stack) > 1 or isinstance(self.focused, Input):
            return
        if self.refusals.deaf and event.key != "escape":
            if event.is_printable or event.key == "enter":
                self.refusals.swallow()
                event.prevent_default()
        elif event.key in self.screen.active_bindings:
            self.refusals.forget()
        else:
            self.refusals.refuse(event.key, self.situation)
        self.footer.reason = self.refusals.text

    async def action_act(self, action_id: str) -> None:
        """Do an action, if it is offered."""
        action = BY_ID[action_id]
        if not offered(action, self.situation):
            return
        target: Console | Pane = self if action.tab is None else self.panes[action.tab]
        outcome = action.do(target)
        if outcome is not None:
            await outcome

    async def on_pane_act(self, event: Pane.Act) -> None:
        """A row, a button, the footer or the palette asks for an action, which may no longer be offered."""
        action = BY_ID[event.action_id]
        if not offered(action, self.situation):
            self.refusals.refuse(action.keys[0], self.situation, action)
            self.footer.reason = self.refusals.text
        await self.action_act(event.action_id)

    def show_help(self) -> None:
        """All keys."""
        from revector.screens.frame.help import help_text
        from revector.screens.widgets.page import Page

        self.push_screen(Page("keys", help_text(self.situation)))

    def open_judging(self) -> None:
        """Judge pairs of queries and chunks, for the pair of versions of the Compare tab."""
        from revector.screens.judging.screen import JudgingScreen

        pane, compare = self.panes.get(COMPARE.key), COMPARE.load()
        if not isinstance(pane, compare):
            pane = compare(self.services)
            pane.situation = self.situation
        primary, candidate = pane.pair.versions
        if primary is not None and candidate is not None:
            self.push_screen(JudgingScreen(self.services, primary.version, candidate.version))

    def show_palette(self) -> None:
        """Find an action by typing."""
        from textual.command import CommandPalette

        from revector.screens.frame.palette import provider_of

        situation = self.situation
        self.push_screen(CommandPalette(providers=[provider_of(self.offers(situation), situation)]))

    def retry(self) -> None:
        """Try to reach the database now."""
        self.reader.retry()

    # -- leaving ------------------------------------------------------------------------------------------

    def on_too_small_left(self) -> None:
        """q in a terminal that is too small; there is no room for a question."""
        if self.services.backfills.working and isinstance(self.screen, TooSmall):
            self.screen.refuse("A backfill runs here:\nmake it larger to quit.")
        else:
            self.leave()

    def leave(self) -> None:
        """Quit the console; asks first when a backfill runs in it."""
        from revector.screens.widgets.confirm import Ask

        working = ", ".join(sorted(self.services.backfills.working))
        if not working:
            self._end()
            return
        text = (
            f"This console is working on {working}.\n\nQuitting pauses the backfill (an index build is interrupted "
            "and has to start again). Anyone can resume it, here or with `revector backfill run`."
        )
        self.push_screen(Ask(text, "Stay", "Pause and quit"), lambda yes: self._pause_and_end() if yes else None)

    def _pause_and_end(self, status: int = 0) -> None:
        if self._ending:
            return
        self._ending = True
        if self.services.backfills.working:
            self.notify("Pausing …", timeout=60, markup=False)

        def pause() -> None:
            self.services.backfills.leave()
            self.call_from_thread(self._end, status)

        self.run_worker(pause, thread=True, exit_on_error=False)

    def _end(self, status: int = 0) -> None:
        self.services.connections.hang_up()
        self.exit(return_code=status)

    def _heed_signals(self) -> None:
        """End the console cleanly on SIGTERM from a service manager, and on SIGHUP from a closed terminal."""
        if self.is_headless:
            return  # the program that drives it ends it
        loop = asyncio.get_running_loop()
        # Not available outside the main thread, and on some platforms.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(signal.SIGTERM, self._pause_and_end, 128 + signal.SIGTERM)
            loop.add_signal_handler(signal.SIGHUP, self._terminal_gone)

    def _terminal_gone(self) -> None:
        """Textual's threads fail when the terminal is gone, and may block the screen's thread: do not wait for
        them."""

        def end() -> None:
            self.services.backfills.leave()
            self.call_later(self._end, 128 + signal.SIGHUP)
            time.sleep(_LAST_S)
            os._exit(128 + signal.SIGHUP)

        if not self._ending:
            self._ending = True
            threading.Thread(target=end, name="console-end", daemon=True).start()

    def _fatal_error(self) -> None:
        """End, and show nothing: Textual prints local variables, and a connection string may be among them."""
        self._close_messages_no_wait()

    def on_unmount(self) -> None:
        """Stop reading, however the console ends."""
        self.reader.stop()
        self.services.connections.hang_up()


def _resume_collection() -> None:
    """Resume garbage collection, which the start may have paused; objects made so far are frozen."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
