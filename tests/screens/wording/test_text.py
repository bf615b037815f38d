"""Text from anywhere, made fit for a terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revector.screens.wording.text import (
    clock,
    date_and_time,
    duration,
    first_line,
    milliseconds,
    printable,
    shorten,
    size,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("[red]markup[/red]", "[red]markup[/red]"),
        ("\x1b[31mred", "␛[31mred"),
        ("\x9b2J", "‹009B›2J"),
        ("bell \a", "bell ␇"),
        ("a\r\nb\tc\x7f", "a␍␊b␉c␡"),
        ("\u202eevil\u2066", "‹202E›evil‹2066›"),
        ("zero\u200bwidth\ufeff", "zero‹200B›width‹FEFF›"),
        ("\u2028line\u2029", "‹2028›line‹2029›"),
        ("\ud800 lone", "‹D800› lone"),
        ("\U000e0041", "‹E0041›"),
        ("no\u00a0break", "no break"),
        ("漢字", "漢字"),
        ("Cafe\u0301", "Café"),
        ("\u0301leading", "‹0301›leading"),
        ("heart \u2764\ufe0f", "heart \u2764"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_marks_do_not_pile_up() -> None:
    shown = printable("Z" + "\u0336" * 40)
    assert shown.count("\u0336") == 3
    assert shown.count("‹0336›") == 37


def test_lines_are_kept_where_they_are_wanted() -> None:
    assert printable("a\r\nb\tc\x1b", lines=True) == "a\nb   c␛"


@given(st.text())
def test_nothing_is_left_that_a_terminal_would_obey(text: str) -> None:
    for character in printable(text):
        assert unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp", "Cn", "Co")


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("\n\n  Title\nbody", "Title"), ("", "(empty)"), (" \n ", "(empty)"), ("a\x0bb", "a"), ("[b]x", "[b]x")],
)
def test_the_title_is_the_first_line_with_anything_in_it(text: str, expected: str) -> None:
    assert first_line(text) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "—"), (0, "0 s"), (59.4, "59 s"), (60, "1 min"), (200, "3 min 20 s"), (3_600, "1 h"),
        (7_500, "2 h 5 min"), (86_400, "1 d"), (100_000, "1 d 3 h"),
    ],
)  # fmt: skip
def test_durations_in_two_units(seconds: float | None, expected: str) -> None:
    assert duration(seconds) == expected


def test_figures() -> None:
    assert milliseconds(0.0018) == "1.8 ms"
    assert milliseconds(1.5) == "1,500 ms"
    assert size(12) == "12 B"
    assert size(38.2e6) == "38.2 MB"
    assert size(2e15) == "2,000.0 TB"
    assert shorten("abcdef", 4) == "abc…"
    assert shorten("abcd", 4) == "abcd"
    assert date_and_time(None) == "—"


def test_times_are_those_of_the_person_at_the_keyboard(monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime
    import time

    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        moment = datetime.datetime(2026, 3, 1, 19, 2, 11, tzinfo=datetime.UTC)
        assert clock(moment) == "14:02:11"
        assert date_and_time(moment) == "2026-03-01 14:02"
    finally:
        monkeypatch.undo()
        time.tzset()
