"""Other kinds of files: JSON arrays, TSV, compressed ones, stdin, front matter, and what is converted."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import docx
import pptx
import pytest
import xlsxwriter
from backports import zstd
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from revector.core.documents import Document, Naming, Rejection, conversion, opened, read_documents
from revector.core.errors import UsageError


class Reading:
    """Everything that a run gave."""

    def __init__(self, *paths: Path | str, max_bytes: int = 1_000_000, **options: Any) -> None:
        self.rejections: list[Rejection] = []
        self.reader = read_documents(paths, max_bytes=max_bytes, on_reject=self.rejections.append, **options)
        self.documents = list(self.reader)

    @property
    def texts(self) -> list[tuple[str, str]]:
        return [(document.source_id, document.text) for document in self.documents]

    @property
    def problems(self) -> list[tuple[str, str]]:
        return [(found.where.rpartition("/")[2], found.problem) for found in self.rejections]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# Records ----------------------------------------------------------------------------------------------------


def test_a_json_array(tmp_path: Path) -> None:
    rows = [{"id": 1, "text": 'a "}],\\', "n": [1, {}]}, {"id": 2, "title": "T", "text": "b"}]
    found = Reading(write(tmp_path / "a.json", json.dumps(rows, indent=2)))
    assert found.documents == [Document("1", 'a "}],\\', {"n": [1, {}]}), Document("2", "T\nb", {"title": "T"})]
    assert found.problems == []


def test_bad_elements_are_rejected_with_their_line_and_the_rest_is_read(tmp_path: Path) -> None:
    text = '[\n{"id": "a", "text": "A"},\n7,\n{"id": "b"},\n\n{"id": "c",\n"text": "C"}, {"id": "d", "text": "'
    found = Reading(write(tmp_path / "a.json", text + "x" * 200 + '"},\n{"id": "e", "text": "E"}'), max_bytes=100)
    assert found.texts == [("a", "A"), ("c", "C")]
    assert [(where, problem[:30]) for where, problem in found.problems] == [
        ("a.json:3", "Expected an object with id and"),
        ("a.json:4", "The text is missing."),
        ("a.json:7", "This is larger than 100 bytes "),
        ("a.json", "This is not JSON: a bracket or"),
    ]


def test_json_in_a_folder_is_read_when_it_is_an_array(tmp_path: Path) -> None:
    write(tmp_path / "package.json", '{"name": "x"}')
    write(tmp_path / "data.json", ' [{"id": "a", "text": "A"}]')
    found = Reading(tmp_path)
    assert found.texts == [("a", "A")]
    assert found.reader.left_out_kinds == {".json": 1}
    assert Reading(write(tmp_path / "lines.json", '{"id": "b", "text": "B"}\n{"id": "c", "text": "C"}')).texts == [
        ("b", "B"),
        ("c", "C"),
    ]


def test_deep_json_is_rejected(tmp_path: Path) -> None:
    found = Reading(write(tmp_path / "a.json", "[" * 100_000 + "]" * 100_000))
    assert found.problems == [("a.json:1", "This JSON is nested too deeply.")]


def test_tsv_keeps_quotes_that_are_not_around_a_field(tmp_path: Path) -> None:
    rows = 'id\ttext\tlang\na\t"Quoted" is a word\ten\nb\t"said ""yes"""\ten\nc\tno, "never\ten\nd\ttoo few\n'
    found = Reading(write(tmp_path / "a.tsv", rows))
    assert found.texts == [("a", '"Quoted" is a word'), ("b", 'said "yes"'), ("c", 'no, "never')]
    assert found.documents[0].metadata == {"lang": "en"}
    assert found.problems == [("a.tsv:5", "The record has 2 fields, the header 3.")]


def test_columns_are_named(tmp_path: Path) -> None:
    naming = Naming("key", "body", "kb/")
    write(tmp_path / "a.csv", "key,body,id\n1,A,x\n")
    write(tmp_path / "b.jsonl", '{"key": "2", "body": "B", "text": "kept"}\n{"id": "3", "body": "C"}\n')
    found = Reading(tmp_path / "a.csv", tmp_path / "b.jsonl", naming=naming)
    assert found.documents == [Document("kb/1", "A", {"id": "x"}), Document("kb/2", "B", {"text": "kept"})]
    assert found.problems == [("b.jsonl:2", "The id (key) is missing.")]


