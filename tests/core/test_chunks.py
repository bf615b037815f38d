"""Normalisation, keys and cutting. The golden values may never change: stored keys are made of them."""

from __future__ import annotations

import hashlib
import sys
import unicodedata
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from revector.core import chunks
from revector.core.chunks import content_sha256, document_uuid, normalise, semantic_key, split

WHITE_SPACE = {*"\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000", *map(chr, range(0x2000, 0x200B))}

# What a Document can hold: anything but NUL and surrogates. Blanks and line ends more often than by chance.
clean_text = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
        st.sampled_from("  \t\n\n\r\v\f\x85\xa0\u1680\u2003\u2028\u2029\u3000\x1c\x1f\u200b\u0301\u0316¨´\ufdfa"),
    )
)
markdown_text = st.lists(
    st.sampled_from(
        ["# ", "## ", "\n", "\n\n", "\r\n", "- ", "  ", "    ", "> ", "```\n", "|a|b|\n|-|-|\n", "*", "**", "`",
         "[x](y)", "<b>", "---\n", "word ", "word", "a. ",
         "漢字", "e\u0301", "👩‍👩‍👧", "\x1c", "\\", "&amp;", "1. ", "\u2028", "$x$"]
    ),
    max_size=60,
).map("".join)  # fmt: skip


def solid(text: str) -> str:
    """The characters that have to survive."""
    return "".join(c for c in text if c not in WHITE_SPACE)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("", ""),
        (" \t\r\n ", ""),
        ("  two  words\t\there \v\f x ", "two words here x"),
        ("one\r\ntwo\rthree\nfour\x85five\u2028six\u2029seven", "one\ntwo\nthree\nfour\nfive\nsix\nseven"),
        ("a\r\r\nb", "a\n\nb"),
        ("a\n\n\n\nb", "a\n\n\n\nb"),  # a line end is no blank
        ("a  \n\t b", "a \n b"),  # not trimmed line by line
        ("a\xa0\u2003\u3000\u1680b", "a b"),
        ("a\u200bb\x1cc", "a\u200bb\x1cc"),  # neither is White_Space
        ("Ｆｕｌｌ ｗｉｄｔｈ ﬁ ① ²", "Full width fi 1 2"),
        ("e\u0301", "é"),
        ("x¨", "x \u0308"),  # NFKC makes a space here
        ("¨x", "\u0308x"),  # … which is taken off at the start
        ("Case and punctuation, STAY!", "Case and punctuation, STAY!"),
    ],
)
def test_normalise_follows_its_rule(text: str, normal: str) -> None:
    assert normalise(text) == normal


