"""What the tests of the console share: a small collection, an app in a terminal of some size, and waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from textual import events
from textual.keys import _character_to_key
from textual.pilot import Pilot

from revector.console.app import RevectorApp
from revector.core import cutover
from revector.core.backfill.engines.local import LocalEngine
from revector.core.backfill.job.settings import JobSettings
from revector.core.database import Connection, Database
from revector.core.registry import get_version
from revector.core.settings import Settings
from revector.screens.backfill.pane import BackfillPane
from revector.screens.widgets.table import Table
from tests.versions import add, add_chunks, ready_version

LARGE, SMALL = (120, 40), (80, 24)
ALL_PASS = f"{len(cutover.GUARDS)} of {len(cutover.GUARDS)} pass"

TEXTS = [
    "Rotating credentials\nHow to rotate an API key without downtime: create the new key, deploy it, revoke the old.",
    "Key rotation policy\nEvery API key is rotated each ninety days; the secrets manager reminds its owner.",
    "Secrets manager overview\nThe secrets manager stores keys, passwords and certificates, encrypted.",
    "API keys: create, rotate, revoke\nA key is created in the console, rotated by its owner and revoked by anyone.",
    "Resetting a password\nA user resets a forgotten password by a link that is sent by mail.",
    "Invoices\nInvoices are sent on the first day of a month, as PDF, to the billing contact.",
    "Refunds\nA refund reaches the customer's account within five working days.",
    "Deployment\nA deployment rolls out one node after the other and stops when a health check fails.",
    "Rolling back a deployment\nThe release before is kept on each node; going back takes a minute.",
    "Backups\nThe database is backed up each night; a backup is restored into a new server for a test.",
    "On call\nWho is on call answers a page within five minutes, day and night.",
    "Rate limits\nA client that sends too many requests gets status 429 and waits before the next one.",
    "Webhooks\nA webhook is signed; check its signature before you trust its content.",
    "Search\nThe search answers by meaning: it compares the vector of a query with those of the documents.",
    "Embedding models\nA model turns text into a vector; two models' vectors cannot be compared.",
    "Data retention\nLogs are kept for thirty days, invoices for ten years.",
]


def wait_in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Textual's Pilot look four times as often whether the app has come to rest: it does so for each key.

    On a busy machine it takes an app that waits for the processor for one at rest, so a key is waited for as well.
    """
    monkeypatch.setattr("textual._wait.SLEEP_GRANULARITY", 1 / 200)
    monkeypatch.setattr("textual._wait.SLEEP_IDLE", 1 / 1_000)
    press = Pilot.press

    async def press_and_wait(pilot: Pilot[None], *keys: str) -> None:
        await press(pilot, *keys)
        app = pilot.app
        while isinstance(app, RevectorApp) and app.keys._rounds and not app._exit:
            await pilot.pause(0.002)

    monkeypatch.setattr(Pilot, "press", press_and_wait)


def fill(database: Database) -> None:
    """Texts, `demo-64` active, and `demo-256` ready to become so."""
    with database.session("test") as connection:
        add_chunks(connection, TEXTS)
        ready_version(database, connection, "demo-64", "static:wordllama-64")
        ready_version(database, connection, "demo-256", "static:wordllama-256")
        cutover.run(connection, "demo-64", confirm="demo-64")


def add_candidate(connection: Connection, key: str = "demo-new") -> None:
    """A version that has no vectors yet."""
    add(connection, key, "static:wordllama-64")


def console(database: Database, **settings: object) -> RevectorApp:
    """The app on a collection; it looks at the database four times a second."""
    return RevectorApp(database, Settings(**{"refresh_s": 0.25, **settings}))  # type: ignore[arg-type]


def shown(app: RevectorApp) -> str:
    """What stands on the screen in front, line by line."""
    strips = app.screen._compositor.render_strips(app.size)
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


def cells_of(table: Table) -> dict[str, dict[str, str]]:
    """The cells of a table as they are drawn: by row key, and then by what is drawn as the title of their column."""
    lines = shown(table.app).split("\n")  # type: ignore[arg-type]
    left, top = table.content_region.offset
    rows: dict[str, dict[str, str]] = {}
    for number, row in enumerate(table.ordered_rows):
        line = lines[top + number + table.header_height - int(table.scroll_y)]
        right, cells = left, {}
        for column in table.ordered_columns:
            begin, right = right, right + column.get_render_width(table)
            cells[lines[top][begin:right].strip()] = line[begin:right].strip()
        rows[str(row.key.value)] = cells
    return rows


async def until(
    pilot: Pilot[None], condition: Callable[[], object], what: str = "", *, seconds: float = 20
) -> None:
    """Wait for a condition; fails with what is on the screen when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}\n{shown(pilot.app)}")  # type: ignore[arg-type]
        await pilot.pause(0.02)
    await pilot.pause()


async def until_shown(pilot: Pilot[None], *texts: str) -> None:
    """Wait until every text stands on the screen."""
    app: RevectorApp = pilot.app  # type: ignore[assignment]

    def all_there() -> bool:
        lines = shown(app)
        flat = " ".join(lines.split())  # a sentence may go on in the next line
        return all(text in lines or text in flat for text in texts)

    await until(pilot, all_there, f"on the screen: {texts}")


async def until_gone(pilot: Pilot[None], text: str) -> None:
    """Wait until a text is no longer on the screen."""
    app: RevectorApp = pilot.app  # type: ignore[assignment]
    await until(pilot, lambda: text not in shown(app), f"gone: {text}")


async def type_text(pilot: Pilot[None], text: str) -> None:
    """Type a text: the keys come as from a terminal, one at once after the other."""
    for character in text:
        pilot.app.post_message(events.Key(_character_to_key(character), character))
    await pilot.pause()


def active_of(database: Database) -> str:
    """The key of the active version, as the database has it."""
    with database.session("test") as connection:
        row = connection.execute("SELECT version_key FROM embedding_versions WHERE active").fetchone()
        return str(row[0]) if row else ""


def state_of(database: Database, key: str = "demo-new") -> str:
    with database.session("test") as connection:
        row = connection.execute(
            "SELECT j.state FROM backfill_jobs j JOIN embedding_versions v ON v.id = j.embedding_version_id "
            "WHERE version_key = %s",
            [key],
        ).fetchone()
        return str(row[0]) if row else "none"


def settings_of(database: Database) -> JobSettings:
    from revector.core.backfill.job.job import job_settings, require_job

    with database.session("test") as connection:
        return job_settings(connection, require_job(connection, get_version(connection, "demo-new")))


@contextmanager
def elsewhere(
    database: Database, settings: JobSettings | None = None, *, stay: bool = False
) -> Iterator[LocalEngine]:
    """An engine that is not the console's own."""
    with database.session("test") as connection:
        version = get_version(connection, "demo-new")
    engine = LocalEngine(database, version, settings or JobSettings(batch_size=2), stay=stay)
    thread = threading.Thread(target=engine.run)
    thread.start()
    try:
        yield engine
    finally:
        engine.leave("the test is over")
        thread.join()


async def go_to_candidate(pilot: Pilot[None], app: RevectorApp) -> BackfillPane:
    await until_shown(pilot, "demo-new")
    await pilot.press("end")
    await until(pilot, lambda: app.selection == "demo-new", "the version is selected")
    await pilot.press("b")
    await until(pilot, lambda: app.tab == "2", "its backfill")
    return app.panes["2"]  # type: ignore[return-value]
