"""Queries in files: BEIR's queries.jsonl, and TREC's topics as columns or in their SGML."""

from __future__ import annotations

import contextlib
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

from revector.core.errors import UsageError
from revector.core.evaluation.files.lines import Lines, bad_line, look_ahead, read_lines
from revector.core.evaluation.judged_sets.query_sets import MAX_QUERY_CHARACTERS, WHOLE_SET, Query, check_query
from revector.core.text import quote


def beir_files(folder: Path) -> tuple[Path, Path | None]:
    """The queries and, if there are any, the judgements (qrels/test.tsv) of a folder in the BEIR layout.

    Raises UsageError when it has no queries.jsonl, or only judgements of other splits.
    """
    queries = _plain_or_compressed(folder / "queries.jsonl")
    if queries is None:
        raise UsageError(
            f"The folder {str(folder)!r} has no queries.jsonl.",
            "A folder is expected in the BEIR layout: queries.jsonl and qrels/test.tsv.",
        )
    qrels = _plain_or_compressed(folder / "qrels" / "test.tsv")
    if qrels is None and (others := sorted(path.name for path in (folder / "qrels").glob("*.tsv*"))):
        raise UsageError(
            f"The folder {str(folder / 'qrels')!r} has no test.tsv, but {', '.join(others[:5])}.",
            "Name the file: --qrels FILE.",
        )
    return queries, qrels


def read_queries(path: Path) -> tuple[Query, ...]:
    """The queries of a file, in its order; none of an empty one.

    - BEIR: a line is {"_id": …, "text": …, "metadata": {"segment": …}}; other members are not kept.
    - TREC: a line is `id<TAB>text`, or with the segment as a third column.
    - TREC's SGML: <top> with <num> and <title>; the title is the query.

    A query without a segment belongs to `all`. Raises UsageError naming file and line for what cannot be parsed, a
    query that cannot be stored, and a repeated id.
    """
    first, lines = look_ahead(read_lines(path))
    read = _from_columns
    if first.lstrip().startswith("{"):
        read = _from_json_lines
    elif first.lstrip().startswith("<"):
        read = _from_sgml
    found: dict[str, tuple[int, Query]] = {}
    for number, query in read(path, lines):
        try:
            check_query(query)
        except UsageError as error:
            raise bad_line(path, number, f"cannot be read. {error.problem}") from None
        if query.id in found:
            raise bad_line(
                path, number, f"has query id {quote(query.id)} again, after line {found[query.id][0]}.",
                "Every query needs its own id.",
            )  # fmt: skip
        found[query.id] = number, query
    return tuple(query for _, query in found.values())


def _from_json_lines(path: Path, lines: Lines) -> Iterator[tuple[int, Query]]:
    for number, line in lines:
        try:
            row = json.loads(line)
            segment = (row.get("metadata") or {}).get("segment")
            yield (
                number,
                Query(_id(row["_id"]), _text(row["text"]), WHOLE_SET if segment is None else _id(segment)),
            )
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            raise bad_line(
                path, number, "is not a query.", 'Expected {"_id": …, "text": …, "metadata": {"segment": …}}.'
            ) from None


def _id(value: object) -> str:
    """Ids are often written as numbers."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError
    return str(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _from_columns(path: Path, lines: Lines) -> Iterator[tuple[int, Query]]:
    for number, line in lines:
        parts = line.split("\t")
        if len(parts) not in (2, 3):
            raise bad_line(
                path, number, f"is not a query: it has {len(parts)} columns.",
                "Expected an id, the text and perhaps a segment, by tabs; JSON lines as BEIR's; or TREC's <top>.",
            )  # fmt: skip
        yield number, Query(*parts)


_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9_-]*)>")
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});")
_LABELS = {"num": re.compile(r"number\s*:", re.IGNORECASE), "title": re.compile(r"topic\s*:", re.IGNORECASE)}


class _Topic:
    """A <top> being read. A field ends where the next tag begins: SGML allows end tags to be left out."""

    def __init__(self, line: int) -> None:
        self.line = line
        self.fields: dict[str, list[str]] = {}
        self.open: str | None = None

    def start(self, tag: str) -> None:
        self.open = tag if tag in _LABELS else None
        if self.open in self.fields:
            raise ValueError(f"a second <{tag}>")
        if self.open:
            self.fields[self.open] = []

    def add(self, text: str) -> None:
        if self.open:
            self.fields[self.open].append(text)
            if sum(map(len, self.fields[self.open])) > 2 * MAX_QUERY_CHARACTERS:
                raise ValueError(f"a <{self.open}> of more than {2 * MAX_QUERY_CHARACTERS:,} characters")

    def query(self) -> Query:
        return Query(self._field("num"), self._field("title"))

    def _field(self, name: str) -> str:
        text = " ".join(" ".join(self.fields.get(name, [])).split())
        if label := _LABELS[name].match(text):
            text = text[label.end() :].strip()
        if not text:
            raise ValueError(f"no <{name}>")
        return _ENTITY.sub(lambda entity: html.unescape(entity.group()), text)


def _from_sgml(path: Path, lines: Lines) -> Iterator[tuple[int, Query]]:
    topic: _Topic | None = None
    found = False
    for number, line in lines:
        # Text, then repeatedly: an optional slash, a tag and the text after it.
        text, *rest = _TAG.split(line)
        if topic:
            with _named(path, topic):
                topic.add(text)
        for slash, tag, after in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
            name = tag.lower()
            if name == "top":
                if topic:
                    found = True
                    yield topic.line, _query(path, topic)
                topic = None if slash else _Topic(number)
            elif topic:
                with _named(path, topic):
                    topic.start("" if slash else name)
                    topic.add(after)
    if topic:
        found = True
        yield topic.line, _query(path, topic)
    if not found:
        raise UsageError(f"{path.name} begins like SGML, but has no <top>.", "Expected <top><num>…<title>…</top>.")


def _query(path: Path, topic: _Topic) -> Query:
    with _named(path, topic):
        return topic.query()


@contextlib.contextmanager
def _named(path: Path, topic: _Topic) -> Iterator[None]:
    """Raise errors in a topic as UsageError, with the line where the topic begins."""
    try:
        yield
    except ValueError as error:
        raise bad_line(
            path, topic.line, f"begins a topic with {error}.", "Expected <top><num>…<title>…</top>, once each."
        ) from None


def _plain_or_compressed(path: Path) -> Path | None:
    compressed = path.with_name(f"{path.name}.gz")
    return path if path.is_file() else compressed if compressed.is_file() else None
