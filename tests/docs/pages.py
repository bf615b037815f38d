"""The documents as their readers see them: blocks to run, commands, paths, links and headings."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from revector.console.cli import program

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_NEEDS = re.compile(r"(?:#|--) (Needs [^.]+)\.")
_ANCHOR_DROPS = re.compile(r"[^\w\- ]")


@dataclass(frozen=True)
class Block:
    """A fenced block: `line` is that of its first line in the page, counted from 1."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def needs(self) -> str | None:
        """`Needs Docker` for a block that says so in its first line; no test runs it."""
        found = _NEEDS.match(self.text)
        return found[1] if found else None

    @property
    def file(self) -> str | None:
        """The file that the block is, when its first line is nothing but a comment with a name: `# gates.toml`."""
        found = re.match(r"# ([\w-]+\.\w+)\n", self.text)
        return found[1] if found else None

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """The commands of a shell block, each with the lines that the page shows below it."""
        found: list[tuple[str, list[str]]] = []
        lines = iter(self.text.splitlines())
        for line in lines:
            if self.language == "console" and not line.startswith("$ "):
                found[-1][1].append(line)
                continue
            command = line.removeprefix("$ ") if self.language == "console" else line
            while command.endswith("\\"):
                command = command[:-1] + next(lines).lstrip()
            if command and not command.startswith("#"):
                found.append((command, []))
        return found


class Page:
    """One Markdown file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self._tokens = MarkdownIt("commonmark").enable("table").parse(self.text)

    @cached_property
    def blocks(self) -> list[Block]:
        """Its fenced blocks, in order."""
        return [
            Block(self.path, (token.map or [0])[0] + 2, token.info, token.content)
            for token in self._tokens
            if token.type == "fence"
        ]

    @cached_property
    def headings(self) -> list[tuple[str, str]]:
        """Each heading as (its level, such as `h2`; its text)."""
        return [
            (token.tag, self._tokens[place + 1].content)
            for place, token in enumerate(self._tokens)
            if token.type == "heading_open"
        ]

    @property
    def anchors(self) -> set[str]:
        """The fragments that lead to its headings, as GitHub makes them."""
        return {_ANCHOR_DROPS.sub("", text.lower()).replace(" ", "-") for _, text in self.headings}

    @property
    def codes(self) -> list[str]:
        """The inline code of its text and its tables."""
        return [token.content for token in self._inline() if token.type == "code_inline"]

    @property
    def links(self) -> list[str]:
        """The targets of its links and its pictures."""
        kinds = {"link_open": "href", "image": "src"}
        return [str(token.attrs[kinds[token.type]]) for token in self._inline() if token.type in kinds]

    @property
    def calls(self) -> list[str]:
        """Every `revector …` that it writes, in a block or in its text."""
        in_blocks = (
            command
            for block in self.blocks
            if block.language in ("sh", "console")
            for command, _ in block.commands
        )
        in_units = [call for block in self.blocks for call in re.findall(r"/bin/(revector .*)", block.text)]
        every = (*in_blocks, *in_units, *self.codes)
        return [text for text in every if re.match(r"(\.venv/bin/)?revector\b(?!\.)", text)]

    @property
    def keys(self) -> list[tuple[str, str]]:
        """The keys that it names for the console, each with the tab that it names them on.

        A tab is named as `tab 3` or `**Compare** (`3`)`, and stays the one until the next heading.
        """
        found: list[tuple[str, str]] = []
        tab = ""
        for token in self._tokens:
            if token.type == "heading_open":
                tab = ""
            parts = re.findall(
                r"tab (\d)|\*\*(\w+)\*\* \(`(\d)`\)|`([^`\s]|Enter)`", token.content * (token.type == "inline")
            )
            tab = tab or next((number or shown for number, _, shown, _ in parts if number or shown), "")
            for number, name, shown, key in parts:
                tab = number or shown or tab
                if tab and (name or key):
                    found.append((tab, name or key))
        return found

    def _inline(self) -> Iterator[Token]:
        for token in self._tokens:
            yield from token.children or ()


PAGES = [Page(path) for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))]


def words_of(command: str) -> list[str]:
    """A command's own words: without a comment, and without what the shell makes of the rest of the line."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words = list(lexer)
    end = next((place for place, word in enumerate(words) if set(word) <= set("|&;<>")), len(words))
    return words[:end]


def read_call(call: str) -> tuple[str, str | None]:
    """What a `revector …` calls, such as `backfill run`; and the word in it that the command line does not have."""
    command: Any = program()
    path: list[str] = []
    words = iter(words_of(call)[1:])
    for word in words:
        name = word.partition("=")[0]
        option = next((param for param in command.params if name in (*param.opts, *param.secondary_opts)), None)
        if option is not None:
            if not path and not option.is_flag:
                next(words)
        elif name.startswith("-") and name != "-":
            if name not in ("-h", "--help"):
                return " ".join(path), name
        elif hasattr(command, "commands"):
            if word not in command.commands:
                return " ".join(path), word
            command = command.commands[word]
            path.append(word)
    return " ".join(path), None


def leaf_commands() -> set[str]:
    """Every command of the command line that does something: `backfill run`, `search` …"""

    def walk(command: Any, path: tuple[str, ...]) -> Iterator[str]:
        if not hasattr(command, "commands"):
            yield " ".join(path)
            return
        for name, child in command.commands.items():
            yield from walk(child, (*path, name))

    return set(walk(program(), ()))


def product_texts() -> set[str]:
    """Every text in the product's code, with `…` for what is filled in: from Python, and from what SQL raises."""
    found: set[str] = set()
    for folder in ("core", "screens", "console"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant | ast.JoinedStr):
                    found.add(_filled(node))
        for path in (ROOT / folder).rglob("*.sql"):
            found.add(path.read_text(encoding="utf-8"))
    raised = {
        text.replace("%", "…") for whole in found for text in re.findall(r"RAISE EXCEPTION '(.*?)'", whole, re.S)
    }
    return {_plain(text) for text in found | raised}


def _filled(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_filled, node.values))
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"


def matches(shown: Sequence[str], printed: str) -> bool:
    """Whether a page shows what was printed: `…` stands for any text, alone in a line for any lines.

    Blanks count as one, since columns are as wide as what stands in them.
    """
    pattern = "".join(
        r"(?:[^\n]*\n)*"
        if line.strip() == "…"
        else r"[^\n]*".join(map(re.escape, _plain(line).split("…"))) + r"\n"
        for line in shown
    )
    return re.fullmatch(pattern, "".join(f"{_plain(line)}\n" for line in printed.splitlines())) is not None


def _plain(line: str) -> str:
    return " ".join(line.split())
