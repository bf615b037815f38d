from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revector.core.encoders.headers import duration, remaining


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("750us", 0.00075),
        ("0s", 0.0),
        (" 12 ", 12.0),
        ("1.5", 1.5),
        ("167h59m", 604740.0),
    ],
)
def test_durations(text, seconds):
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "-1", "soon", "1d", "s", "1 s", "nan", "inf", "1767225600", "169h", "2026-01-01T00:00:00Z", "٣s", "1e3"],
)
def test_what_is_no_duration(text):
    assert duration(text) is None


@given(st.text(max_size=30))
def test_no_text_breaks_it(text):
    found = duration(text)
    assert found is None or 0 <= found <= 7 * 86_400


@pytest.mark.parametrize(
    ("left", "reset", "found"),
    [("3", "20ms", (3, 0.02)), ("0", "6m0s", (0, 360)), ("-1", "0", None), ("3", "", None), ("1e5", "1s", None)],
)
def test_what_is_left(left, reset, found):
    headers = {"x-ratelimit-remaining-tokens": left, "x-ratelimit-reset-tokens": reset}
    assert remaining(headers, "tokens") == found
    assert remaining(headers, "requests") is None