@settings(deadline=None)
@given(clean_text)
@example("¨ ¨")
@example("a \u0301\r\n\r b")
def test_normalise_is_idempotent(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert not set(once) & (WHITE_SPACE - {" ", "\n"})
    assert "  " not in once
    assert once == once.strip(" \n")


@settings(deadline=None)
@given(clean_text)
def test_normalise_does_not_see_line_ends_and_width_of_blanks(text: str) -> None:
    unix = text.replace("\r\n", "\n").replace("\r", "\n")
    assert normalise(unix.replace("\n", "\r\n")) == normalise(unix)
    assert normalise(unix.replace(" ", "\t  ")) == normalise(unix)


@pytest.mark.slow
def test_nfkc_of_clean_text_is_clean_and_never_vanishes() -> None:
    for code in range(1, sys.maxunicode + 1):
        if 0xD800 <= code <= 0xDFFF:
            continue
        character = chr(code)
        normal = unicodedata.normalize("NFKC", character)
        if normal != character:
            assert "\0" not in normal
            assert not any(0xD800 <= ord(c) <= 0xDFFF for c in normal)
        assert bool(normalise(character)) is (character not in WHITE_SPACE), hex(code)


def test_document_ids_are_golden() -> None:
    assert document_uuid("guide/keys.md") == UUID("6caa3bfd-6a0a-5acd-aae7-6fe987f58cc7")
    assert document_uuid("Überblick 42") == UUID("9f70bef6-43bc-5157-8a19-5acd0fdc7e83")
    assert document_uuid("a") != document_uuid("A") != document_uuid("a ")


def test_semantic_keys_are_golden() -> None:
    document = UUID("12345678-1234-5678-1234-567812345678")
    plain, odd = "Rotate the key.", " Ｒｏｔａｔｅ\u00a0 the\r\nkey. "
    assert semantic_key(document, 0, plain) == "ef5a904d2035e6e77d96b2a6dd1197b8054b308fe3b3f6ee647ab9bce4b2b1f2"
    assert semantic_key(document, 12, odd) == "80e5425d4453b42654f773853ce3212534cc0504e206d433c3c3397bc762e8df"


def test_a_semantic_key_is_the_sha256_of_its_written_form() -> None:
    document = UUID("12345678-1234-5678-1234-567812345678")
    written = "12345678-1234-5678-1234-567812345678:12:Rotate the\nkey."
    key = semantic_key(document, 12, " Ｒｏｔａｔｅ\u00a0 the\r\nkey. ")
    assert key == hashlib.sha256(written.encode()).hexdigest()


def test_the_content_hash_is_that_of_the_bytes() -> None:
    assert content_sha256("é \n").hex() == hashlib.sha256(b"\xc3\xa9 \n").hexdigest()
    assert content_sha256("a ") != content_sha256("a")


@settings(deadline=None)
@given(st.one_of(clean_text, markdown_text), st.booleans(), st.integers(1, 40))
@example("\x1c", False, 5)
@example("a" * 3_000, True, 1)
@example("\u3000\u2003", False, 5)
def test_chunks_keep_every_character_in_order_and_their_size(text: str, markdown: bool, characters: int) -> None:
    found = split(text, markdown=markdown, characters=characters)
    assert solid("".join(found)) == solid(text)
    assert all(len(chunk) <= characters for chunk in found)
    assert all(solid(chunk) for chunk in found)
    assert all(chunk in text for chunk in found)


@settings(deadline=None)
@given(clean_text, st.integers(1, 20))
def test_windows_put_together_are_the_text(text: str, size: int) -> None:
    windows = list(chunks._windows(text, size))
    assert "".join(windows) == text
    assert all(len(window) <= size for window in windows)


def test_a_window_ends_with_a_paragraph_a_line_or_a_word_before_it_is_cut_hard() -> None:
    def first(text: str) -> str:
        return next(chunks._windows(text, 20))

    assert first("0123456789 a\nb\n\nc d e f g h") == "0123456789 a\nb\n\n"
    assert first("0123456789 a\r\n\r\nb\nc d e f g h") == "0123456789 a\r\n\r\n"
    assert first("0123456789 a\nb c d e f g h i j") == "0123456789 a\n"
    assert first("0123456789 a b c d e f g h i j") == "0123456789 a b c d "
    assert first("a\n\n" + "x" * 40) == "a\n\n" + "x" * 17  # a boundary in the first half is too early


@pytest.mark.parametrize("text", ["", " \n\t ", "\u3000\u2028\x85"])
@pytest.mark.parametrize("markdown", [True, False])
def test_a_text_without_a_character_has_no_chunk(text: str, markdown: bool) -> None:
    assert split(text, markdown=markdown, characters=100) == []


def test_markdown_is_cut_at_its_headings_and_text_is_not() -> None:
    text = "# One\n\nfirst paragraph\n\n# Two\n\nsecond paragraph"
    assert split(text, markdown=True, characters=40) == ["# One\n\nfirst paragraph", "# Two\n\nsecond paragraph"]
    assert split(text, markdown=False, characters=40) == ["# One\n\nfirst paragraph\n\n# Two", "second paragraph"]


def test_a_small_text_is_one_chunk_as_it_is_but_for_its_ends() -> None:
    assert split("  a  b\r\nc \n", markdown=False, characters=100) == ["a  b\r\nc"]


@pytest.mark.slow
def test_ten_megabytes_without_a_boundary_are_cut() -> None:
    # The splitter alone needs minutes for this: its time grows with the square of such a run.
    found = split("a" * 10_000_000, markdown=False, characters=2_000)
    assert [len(chunk) for chunk in found] == [2_000] * 5_000
