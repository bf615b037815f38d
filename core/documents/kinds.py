"""The kinds of files that are read, by the ends of their names."""

from __future__ import annotations

from typing import Literal

Kind = Literal[
    "text",
    "markdown",
    "json_lines",
    "json",
    "csv",
    "tsv",
    "html",
    "rst",
    "notebook",
    "pdf",
    "docx",
    "pptx",
    "sheets",
]

SUFFIXES: dict[str, Kind] = {
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".jsonl": "json_lines",
    ".ndjson": "json_lines",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".rst": "rst",
    ".ipynb": "notebook",
    ".pdf": "pdf",
    ".docx": "docx",
    ".pptx": "pptx",
    ".xlsx": "sheets",
    ".xlsm": "sheets",
    ".xls": "sheets",
    ".ods": "sheets",
}
KINDS = frozenset(SUFFIXES)

CONVERTED: dict[Kind, tuple[str, ...]] = {
    "html": ("bs4", "lxml", "markdownify"),
    "rst": ("docutils", "bs4", "lxml", "markdownify"),
    "notebook": (),
    "pdf": ("pypdf",),
    "docx": ("docx",),
    "pptx": ("pptx",),
    "sheets": ("python_calamine",),
}
"""Kinds that become text in a process of their own, and the packages that this needs."""

UNREAD = frozenset({".doc", ".ppt", ".odt", ".odp", ".rtf", ".epub", ".xml", ".tex"})
"""Kinds that would be taken for text, or for damaged text, when a file is named itself."""

COMPRESSED = (".gz", ".zst")


def suffix_of(name: str) -> str:
    """The end that says what a file is, in small letters: `.jsonl` of `corpus.JSONL.gz`; '' when there is none."""
    name = name.lower()
    for end in COMPRESSED:
        name = name.removesuffix(end)
    _, dot, end = name.rpartition(".")
    return f".{end}" if dot and "/" not in end else ""