# Compressed, and stdin --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("end", "compress"), [(".gz", gzip.compress), (".zst", zstd.compress)])
def test_every_kind_of_text_may_be_compressed(tmp_path: Path, end: str, compress: Any) -> None:
    kinds = {
        "a.txt": "text", "b.md": "# text", "c.jsonl": '{"id": "c", "text": "C"}', "d.csv": "id,text\nd,D",
        "e.tsv": "id\ttext\ne\tE", "f.json": '[{"id": "f", "text": "F"}]', "g.html": "<p>G</p>",
    }  # fmt: skip
    for name, text in kinds.items():
        write(tmp_path / f"{name}{end}", compress(text.encode()))
    found = Reading(tmp_path)
    assert found.problems == []
    assert found.texts == [
        (f"a.txt{end}", "text"), (f"b.md{end}", "# text"), ("c", "C"), ("d", "D"), ("e", "E"), ("f", "F"),
        (f"g.html{end}", "G"),
    ]  # fmt: skip
    assert [document.markdown for document in found.documents[:2]] == [False, True]


@pytest.mark.parametrize(("end", "compress"), [(".gz", gzip.compress), (".zst", zstd.compress)])
def test_what_expands_without_end_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, compress: Any
) -> None:
    monkeypatch.setattr(opened, "_ALWAYS_BYTES", 1_000_000)
    bomb = compress(b"x" * 30_000_000)
    assert len(bomb) * opened.MAX_RATIO < 30_000_000
    found = Reading(write(tmp_path / f"a.jsonl{end}", bomb), write(tmp_path / "b.txt", "B"))
    assert found.texts == [("b.txt", "B")]
    assert found.problems[-1] == (
        f"a.jsonl{end}",
        "This cannot be read: it expands to more than 200 times its size.",
    )


