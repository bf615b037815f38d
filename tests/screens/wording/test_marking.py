"""The words of a query in a text."""

from __future__ import annotations

import pytest

from revector.screens.wording.marking import marked


def words(shown: str, query: str) -> list[str]:
    text = marked(shown, query)
    assert text.plain == shown
    return [shown[span.start : span.end] for span in text.spans]


@pytest.mark.parametrize(
    ("shown", "query", "expected"),
    [
        ("Rotating keys, rotated key; keyed", "how to rotate a key", ["Rotating", "keys", "rotated", "key", "keyed"]),
        ("keyboard monkey", "key", []),
        ("the end of the file", "the of", ["the", "of", "the"]),
        ("the end of the file", "the file", ["file"]),
        ("CAFÉ and cafe", "cafe\u0301", ["CAFÉ", "cafe"]),
        ("Straße STRASSE", "strasse", ["Straße", "STRASSE"]),
        ("鍵を回転する方法", "回転", ["回転"]),
        ("open_file(path)", "open_file", ["open_file"]),
        ("[red]red[/red] ␛[31m", "red", ["red", "red", "red"]),
        ("nothing", "", []),
        ("", "word", []),
    ],
)  # fmt: skip
def test_marked(shown: str, query: str, expected: list[str]) -> None:
    assert words(shown, query) == expected


def test_a_long_text_is_marked_at_once() -> None:
    text = "rotate keys and more words " * 40_000
    assert len(words(text, "key")) == 40_000
