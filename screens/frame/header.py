"""The top of the screen: the collection, the tabs, and a banner when the database is lost."""

from __future__ import annotations

import time

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.reactive import reactive
from textual.widget import Widget

from revector.core.database import Database
from revector.core.errors import RefusedError
from revector.core.settings import Settings
from revector.screens.frame.snapshots import Reading
from revector.screens.pane import Pane
from revector.screens.situation import Situation, key_of
from revector.screens.tabs import TABS
from revector.screens.wording.text import clock, duration, printable
from revector.screens.wording.theme import BAD, CAUTION, FAINT

_BETWEEN = " ─ "


class Header(Widget):
    """`revector ─ prod-eu/search ─ active embed-v2026-02 ─ READ/WRITE ─ 14:02:11 ●`."""

    DEFAULT_CSS = """
    Header { height: 1; background: $panel; color: $foreground; padding: 0 1; }
    Header.-production { background: #8c1d18; color: #ffffff; text-style: bold; }
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        super().__init__(classes="-production" if settings.production else "")
        self._place = printable(f"{settings.label or database.name}/{database.schema}")
        self._production = settings.production
        self._read_only = database.read_only
        self._rights = "READ ONLY" if database.read_only else "READ/WRITE"
        self._active: str | None = None
        self._role = ""
        self._reading = Reading()
        self._fresh_s = max(3 * settings.refresh_s, settings.refresh_s + 2)

    def show(self, situation: Situation, reading: Reading) -> None:
        self._active = key_of(situation.active)
        self._role = situation.rights.word
        self._reading = reading
        self.refresh()

    def render(self) -> Text:
        """One line; if it is too long, the program's name is dropped first, then the middle of the location is
        cut."""
        word = "PRODUCTION" if self._production else ""
        active = f"active {printable(self._active)}" if self._active else "no active version"
        # Shows the word for a role with some rights, unless the session is read-only anyway.
        ends = [self._role if self._role and not self._read_only else self._rights, self._time()]
        if self._reading.overview is not None:
            ends.insert(0, active)
        for name in ("revector", ""):
            parts = [part for part in (name, word, self._place, *ends) if part]
            line = _BETWEEN.join(parts)
            if cell_len(line) <= self.content_size.width:
                return Text(line)
        room = self.content_size.width - cell_len(_BETWEEN.join(filter(None, (word, "", *ends))))
        parts[parts.index(self._place)] = _cut_middle(self._place, max(8, room - len(_BETWEEN)))
        return Text(_BETWEEN.join(parts), no_wrap=True, overflow="ellipsis")

    def _time(self) -> str:
        reading = self._reading
        if reading.overview is None:
            if isinstance(reading.error, RefusedError):
                return "no access ○"
            return "connecting ○" if reading.error is None else "not connected ○"
        taken = clock(reading.overview.taken_at)
        if reading.error is None and reading.age() <= self._fresh_s:
            return f"{taken} ●"
        return f"{taken} ○ {duration(reading.age())} old"


def _cut_middle(text: str, length: int) -> str:
    """Cut the middle: the ends (host and schema) matter more."""
    if len(text) <= length:
        return text
    return f"{text[: length // 3]}…{text[-(length - length // 3 - 1) :]}"


class TabBar(Widget):
    """The tabs by number; a click shows one."""

    DEFAULT_CSS = "TabBar { height: 1; background: $surface; padding: 0 1; }"

    tab = reactive(TABS[0].key)

    def render(self) -> Text:
        """The current tab is in brackets too, not only in another colour."""
        line = Text(no_wrap=True, overflow="ellipsis")
        for tab in TABS:
            shown = Text(f"[{tab}]", "bold reverse") if tab.key == self.tab else Text(f" {tab} ", FAINT)
            shown.apply_meta({"tab": tab.key})
            line.append_text(shown)
        return line

    def on_click(self, event: events.Click) -> None:
        if key := event.style.meta.get("tab"):
            self.post_message(Pane.Open(next(tab for tab in TABS if tab.key == key)))


class Banner(Widget):
    """Why the data is old, and when the next try is; hidden while all is well."""

    DEFAULT_CSS = """
    Banner { height: auto; max-height: 3; background: #4a1512; color: #ffffff; padding: 0 1; display: none; }
    Banner.-shown { display: block; }
    """

    reading = reactive(Reading(), always_update=True)

    def watch_reading(self, reading: Reading) -> None:
        """Show the problem, once there was data; before that, `Trouble` shows it."""
        shown = reading.error is not None and reading.overview is not None
        self.set_class(shown, "-shown")
        if shown:
            self.refresh(layout=True)

    def render(self) -> Text:
        reading = self.reading
        if reading.error is None or reading.overview is None:
            return Text()
        text = Text("✗ " if reading.lost else "! ", "bold")
        text.append(f"{printable(reading.error.problem).removesuffix('.')}.", "bold")
        text.append(f" The data below is {duration(reading.age())} old. ")
        text.append(f"No action is possible. {next_try(reading)}" if reading.lost else next_try(reading))
        return text


def next_try(reading: Reading) -> str:
    """`Next try in 3 s.`"""
    left = (reading.retry_at or 0.0) - time.monotonic()
    return "Trying now." if left < 0.5 else f"Next try in {duration(left)}."


class Trouble(Widget):
    """Fills the screen before there is any data: what is wrong and what to do."""

    DEFAULT_CSS = "Trouble { height: 1fr; padding: 1 2; display: none; }"

    reading = reactive(Reading(), always_update=True)

    def render(self) -> Text:
        error = self.reading.error
        if error is None:
            return Text("Reading the collection …", FAINT)
        text = Text.assemble((f"✗ {printable(error.problem, lines=True)}", f"bold {BAD}"), "\n\n")
        if error.remedy:
            text.append("→ ", CAUTION)
            text.append(printable(error.remedy, lines=True) + "\n\n")
        text.append(f"{next_try(self.reading)} r: try again now   q: quit", FAINT)
        return text
