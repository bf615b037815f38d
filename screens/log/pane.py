"""Tab 8: who did what, when, and with which outcome; newest first."""

from __future__ import annotations

import json

from rich.console import Group
from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Static

from revector.core.audit import AuditEntry
from revector.core.text import in_words
from revector.screens.pane import Pane
from revector.screens.widgets.table import Column, Row, Table
from revector.screens.wording.facts import facts
from revector.screens.wording.text import date_and_time, printable, shorten
from revector.screens.wording.theme import BAD, CAUTION

_COLUMNS = (
    Column("time", 16),
    Column("action", 15),
    Column("version", 16),
    Column("outcome", 8),
    Column("actor", 10, from_width=100),
    Column("client", 18, from_width=140),
    Column("reason and figures"),
)
_SHORT = 300


class LogPane(Pane):
    """The audit log as a table."""

    DEFAULT_CSS = """
    LogPane Table { height: 1fr; }
    LogPane Static { display: none; padding: 1 2; }
    LogPane.-empty Static { display: block; }
    LogPane.-empty Table { display: none; }
    """

    ROW_ACTION = "log-entry"

    def compose(self) -> ComposeResult:
        yield Table(_COLUMNS)
        yield Static("No entries yet.", markup=False)

    def draw(self) -> None:
        entries = self._entries()
        self.set_class(not entries, "-empty")
        self.query_one(Table).show([_row(entry) for entry in entries])

    def focus_main(self) -> None:
        self.query_one(Table).focus()

    def open_entry(self) -> None:
        from revector.screens.widgets.page import Page

        key = self.query_one(Table).row_key
        entry = next((entry for entry in self._entries() if str(entry.id) == key), None)
        if entry is not None:
            self.app.push_screen(Page(f"{entry.action} {entry.version_key or ''}", _in_full(entry)))

    def _entries(self) -> tuple[AuditEntry, ...]:
        return self.situation.overview.log if self.situation.overview else ()


def _row(entry: AuditEntry) -> Row:
    figures = {
        name: f"({len(value)})" if isinstance(value, dict | list) else value
        for name, value in entry.detail.items()
    }
    return Row(
        str(entry.id),
        (
            date_and_time(entry.at),
            entry.action,
            entry.version_key or "—",
            Text(printable(entry.outcome), {"refused": CAUTION, "failed": BAD}.get(entry.outcome, "")),
            entry.actor,
            entry.client,
            shorten("  ".join(filter(None, (entry.reason, in_words(figures) if figures else ""))), _SHORT),
        ),
    )


def _in_full(entry: AuditEntry) -> Group:
    lines = [
        ("time", f"{entry.at.astimezone():%Y-%m-%d %H:%M:%S %Z}"),
        ("action", entry.action),
        ("version", entry.version_key or "—"),
        ("outcome", entry.outcome),
        ("actor", entry.actor),
        ("client", entry.client),
        ("application", entry.application),
        ("reason", entry.reason or "—"),
        ("detail", ""),
    ]
    detail = json.dumps(entry.detail, ensure_ascii=False, indent=2)
    return Group(facts(lines), Text(printable(detail, lines=True)))
