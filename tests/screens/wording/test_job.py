"""The texts of a backfill's progress."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from revector.core.database import client_name
from revector.screens.backfill import lists
from revector.screens.wording.job import bar, eta, held, settings_line, state_line
from tests.screens.frozen import NOW, OVERVIEW, detail, job, letters, situation


def text_of(body: RenderableType, width: int = 80) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(body)
    return captured.get()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"eta_s": None}, "time left unknown yet"),
        ({"eta_s": 1080.0, "eta_low_s": 900.0, "eta_high_s": 1440.0}, "18 min left (15 min – 24 min)"),
        ({"eta_s": 1080.0, "eta_low_s": 900.0}, "18 min left (15 min at best)"),
        ({"eta_s": 1080.0}, "18 min left"),
        ({"eta_s": 0.0, "eta_low_s": 0.0, "eta_high_s": 0.0, "pending": 0}, "0 s left"),
    ],
)
def test_eta_with_its_spread(changes: dict[str, object], expected: str) -> None:
    assert eta(job("v", "running", 5, 10, **changes)) == expected


def test_held_says_since_when_and_cuts_with_a_sign() -> None:
    since = NOW - datetime.timedelta(minutes=4)
    one = job("v", "running", 5, 10, throttle="standby \x1b[31mb is late", throttle_since=since)
    assert held(one, NOW, 100).plain == " HELD 4 min  standby ␛[31mb is late"
    assert held(replace(one, throttle_since=None), NOW, 100).plain.startswith(" HELD  standby")
    long = held(replace(one, throttle="word " * 200), NOW, 78)
    assert len(long.plain) < 2 * 78
    assert long.plain.endswith("…")
    assert not held(replace(one, throttle=None), NOW, 78)


def test_who_works_on_it() -> None:
    moment = situation(selection="embed-v2026-04", tab="2")
    selected = moment.selected
    assert selected is not None
    assert state_line(moment, selected, None).plain == "embed-v2026-04  ─  running"
    assert state_line(moment, selected, detail()).plain.endswith("running elsewhere, by ada@ops-1, bob@ops-2")
    here = situation(selection="embed-v2026-04", tab="2", working=frozenset({"embed-v2026-04"}))
    workers = tuple(replace(one, client=client_name()) for one in detail().workers)
    assert state_line(here, selected, detail(workers=workers)).plain.endswith("running in this console")
    mixed = (*workers, detail().workers[1])
    assert state_line(here, selected, detail(workers=mixed)).plain.endswith(
        "in this console, and elsewhere by bob@ops-2"
    )
    many = tuple(replace(workers[0], client=f"p{n}@h") for n in range(9))
    assert state_line(moment, selected, detail(workers=many)).plain.endswith("p0@h, p1@h, p2@h and 6 more")


def test_the_bar() -> None:
    assert bar(1, 4, 30).plain == "━" * 5 + "╌" * 15 + "   25.0 %"
    assert bar(9, 4, 30).plain.endswith("100.0 %")
    assert bar(0, 0, 30).plain.endswith("—")


def test_settings_that_differ() -> None:
    assert settings_line(detail().settings).startswith("workers 2, max_rate 500, max_spend_usd 50")
    assert settings_line(type(detail().settings)()) == "the defaults"


def test_what_a_worker_does() -> None:
    rows = [lists.worker_row(worker, NOW).cells for worker in detail().workers]
    assert [str(row[-1]) for row in rows] == ["works", "waits: 429: Rate limit reached, waiting 20 s", "died"]
    assert [str(row[3]) for row in rows] == ["alive", "alive", "ended"]
    assert str(rows[2][6]) == "4 min ago"
    hostile = replace(detail().workers[0], alive=False, error="\x1b[2J[red]\nmore", client="\u202ex@y")
    assert str(lists.worker_row(hostile, NOW).cells[-1]) == "␛[2J[red]"
    page = text_of(lists.worker_page(hostile))
    assert "␛[2J[red]" in page
    assert "‹202E›x@y" in page
    assert "\x1b" not in page


def test_the_log_of_a_job() -> None:
    found = detail()
    one = job("v", "running", 5, 10, throttle="late", throttle_since=NOW)
    page = text_of(lists.log_page(one, found))
    assert "held by   late (since " in page
    assert page.index("paused → running") < page.index("running → pausing") < page.rindex("→ running")
    assert "12 chunks missing" in page
    assert "bob@ops-2" in page
    many = replace(found, transitions=found.transitions * 5)
    assert "newest first, the last 20" in text_of(lists.log_page(one, many))
    assert OVERVIEW.jobs


def test_dead_letters_in_full() -> None:
    page = text_of(lists.failure_page(letters(2)))
    assert page.count("at most 8,191") == 2
    assert "a scan without text" in page
    assert "2, the last at" in page