@pytest.mark.parametrize(("end", "compress"), [(".gz", gzip.compress), (".zst", zstd.compress)])
def test_a_compressed_file_that_is_cut_off_is_rejected(tmp_path: Path, end: str, compress: Any) -> None:
    data = compress(json.dumps({"id": "a", "text": os.urandom(40_000).hex()}).encode())
    found = Reading(write(tmp_path / f"a.jsonl{end}", data[: len(data) // 2]))
    assert found.texts == []
    ((where, problem),) = found.problems
    assert where == f"a.jsonl{end}"
    assert problem.startswith("This cannot be read: the compressed data is damaged or cut off")


def test_a_compressed_beir_folder_is_its_corpus(tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl.gz", gzip.compress(b'{"_id": "d1", "text": "x"}'))
    write(tmp_path / "queries.jsonl.gz", gzip.compress(b'{"_id": "q1", "text": "what is x"}'))
    write(tmp_path / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\n")
    found = Reading(tmp_path)
    assert (found.texts, found.problems) == ([("d1", "x")], [])


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    given(gzip.compress(b'{"id": "a", "text": "A"}\nbroken'))
    found = Reading("-", suffix=".jsonl")
    assert found.texts == [("a", "A")]
    assert found.rejections[0].where == "stdin:2"
    given(b"# Title")
    found = Reading("-", suffix=".md", naming=Naming(prefix="p/"))
    assert found.documents == [Document("p/stdin", "# Title", markdown=True)]
    with pytest.raises(UsageError, match="What is on stdin"):
        Reading("-")


# Front matter -----------------------------------------------------------------------------------------------


def test_front_matter_is_metadata(tmp_path: Path) -> None:
    text = "---\ntitle: A page\ndate: 2026-11-30\ntags: [a, b]\n1: {deep: true}\n---\n# Text\n---\nend: no\n---\n"
    found = Reading(write(tmp_path / "a.md", text.replace("\n", "\r\n")), write(tmp_path / "b.txt", text))
    assert found.documents[0].metadata == {
        "title": "A page", "date": "2026-11-30", "tags": ["a", "b"], "1": {"deep": True},
    }  # fmt: skip
    assert found.documents[0].text == "# Text\r\n---\r\nend: no\r\n---\r\n"
    assert found.documents[1].text == text


@pytest.mark.parametrize(
    "text", ["---\nNo: yaml: here\n---\nx", "---\nwords\n---\nx", "--- a: 1\n---\n", "---\na: 1\n"]
)
def test_a_rule_is_no_front_matter(tmp_path: Path, text: str) -> None:
    found = Reading(write(tmp_path / "a.md", text))
    assert (found.documents[0].text, found.documents[0].metadata) == (text, {})


def test_hostile_front_matter_is_rejected(tmp_path: Path) -> None:
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))
    write(tmp_path / "a.md", f"---\na0: &a0 [x]\n{levels}\n---\n")
    write(tmp_path / "b.md", f"---\na: {'[' * 3_000}\n---\n")
    write(tmp_path / "c.md", f"---\na: {'x' * 70_000}\n---\n")
    write(tmp_path / "d.md", "---\na: !!python/object/apply:os.system ['true']\n---\n")
    found = Reading(tmp_path)
    assert [document.source_id for document in found.documents] == ["d.md"]
    assert found.documents[0].metadata == {}
    assert [problem for _, problem in found.problems] == [
        "The front matter has an alias (*), which is not read.",
        "The front matter is nested too deeply.",
        "The front matter has more than 65,536 characters.",
    ]


# Converted --------------------------------------------------------------------------------------------------


def test_html_is_its_text(tmp_path: Path) -> None:
    page = (
        "<html><head><title>Keys</title><style>p{}</style></head><body><script>no()</script>"
        "<h1>Rotate</h1><p>a <b>new</b> <a href='http://x'>key</a> &amp; snake_case * 2</p>"
        "<table><tr><td>1</td><td>2</td></tr></table></body></html>"
    )
    (document,) = Reading(write(tmp_path / "a.html", page.encode("utf-16"))).documents
    assert document.metadata == {"title": "Keys"}
    assert document.markdown
    assert document.text.startswith("# Rotate\n\na **new** key & snake_case * 2\n\n| ")
    assert "no()" not in document.text


def test_restructured_text_keeps_what_only_sphinx_knows(tmp_path: Path) -> None:
    text = (
        "Keys\n====\n\nSee :func:`~keys.rotate` and :ref:`here <label>`.\n\n.. versionadded:: 1.2\n   Rotation.\n\n"
        ".. py:function:: rotate(key)\n\n   Makes a new one.\n\n.. include:: /etc/passwd\n\n"
        ".. raw:: html\n\n   <script>no()</script>\n"
    )
    (document,) = Reading(write(tmp_path / "a.rst", text)).documents
    assert document.metadata == {"title": "Keys"}
    for word in ("keys.rotate", "here", "1.2", "Rotation.", "rotate(key)", "Makes a new one."):
        assert word in document.text
    for word in ("root:", "no()", "::", ":func:", "==="):
        assert word not in document.text


def test_a_notebook_is_its_text_and_code(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "text"]},
        {"cell_type": "code", "source": "x = 1", "outputs": [{"text": "printed"}]},
    ]
    (document,) = Reading(write(tmp_path / "a.ipynb", json.dumps({"nbformat": 4, "cells": cells}))).documents
    assert document.text == "# Title\ntext\n\n```\nx = 1\n```"


def pdf(text: str = "", password: str = "") -> bytes:
    writer = PdfWriter()
    page = writer.add_blank_page(200, 200)
    if text:
        font = DictionaryObject(
            {NameObject("/Type"): NameObject("/Font"), NameObject("/Subtype"): NameObject("/Type1"),
             NameObject("/BaseFont"): NameObject("/Helvetica")}
        )  # fmt: skip
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        content = DecodedStreamObject()
        content.set_data(f"BT /F1 12 Tf 10 100 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = content
    writer.add_metadata({"/Title": "The title"})
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    stream = io.BytesIO()
    writer.write(stream)
    return stream.getvalue()


def test_pdf(tmp_path: Path) -> None:
    write(tmp_path / "a.pdf", pdf("Rotate the key"))
    write(tmp_path / "b.pdf", pdf("secret", "password"))
    write(tmp_path / "c.pdf", pdf())
    write(tmp_path / "d.pdf", "no PDF at all")
    found = Reading(tmp_path)
    assert found.documents == [Document("a.pdf", "Rotate the key", {"title": "The title"})]
    problems = dict(found.problems)
    assert problems["b.pdf"] == "It is encrypted. Save it without a password."
    assert problems["c.pdf"].startswith("It has no text, only pictures of pages")
    assert problems["d.pdf"].startswith("This cannot be read as PDF")


def sheet(*texts: str) -> bytes:
    """A spreadsheet with these texts below each other, and a number beside the first."""
    stream = io.BytesIO()
    with xlsxwriter.Workbook(stream) as book:
        page = book.add_worksheet("Keys")
        page.write_column(0, 0, texts)
        page.write_number(0, 1, 3)
    return stream.getvalue()


def test_office_files(tmp_path: Path) -> None:
    letter = docx.Document()
    letter.add_heading("Keys", 1)
    letter.add_paragraph("Rotate them.")
    letter.add_table(1, 2).rows[0].cells[1].text = "cell"
    letter.save(str(tmp_path / "a.docx"))
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[0])
    slide.shapes.title.text = "A slide"
    slide.notes_slide.notes_text_frame.text = "Said aloud"
    deck.save(str(tmp_path / "b.pptx"))
    write(tmp_path / "c.xlsx", sheet("a cell"))
    found = Reading(tmp_path)
    assert found.problems == []
    texts = dict(found.texts)
    assert texts["a.docx"] == "# Keys\n\nRotate them.\n\n\tcell"
    assert texts["b.pptx"].split("\n\n") == ["A slide", "Said aloud"]
    assert texts["c.xlsx"] == "Keys\na cell\t3"


def test_hostile_office_files_are_rejected_and_the_next_is_read(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    stream = io.BytesIO()
    letter = docx.Document()
    letter.save(stream)
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(tmp_path / "a.docx", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "word/document.xml":
                doctype = f'<!DOCTYPE d [<!ENTITY e0 "lol">{entities}]>'.encode()
                content = content.replace(b"<w:document", doctype + b"<w:document", 1)
                content = content.replace(b"<w:body>", b"<w:body><w:p><w:r><w:t>&e11;</w:t></w:r></w:p>", 1)
            new.writestr(name, content)
    with zipfile.ZipFile(tmp_path / "b.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", b"\0" * 100_000_000)
    write(tmp_path / "c.docx", b"\xd0\xcf\x11\xe0" + b"\0" * 1_000)
    write(tmp_path / "d.html", "<div>" * 20_000)
    write(tmp_path / "e.ipynb", "[" * 100_000)
    write(tmp_path / "f.xlsx", sheet(*(f"{number} {'x' * 30_000}" for number in range(40))))
    write(tmp_path / "g.html", "<p>fine</p>")
    found = Reading(tmp_path)
    problems = dict(found.problems)
    texts = dict(found.texts)
    assert texts["g.html"] == "fine"
    assert all(len(text) < 1_000_000 for text in texts.values())
    assert problems["b.xlsx"] == "It expands to more than 200 times its size."
    assert problems["c.docx"].startswith("It is encrypted, or of the format before 2007.")
    assert problems["e.ipynb"] == "It is nested too deeply."
    assert problems["f.xlsx"] == "Its text is larger than 1,000,000 bytes (max_document_bytes)."


def test_what_never_ends_or_crashes_is_rejected_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = conversion.subprocess.Popen

    def open_and_kill(arguments: list[str], **more: Any) -> Any:
        process = killed(arguments, **more)
        process.kill()
        process.wait()
        monkeypatch.setattr(conversion.subprocess, "Popen", killed)
        return process

    monkeypatch.setattr(conversion.subprocess, "Popen", open_and_kill)
    for name in ("a.ipynb", "b.ipynb"):
        write(tmp_path / name, '{"cells": []}')
    found = Reading(tmp_path)
    assert found.texts == [("b.ipynb", "")]
    ((where, problem),) = found.problems
    assert where == "a.ipynb"
    assert "it is damaged, or needs more than 4 GB of memory" in problem
    monkeypatch.setattr(conversion, "SECONDS", 0.0)
    found = Reading(tmp_path / "a.ipynb")
    assert found.problems == [("a.ipynb", "To read this .ipynb file takes more than 0 seconds.")]


def test_without_the_extra_a_file_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion.importlib.util, "find_spec", lambda name: None if name == "bs4" else object())
    write(tmp_path / "a.rst", "Keys\n====\n")
    write(tmp_path / "b.ipynb", '{"cells": []}')
    found = Reading(tmp_path)
    assert found.problems == [("a.rst", "A .rst file needs pip install 'revector[documents]'.")]
    assert found.texts == [("b.ipynb", "")]


def test_kinds_that_are_not_read_are_refused_when_they_are_named(tmp_path: Path) -> None:
    found = Reading(write(tmp_path / "a.rtf", r"{\rtf1 text}"), write(tmp_path / "b.xml", "<a/>"))
    assert found.documents == []
    assert found.problems[0] == ("a.rtf", "A .rtf file is not read. Save it as .docx, .pptx, .html or text.")
