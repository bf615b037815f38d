"""Reading documents: what is taken, under which id, and what is turned away without stopping the rest."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revector.core.documents import Document, DocumentReader, Rejection, read_documents
from revector.core.documents.document import MAX_METADATA_BYTES, DocumentError
from revector.core.documents.files import csv_records
from revector.core.documents.records import csv_fields
from revector.core.errors import UsageError

ABC = [("a", "A"), ("b", "B"), ("c", "C")]


class Reading:
    """Everything that a run of read_documents gave."""

    def __init__(self, *paths: Path, max_bytes: int = 10_000) -> None:
        self.rejections: list[Rejection] = []
        self.reader = read_documents(paths, max_bytes=max_bytes, on_reject=self.rejections.append)
        self.documents = list(self.reader)
        assert self.reader.rejected == len(self.rejections)

    @property
    def ids(self) -> list[str]:
        return [document.source_id for document in self.documents]

    @property
    def texts(self) -> list[tuple[str, str]]:
        return [(document.source_id, document.text) for document in self.documents]

    @property
    def problems(self) -> list[tuple[str, str]]:
        """Without the folder."""
        return [(r.where.rpartition("/")[2], r.problem) for r in self.rejections]


def unwanted(rejection: Rejection) -> None:
    pytest.fail(f"rejected {rejection}")


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def json_lines(path: Path, *rows: Any) -> Path:
    """Rows as JSON; strings and bytes as they are."""
    lines = [
        row if isinstance(row, bytes) else (row if isinstance(row, str) else json.dumps(row)).encode()
        for row in rows
    ]
    return write(path, b"\n".join(lines) + b"\n")


# Text files and folders -------------------------------------------------------------------------------------


def test_a_folder_is_read_sorted_with_paths_as_ids(tmp_path: Path) -> None:
    for name in ("b.md", "a/z.txt", "a/inner/x.markdown", "c.TXT", "a.txt"):
        write(tmp_path / "docs" / name, f"text of {name}")
    found = Reading(tmp_path / "docs")
    assert found.ids == ["a/inner/x.markdown", "a/z.txt", "a.txt", "b.md", "c.TXT"]
    assert [document.markdown for document in found.documents] == [True, False, False, True, False]
    assert found.documents[0] == Document("a/inner/x.markdown", "text of a/inner/x.markdown", {}, markdown=True)
    assert (found.rejections, found.reader.left_out) == ([], 0)


def test_a_file_named_itself_is_a_document_whatever_its_suffix(tmp_path: Path) -> None:
    found = Reading(write(tmp_path / "a" / "README", "one"), write(tmp_path / ".hidden.py", "two"))
    assert found.texts == [("README", "one"), (".hidden.py", "two")]


def test_equal_names_are_duplicates(tmp_path: Path) -> None:
    found = Reading(write(tmp_path / "a" / "x.txt", "first"), write(tmp_path / "b" / "x.txt", "second"))
    assert found.texts == [("x.txt", "first")]
    assert found.problems == [("x.txt", "The id 'x.txt' appeared before in this run.")]
    assert found.rejections[0].where == str(tmp_path / "b" / "x.txt")


def test_hidden_ones_are_ignored_and_unknown_kinds_counted(tmp_path: Path) -> None:
    for name in (".a.txt", ".git/b.txt", "c.png.gz", "d", "sub/e.py", "f.txt"):
        write(tmp_path / "docs" / name, "text")
    os.mkfifo(tmp_path / "docs" / "g.txt")  # which would never end
    found = Reading(tmp_path / "docs")
    assert found.ids == ["f.txt"]
    assert found.reader.left_out == 4
    assert found.reader.left_out_kinds == {".png": 1, "": 1, ".py": 1, ".txt": 1}
    assert found.rejections == []


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    docs, outside = tmp_path / "docs", tmp_path / "outside"
    write(docs / "sub" / "a.txt", "A")
    write(outside / "b.txt", "B")
    (docs / "file.txt").symlink_to(outside / "b.txt")
    (docs / "link").symlink_to(outside)
    (docs / "link2").symlink_to(outside)
    (docs / "sub" / "up").symlink_to(docs)
    (outside / "round").symlink_to(outside)
    (outside / "there").symlink_to(docs / "sub")
    found = Reading(docs)
    assert found.ids == ["file.txt", "link/b.txt", "link/there/a.txt", "sub/a.txt"]
    assert found.rejections == []


def test_links_named_themselves_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "docs" / "a.txt", "A")
    (tmp_path / "folder").symlink_to(tmp_path / "docs")
    (tmp_path / "file.txt").symlink_to(tmp_path / "docs" / "a.txt")
    assert Reading(tmp_path / "folder", tmp_path / "file.txt").texts == [("a.txt", "A"), ("file.txt", "A")]


def test_a_broken_link_is_rejected_since_its_documents_are_missing(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "mount").symlink_to(tmp_path / "nothing")
    (tmp_path / "docs" / "self.txt").symlink_to(tmp_path / "docs" / "self.txt")
    found = Reading(tmp_path / "docs")
    assert found.documents == []
    assert [where for where, _ in found.problems] == ["mount", "self.txt"]
    assert all(problem.startswith("This cannot be read: ") for _, problem in found.problems)


@pytest.fixture
def deep_tree(tmp_path: Path) -> Iterator[Path]:
    """A file 1,200 folders down, taken away again: shutil.rmtree cannot (nor can pytest, which uses it)."""
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1_200):
        os.mkdir("d", dir_fd=here)
        here = enter("d", here)
    os.close(os.open("a.txt", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    yield tmp_path
    os.unlink("a.txt", dir_fd=here)
    for _ in range(1_200):
        here = enter("..", here)
        os.rmdir("d", dir_fd=here)
    os.close(here)


def enter(name: str, here: int) -> int:
    there = os.open(name, os.O_RDONLY, dir_fd=here)
    os.close(here)
    return there


def test_a_tree_deeper_than_pythons_stack_is_read(deep_tree: Path) -> None:
    assert Reading(deep_tree).ids == ["d/" * 1_200 + "a.txt"]


def test_a_file_that_goes_away_is_rejected_and_the_rest_goes_on(tmp_path: Path) -> None:
    gone, kept = write(tmp_path / "a.txt", "A"), write(tmp_path / "b.txt", "B")
    rejections: list[Rejection] = []
    reader = read_documents([gone, kept], max_bytes=10, on_reject=rejections.append)
    gone.unlink()
    assert [document.source_id for document in reader] == ["b.txt"]
    assert [r.where for r in rejections] == [str(gone)]
    assert "No such file" in rejections[0].problem


def test_an_error_of_the_callback_is_not_taken_for_one_of_the_file(tmp_path: Path) -> None:
    def broken_pipe(_rejection: Rejection) -> None:
        raise BrokenPipeError

    reader = read_documents([json_lines(tmp_path / "a.jsonl", "no json")], max_bytes=100, on_reject=broken_pipe)
    with pytest.raises(BrokenPipeError):
        list(reader)


def test_paths_that_are_not_there_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    there = write(tmp_path / "a.txt", "A")
    with pytest.raises(UsageError, match=r"nowhere\.txt"):
        read_documents([there, tmp_path / "nowhere.txt"], max_bytes=10, on_reject=unwanted)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        read_documents([tmp_path / "pipe"], max_bytes=10, on_reject=unwanted)
    with pytest.raises(UsageError, match="cannot be read"):
        read_documents(["a\0b"], max_bytes=10, on_reject=unwanted)


def test_a_name_that_is_not_utf8_is_cleaned_and_shown(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    for name in (b"\xff1.txt", b"2.txt"):
        with open(folder + b"/" + name, "wb") as file:  # noqa: PTH123 (a Path of bytes is what it is about)
            file.write(b"\xff" if name == b"2.txt" else b"text")
    os.rename(folder + b"/2.txt", folder + b"/\xff2.txt")  # noqa: PTH104
    found = Reading(tmp_path)
    assert found.ids == ["1.txt"]
    assert found.documents[0].cleaned
    assert [where for where, _ in found.problems] == ["\ufffd2.txt:1"]


@pytest.mark.parametrize(("size", "taken"), [(10, True), (11, False)])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_the_largest_file(tmp_path: Path, size: int, taken: bool, bom: bytes) -> None:
    found = Reading(write(tmp_path / "a.txt", bom + b"x" * size), max_bytes=10)
    assert found.texts == ([("a.txt", "x" * size)] if taken else [])
    assert found.problems == ([] if taken else [("a.txt", "This is larger than 10 bytes (max_document_bytes).")])


def test_text_that_is_not_utf8_is_rejected_with_its_line(tmp_path: Path) -> None:
    found = Reading(write(tmp_path / "a.txt", b"one\ntwo\nthr\xe9e\n"), write(tmp_path / "b.txt", "B"))
    assert found.ids == ["b.txt"]
    assert found.problems == [("a.txt:3", "This is not UTF-8: byte 0xe9 at 11 cannot be decoded.")]


def test_utf16_is_not_taken(tmp_path: Path) -> None:
    assert Reading(write(tmp_path / "a.txt", "text".encode("utf-16"))).problems[0][0] == "a.txt:1"


def test_text_is_kept_as_it_is(tmp_path: Path) -> None:
    text = "  a\r\nb\x00\x1c\u2028c \n"
    document = Reading(write(tmp_path / "a.txt", "\ufeff" + text)).documents[0]
    assert document.text == text.replace("\0", "")
    assert document.cleaned


# JSONL ------------------------------------------------------------------------------------------------------


def test_json_lines(tmp_path: Path) -> None:
    path = json_lines(
        tmp_path / "a.jsonl",
        {"id": "a", "text": "A", "lang": "en", "n": [1, 2.5, None, {"x": True}]},
        "",
        {"_id": 17, "title": "Title", "text": "B", "metadata": {"lang": "de", "k": 1}, "lang": "fr"},
        {"id": "c", "_id": "other", "title": " ", "text": "", "metadata": None},
        {"id": "d", "title": None, "text": "D", "metadata": ["no", "object"]},
    )
    found = Reading(path)
    assert found.rejections == []
    assert found.documents == [
        Document("a", "A", {"lang": "en", "n": [1, 2.5, None, {"x": True}]}),
        Document("17", "Title\nB", {"title": "Title", "lang": "fr", "k": 1}),
        Document("c", "", {"_id": "other"}),
        Document("d", "D", {"metadata": ["no", "object"]}),
    ]
    assert not any(document.cleaned for document in found.documents)


def test_every_line_end_and_a_byte_order_mark(tmp_path: Path) -> None:
    lines = [json.dumps({"id": name, "text": text}).encode() for name, text in ABC]
    found = Reading(
        write(tmp_path / "a.ndjson", b"\xef\xbb\xbf" + lines[0] + b"\r\n" + lines[1] + b"\n\n" + lines[2])
    )
    assert (found.texts, found.rejections) == (ABC, [])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"id": "x", "text": ', "This is not JSON: Expecting value at character 21."),
        ("[1, 2]", "Expected an object with id and text, not a list."),
        ('"text"', "Expected an object with id and text, not a string."),
        ('{"text": "x"}', "The id is missing."),
        ('{"id": "", "text": "x"}', "The id is empty."),
        ('{"id": " \\t", "text": "x"}', "The id is empty."),
        ('{"id": "\\u0000\\ud800", "text": "x"}', "The id is empty."),
        ('{"id": null, "text": "x"}', "The id is null, not a string or a whole number."),
        ('{"id": true, "text": "x"}', "The id is true or false, not a string or a whole number."),
        ('{"id": 1.5, "text": "x"}', "The id is a number, not a string or a whole number."),
        ('{"id": NaN, "text": "x"}', "The id is a non-finite number, not a string or a whole number."),
        ('{"id": ["x"], "text": "x"}', "The id is a list, not a string or a whole number."),
        (f'{{"id": "{"x" * 4_097}", "text": "x"}}', "The id has 4,097 characters, more than 4,096."),
        ('{"id": "x"}', "The text is missing."),
        ('{"id": "x", "text": null}', "The text is null, not a string."),
        ('{"id": "x", "text": ["x"]}', "The text is a list, not a string."),
        ('{"id": "x", "text": "x", "title": 1}', "The title is a number, not a string."),
        (
            '{"id": "x", "text": "x", "n": NaN}',
            "The metadata is not JSON: Out of range float values are not JSON compliant.",
        ),
        (
            '{"id": "x", "text": "x", "metadata": {"n": [-Infinity]}}',
            "The metadata is not JSON: Out of range float values are not JSON compliant.",
        ),
        (
            '{"id": "x", "text": "x", "n": 1e999}',
            "The metadata is not JSON: Out of range float values are not JSON compliant.",
        ),
        (
            '{"id": "x", "text": "x", "n": ' + "[" * 100 + "]" * 100 + "}",
            "The metadata is nested deeper than 100 levels.",
        ),
        ('{"id": "x", "text": "x", "n": ' + "[" * 9_000, "This JSON is nested too deeply."),
        (b'{"id": "x", "text": "\xff"}', "This is not UTF-8: byte 0xff at 21 cannot be decoded."),
        ('{"id": "a", "text": "x"}', "The id 'a' appeared before in this run."),
        ('{"id": "x", "text": "' + "x" * 9_980 + '"}', "This is larger than 10,000 bytes (max_document_bytes)."),
        ('{"id": "x", "text": "' + "x" * 99_980 + '"}', "This is larger than 10,000 bytes (max_document_bytes)."),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_line_is_rejected_with_its_number_and_the_rest_goes_on(
    tmp_path: Path, line: str | bytes, problem: str
) -> None:
    good = [{"id": name, "text": text} for name, text in ABC]
    found = Reading(json_lines(tmp_path / "a.jsonl", good[0], line, *good[1:]))
    assert found.texts == ABC
    assert found.problems == [("a.jsonl:2", problem)]


def test_a_number_with_too_many_digits_is_rejected(tmp_path: Path) -> None:
    found = Reading(json_lines(tmp_path / "a.jsonl", '{"id": "x", "text": "x", "n": ' + "9" * 5_000 + "}"))
    assert [where for where, _ in found.problems] == ["a.jsonl:1"]
    assert "digits" in found.problems[0][1]


def test_metadata_that_is_too_large_is_rejected(tmp_path: Path) -> None:
    fits = "x" * (MAX_METADATA_BYTES - len('{"k": ""}'))
    path = json_lines(
        tmp_path / "a.jsonl",
        {"id": "a", "text": "A", "k": fits},
        {"id": "b", "text": "B", "k": fits + "x"},
        {"id": "c", "text": "C", "k": fits[:-1] + "é"},  # in bytes, not characters
    )
    found = Reading(path, max_bytes=100_000)
    assert found.ids == ["a"]
    assert found.problems == [
        (f"a.jsonl:{line}", "The metadata has 65,537 bytes as JSON, more than 65,536.") for line in (2, 3)
    ]


def test_nul_and_lone_surrogates_are_taken_out_everywhere(tmp_path: Path) -> None:
    path = json_lines(
        tmp_path / "a.jsonl",
        r'{"id": "a\u0000\ud800", "text": "x\udfffy\u0000", "k\u0000": {"l": ["\ud83d", 1, "\ud83d\ude00"]}}',
        r'{"id": "b", "text": "x", "k": "\u0000"}',
        r'{"id": "c", "text": "\ud83d\ude00 \\u0000 \u00e9", "k": "\\u0000 \\ud800 \ud83d\ude00"}',
        r'{"id": "a\udc00", "text": "the same id"}',
    )
    found = Reading(path)
    assert found.documents == [
        Document("a", "xy", {"k": {"l": ["", 1, "😀"]}}),
        Document("b", "x", {"k": ""}),
        Document("c", "😀 \\u0000 é", {"k": "\\u0000 \\ud800 😀"}),
    ]
    assert [document.cleaned for document in found.documents] == [True, True, False]
    assert found.problems == [("a.jsonl:4", "The id 'a' appeared before in this run.")]


@pytest.mark.parametrize("size", range(90, 110))
def test_lines_around_the_limit_are_told_apart(tmp_path: Path, size: int) -> None:
    def line(name: str) -> bytes:
        start = b'{"id": "' + name.encode() + b'", "text": "'
        return start + b"x" * (size - len(start) - 2) + b'"}'

    for bom in (b"", b"\xef\xbb\xbf"):
        for end in (b"\n", b"\r\n"):
            path = write(tmp_path / "x.jsonl", bom + line("a") + end + line("b") + end + line("c"))
            found = Reading(path, max_bytes=100)
            assert found.ids == (["a", "b", "c"] if size <= 100 else [])
            assert [where for where, _ in found.problems] == (
                [] if size <= 100 else ["x.jsonl:1", "x.jsonl:2", "x.jsonl:3"]
            )


# CSV --------------------------------------------------------------------------------------------------------


def test_csv(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.CSV",
        '\ufeff,id,text,lang, note \r\n0,a,A,en,\r\n1,b,"B, ""quoted""\r\nand a line",de,5" pipe\r\n\r\n2,7,C,"",x\n',
    )
    found = Reading(path)
    assert found.rejections == []
    assert found.documents == [
        Document("a", "A", {"lang": "en", "note": ""}),
        Document("b", 'B, "quoted"\r\nand a line', {"lang": "de", "note": '5" pipe'}),
        Document("7", "C", {"lang": "", "note": "x"}),
    ]


def test_beirs_id_and_a_quoted_header(tmp_path: Path) -> None:
    assert Reading(write(tmp_path / "a.csv", '"_id","text"\n"a","A"')).texts == [("a", "A")]


def test_big_csv_fields(tmp_path: Path) -> None:
    text = "x, " * 100_000 + '""\n' * 50_000
    found = Reading(write(tmp_path / "a.csv", f'id,text\na,"{text}"\nb,B\n'), max_bytes=1_000_000)
    assert found.rejections == []
    assert found.texts == [("a", text.replace('""', '"')), ("b", "B")]


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ("x,y,z,extra", "The record has 4 fields, the header 3."),
        ("x", "The record has 1 fields, the header 3."),
        (",x,y", "The id is empty."),
        ('"x"y,z,', "This is not CSV: ',' expected after '\"'."),
        (b"x,\xff,y", "This is not UTF-8: byte 0xff at 2 cannot be decoded."),
        ("a,again,", "The id 'a' appeared before in this run."),
        ("x,y\rz,", "This is not CSV: "),
        (f"x,{'y' * 10_000},", "This is larger than 10,000 bytes (max_document_bytes)."),
        (f'x,"{"y" * 200_000}",', "This is larger than 10,000 bytes (max_document_bytes)."),
        # Lines of a field that is too large look like records, and are not.
        ('x,"' + "evil,record,1\n" * 20_000 + '",y', "This is larger than 10,000 bytes (max_document_bytes)."),
        (
            'x,"' + '""\nevil,record,1\n""' * 9_000 + '",y',
            "This is larger than 10,000 bytes (max_document_bytes).",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_record_is_rejected_with_its_line_and_the_rest_goes_on(
    tmp_path: Path, record: str | bytes, problem: str
) -> None:
    data = record if isinstance(record, bytes) else record.encode()
    found = Reading(write(tmp_path / "a.csv", b'id,text,k\na,"A\n",1\n' + data + b"\nb,B,2\nc,C,3"))
    assert found.texts == [("a", "A\n"), ("b", "B"), ("c", "C")]
    assert [(where, shown.startswith(problem)) for where, shown in found.problems] == [("a.csv:4", True)]


def test_line_numbers_after_a_very_long_line(tmp_path: Path) -> None:
    found = Reading(write(tmp_path / "a.csv", f'id,text\na,"{"x" * 200_000}\n"\nbad\n'), max_bytes=1_000_000)
    assert found.ids == ["a"]
    assert [where for where, _ in found.problems] == ["a.csv:4"]


@pytest.mark.parametrize("size", [20, 100_000])
def test_a_quote_that_is_never_closed_is_rejected(tmp_path: Path, size: int) -> None:
    found = Reading(write(tmp_path / "a.csv", 'id,text\na,A\nb,"open\n' + "c,C\n" * size))
    assert found.texts == [("a", "A")]
    assert [where for where, _ in found.problems] == ["a.csv:3"]


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (
            "name,text",
            "The header has no column 'id', only 'name, text'. The file was skipped. Another column: --id",
        ),
        (
            "id;text",
            "The header has no column 'id', only 'id;text'. The file was skipped. Another column: --id",
        ),
        (
            "id,body",
            "The header has no column 'text', only 'id, body'. The file was skipped. Another column: --text",
        ),
        ("id,text,k, k", "The header has the column 'k' twice. The file was skipped."),
        ("id,text," + "k" * 10_000, "The header is larger than a document may be. The file was skipped."),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_csv_without_its_columns_is_not_read(tmp_path: Path, header: str, problem: str) -> None:
    found = Reading(write(tmp_path / "a.csv", f"{header}\na,A\n"), write(tmp_path / "b.txt", "B"))
    assert found.ids == ["b.txt"]
    assert found.problems == [("a.csv:1", problem)]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.sampled_from('",\n\r x€')).map(lambda text: text.replace("\r\n", "\n")),
            st.text(st.sampled_from('",\n x')),
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 9),
)
def test_records_are_cut_as_the_csv_module_reads_them(rows: list[tuple[str, str]], part: int) -> None:
    import csv
    import io

    file = io.StringIO()
    csv.writer(file, lineterminator="\r\n").writerows([("k", *row) for row in rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "revector.core.documents.files._SKIP_BYTES", part
        )  # so that quotes fall on every border between two reads
        records = [record for _, record in csv_records(io.BytesIO(file.getvalue().encode()), max_bytes=10_000)]
    assert [tuple(csv_fields(record or b"")) for record in records] == [("k", *row) for row in rows]


# BEIR -------------------------------------------------------------------------------------------------------


def test_a_beir_folder_is_its_corpus(tmp_path: Path) -> None:
    json_lines(
        tmp_path / "beir" / "corpus.jsonl", {"_id": "d1", "title": "T", "text": "x", "metadata": {"url": "u"}}
    )
    json_lines(tmp_path / "beir" / "queries.jsonl", {"_id": "q1", "text": "what is x"})
    write(tmp_path / "beir" / "qrels" / "notes.txt", "q1 d1 1")
    json_lines(tmp_path / "other" / "queries.jsonl", {"_id": "q2", "text": "a document by this name"})
    found = Reading(tmp_path)
    assert found.documents == [
        Document("d1", "T\nx", {"title": "T", "url": "u"}),
        Document("q2", "a document by this name"),
    ]
    assert (found.rejections, found.reader.left_out) == ([], 0)


# Memory -----------------------------------------------------------------------------------------------------


def peak_memory(path: Path, max_bytes: int) -> int:
    tracemalloc.start()
    try:
        for _ in read_documents([path], max_bytes=max_bytes, on_reject=lambda rejection: None):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_that_of_one_document(tmp_path: Path) -> None:
    text = "x" * 500_000
    many = json_lines(tmp_path / "many.jsonl", *({"id": number, "text": text} for number in range(40)))
    assert peak_memory(many, 1_000_000) < 5_000_000 < many.stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("start", ["", 'id,text\na,"', "id,text\na,"])
def test_memory_is_bounded_by_max_bytes_for_what_is_too_large(tmp_path: Path, start: str) -> None:
    path = write(tmp_path / ("a.csv" if start else "a.jsonl"), start + 'x,"" ' * 100_000)
    assert peak_memory(path, 20_000) < 300_000 < path.stat().st_size


# Documents that other code makes ----------------------------------------------------------------------------


@pytest.mark.slow
@settings(deadline=None)
@given(st.text(min_size=1), st.text(), st.dictionaries(st.text(), st.recursive(st.none() | st.text(), st.lists)))
def test_a_document_that_exists_can_be_stored(source_id: str, text: str, metadata: dict[str, Any]) -> None:
    try:
        document = Document(source_id, text, metadata)
    except DocumentError as error:
        assert error.problem == "The id is empty."  # noqa: PT017 (it may be raised or not)
        return
    stored = f"{document.source_id}{document.text}{document.metadata_json}"
    assert "\0" not in stored
    stored.encode()
    assert json.loads(document.metadata_json) == document.metadata
    again = Document(document.source_id, document.text, document.metadata)
    assert (again, again.cleaned) == (document, False)


@pytest.mark.parametrize("metadata", [{"k": object()}, {"k": {1, 2}}, {"k": b"x"}, {(1, 2): "x"}])
def test_metadata_that_is_no_json_is_refused(metadata: dict[str, Any]) -> None:
    with pytest.raises(DocumentError, match="The metadata is not JSON"):
        Document("a", "A", metadata)


def test_metadata_in_a_circle_is_refused() -> None:
    circle: dict[str, Any] = {}
    circle["k"] = circle
    with pytest.raises(DocumentError, match="deeper than 100 levels"):
        Document("a", "A", circle)


def test_a_reader_is_an_iterator(tmp_path: Path) -> None:
    reader = read_documents([write(tmp_path / "a.txt", "A")], max_bytes=10, on_reject=unwanted)
    assert isinstance(reader, DocumentReader)
    assert iter(reader) is reader
    assert next(reader).source_id == "a.txt"
    assert next(reader, None) is None
