"""The process that reads PDF, office and web files (see conversion). Everything heavy is imported where it is used."""

from __future__ import annotations

import io
import json
import resource
import sys
import zipfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection as Channel
from typing import Any

from revector.core.documents.conversion import MEMORY_BYTES

MAX_RATIO = 200
_ALWAYS_BYTES = 64 * 1024 * 1024

_Parts = tuple[str, bool, dict[str, Any]]
"""Text, whether it is Markdown, and metadata."""


class UnreadableError(Exception):
    """A file that is not read, and why."""


def main() -> None:
    """Answer with one file's text after the other, until the other side closes."""
    channel = Channel(int(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            kind, max_bytes = json.loads(channel.recv_bytes())
            data = channel.recv_bytes()
        except EOFError:
            return
        channel.send_bytes(json.dumps(answer(kind, data, max_bytes)).encode())


def answer(kind: str, data: bytes, max_bytes: int) -> dict[str, Any]:
    """The text with `markdown` and `metadata`, or the `problem`."""
    try:
        text, markdown, metadata = _READERS[kind](data)
        if len(text.encode(errors="replace")) > max_bytes:
            raise UnreadableError(f"Its text is larger than {max_bytes:,} bytes (max_document_bytes).")
        return {"text": text, "markdown": markdown, "metadata": metadata}
    except UnreadableError as error:
        return {"problem": str(error)}
    except RecursionError:
        return {"problem": "It is nested too deeply."}
    except MemoryError:
        return {"problem": f"To read it needs more than {MEMORY_BYTES // 1024**3} GB of memory."}
    except Exception as error:  # noqa: BLE001  (whatever a library raises for what is not such a file)
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        return {"problem": f"This cannot be read as {_NAMES.get(kind, kind)}: {first}"}


# Web and reStructuredText ----------------------------------------------------------------------------------


def _html(data: bytes | str) -> _Parts:
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    soup = BeautifulSoup(data, "lxml")
    title = soup.title.get_text(" ", strip=True) if soup.title else ""
    for unseen in soup(["head", "script", "style", "noscript", "template", "svg", "iframe", "object"]):
        unseen.decompose()
    converter = MarkdownConverter(
        heading_style="ATX", strip=["a", "img"], escape_asterisks=False, escape_underscores=False
    )
    return converter.convert_soup(soup), True, {"title": title} if title else {}


def _rst(data: bytes) -> _Parts:
    from docutils.core import publish_parts

    _take_what_sphinx_knows()
    parts = publish_parts(
        data.decode("utf-8-sig"),
        writer="html5",
        settings_overrides={
            "file_insertion_enabled": False,
            "raw_enabled": False,
            "_disable_config": True,
            "report_level": 5,
            "halt_level": 5,
            "embed_stylesheet": False,
            "stylesheet_path": "",
            "math_output": "LaTeX",
            "syntax_highlight": "none",
            "smart_quotes": False,
            "line_length_limit": 1_000_000,
        },
    )
    text, markdown, _ = _html(parts["html_body"])
    return text, markdown, {"title": parts["title"]} if parts["title"] else {}


def _take_what_sphinx_knows() -> None:
    """Take the text of roles and directives that only Sphinx knows: docutils would drop it."""
    from docutils import nodes
    from docutils.parsers.rst import Directive, directives, roles

    class Unknown(Directive):  # type: ignore[misc]
        optional_arguments = 1
        final_argument_whitespace = True
        has_content = True

        def run(self) -> list[Any]:
            found: list[Any] = []
            if self.arguments and self.name not in ("index", "toctree", "include", "literalinclude"):
                found.append(nodes.paragraph("", self.arguments[0]))
            inside = nodes.Element()
            self.state.nested_parse(self.content, self.content_offset, inside)
            return [*found, *inside.children]

    known_directive, known_role = directives.directive, roles.role

    def directive(name: str, *where: Any) -> Any:
        found, messages = known_directive(name, *where)
        return (found, messages) if found else (Unknown, [])

    def plain(_name: str, _raw: str, text: str, *_rest: Any, **_more: Any) -> tuple[list[Any], list[Any]]:
        shown, _, target = text.partition("<")
        return [nodes.Text(shown.strip() if target and shown.strip() else text.lstrip("~!"))], []

    def role(name: str, *where: Any) -> Any:
        found, messages = known_role(name, *where)
        return (found, messages) if found else (plain, [])

    if known_directive.__module__ != __name__:
        directives.directive, roles.role = directive, role


def _notebook(data: bytes) -> _Parts:
    """Its text and its code, without what the code printed."""
    notebook = json.loads(data)
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise UnreadableError("This is not a notebook of version 4: it has no cells.")
    parts = []
    for cell in cells:
        source = cell.get("source", "")
        text = source if isinstance(source, str) else "".join(source)
        if text.strip():
            parts.append(f"```\n{text}\n```" if cell.get("cell_type") == "code" else text)
    return "\n\n".join(parts), True, {}


# PDF and office ---------------------------------------------------------------------------------------------


def _pdf(data: bytes) -> _Parts:
    import logging

    from pypdf import PdfReader
    from pypdf.errors import DependencyError

    logging.disable()
    reader = PdfReader(io.BytesIO(data))
    try:
        locked = reader.is_encrypted and not reader.decrypt("")
    except DependencyError:
        locked = True
    if locked:
        raise UnreadableError("It is encrypted. Save it without a password.")
    text = "\n\n".join(page.extract_text() for page in reader.pages)
    if len(reader.pages) and not text.strip():
        raise UnreadableError("It has no text, only pictures of pages: that takes a text recognition first.")
    title = str((reader.metadata and reader.metadata.title) or "").strip()
    return text, False, {"title": title} if title else {}


def _check_archive(data: bytes) -> None:
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise UnreadableError(
            "It is encrypted, or of the format before 2007. Save it without a password, as such a file."
        )
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = sum(part.file_size for part in archive.infolist())
    if size > _ALWAYS_BYTES and size > MAX_RATIO * len(data):
        raise UnreadableError(f"It expands to more than {MAX_RATIO} times its size.")


def _docx(data: bytes) -> _Parts:
    import docx
    from docx.table import Table

    _check_archive(data)
    document = docx.Document(io.BytesIO(data))
    parts = []
    for block in document.iter_inner_content():
        if isinstance(block, Table):
            parts.append("\n".join(_row(cell.text for cell in row.cells) for row in block.rows))
        else:
            style = (block.style.name or "") if block.style else ""
            level = style.removeprefix("Heading ")
            parts.append(f"{'#' * int(level)} {block.text}" if level in list("123456") else block.text)
    title = document.core_properties.title
    return _joined(parts), True, {"title": title} if title else {}


def _pptx(data: bytes) -> _Parts:
    import pptx

    _check_archive(data)
    deck = pptx.Presentation(io.BytesIO(data))
    parts: list[str] = []
    for slide in deck.slides:
        parts += _shapes(slide.shapes)
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            parts.append(slide.notes_slide.notes_text_frame.text)
    title = deck.core_properties.title
    return _joined(parts), False, {"title": title} if title else {}


def _shapes(shapes: Any) -> Iterator[str]:
    for shape in shapes:
        if shape.has_text_frame:
            yield shape.text_frame.text
        elif getattr(shape, "has_table", False):
            yield "\n".join(_row(cell.text for cell in row.cells) for row in shape.table.rows)
        elif hasattr(shape, "shapes"):
            yield from _shapes(shape.shapes)


def _sheets(data: bytes) -> _Parts:
    from python_calamine import CalamineWorkbook

    if data.startswith(b"PK"):
        _check_archive(data)
    workbook = CalamineWorkbook.from_filelike(io.BytesIO(data))
    parts = []
    for name in workbook.sheet_names:
        rows = (_row(map(_cell, row)) for row in workbook.get_sheet_by_name(name).iter_rows())
        if text := "\n".join(row for row in rows if row.strip()):
            parts.append(f"{name}\n{text}")
    return _joined(parts), False, {}


def _cell(value: object) -> str:
    """As people see it: 3 and not 3.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _row(cells: Any) -> str:
    return "\t".join(" ".join(cell.split()) for cell in cells)


def _joined(parts: list[str]) -> str:
    return "\n\n".join(part for part in parts if part.strip())


_READERS: dict[str, Callable[[bytes], _Parts]] = {
    "html": _html,
    "rst": _rst,
    "notebook": _notebook,
    "pdf": _pdf,
    "docx": _docx,
    "pptx": _pptx,
    "sheets": _sheets,
}
_NAMES = {
    "html": "HTML", "rst": "reStructuredText", "notebook": "a notebook", "pdf": "PDF", "docx": "a Word document",
    "pptx": "a presentation", "sheets": "a spreadsheet",
}  # fmt: skip

if __name__ == "__main__":
    main()
