"""Queries in files: BEIR's queries.jsonl, and TREC's topics as columns or in their SGML."""

from __future__ import annotations

import contextlib
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

from revector.core.documents.kinds import COMPRESSED
from revector.core.errors import UsageError
from revector.core.evaluation.files.lines import (
    QUERY_ID_NAMES,
    Lines,
    bad_line,
    comma_columns,
    header_names,
    look_ahead,
    read_lines,
)
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
    - TREC: a line is `id<TAB>text`, or with the segment as a third column. A header says where they are
      (`qid`, `query` and others), in CSV too.
    - TREC's SGML: <top> with <num> and <title>; the title is the query. CLEF's <top lang="…"> and <EN-title>, and
      XML as the web track's: <topic number="…"> with <query>.

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


_TEXT_NAMES = frozenset({"text", "query", "title", "question", "querytext"})
_EXPECTED = "Expected an id, the text and perhaps a segment, by tabs; JSON lines as BEIR's; or TREC's <top>."


def _from_columns(path: Path, lines: Lines) -> Iterator[tuple[int, Query]]:
    first, lines = look_ahead(lines)
    commas = "\t" not in first and header_places(comma_columns(first)) is not None
    places: list[int] | None = None
    for position, (number, line) in enumerate(lines):
        parts = comma_columns(line) if commas else line.split("\t")
        if position == 0 and (places := header_places(parts)) is not None:
            width = len(parts)
            continue
        if places is not None and len(parts) != width:
            raise bad_line(
                path, number, f"is not a query: it has {len(parts)} columns, the header {width}.", _EXPECTED
            )
        if places is None and len(parts) not in (2, 3):
            raise bad_line(path, number, f"is not a query: it has {len(parts)} columns.", _EXPECTED)
        yield number, Query(*(parts if places is None else [parts[place] for place in places]))


def header_places(parts: list[str]) -> list[int] | None:
    """Where a header has the id, the text and the segment, if there is one; None for what is no header."""
    names = header_names(parts)
    ids = [place for place, name in enumerate(names) if name in QUERY_ID_NAMES - {"query"}]
    texts = [place for place, name in enumerate(names) if name in _TEXT_NAMES]
    if not (ids and texts):
        return None
    return [ids[0], texts[0], *([names.index("segment")] if "segment" in names else [])]


_TAG = re.compile(r"""<(/?)([A-Za-z][A-Za-z0-9_-]*)((?:\s+[\w:-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'))*)\s*/?>""")
_NUMBER = re.compile(r"""\b(?:number|num|id)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});")
_LABELS = {"num": re.compile(r"number\s*:", re.IGNORECASE), "title": re.compile(r"topic\s*:", re.IGNORECASE)}
_FIELDS = {"num": "num", "identifier": "num", "title": "title", "query": "query"}
_LANGUAGE = re.compile(r"[a-z]{2}-(?=title$)")
"""CLEF names a field after its language: <EN-title>."""
_SGML = 'Expected <top><num>…<title>…</top>, once each, or <topic number="…"><query>…</query></topic>.'
_TOPICS = ("top", "topic")


class _Topic:
    """A <top> being read. A field ends where the next tag begins: SGML allows end tags to be left out."""

    def __init__(self, line: int, name: str, attributes: str) -> None:
        self.line = line
        self.name = name
        number = _NUMBER.search(attributes)
        self.fields: dict[str, list[str]] = {"num": [number[1] or number[2] or ""]} if number else {}
        self.open: str | None = None

    def start(self, tag: str) -> None:
        self.open = _FIELDS.get(_LANGUAGE.sub("", tag))
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
        return Query(self._field("num"), self._field("title" if "title" in self.fields else "query"))

    def _field(self, name: str) -> str:
        text = " ".join(" ".join(self.fields.get(name, [])).split())
        if name in _LABELS and (label := _LABELS[name].match(text)):
            text = text[label.end() :].strip()
        if not text:
            raise ValueError(f"no <{name if name == 'num' else 'title'}>")
        return _ENTITY.sub(lambda entity: html.unescape(entity.group()), text)


def _from_sgml(path: Path, lines: Lines) -> Iterator[tuple[int, Query]]:
    topic: _Topic | None = None
    found = False
    for number, line in lines:
        # Text, then repeatedly: an optional slash, a tag, its attributes and the text after it.
        text, *rest = _TAG.split(line)
        if topic:
            with _named(path, topic):
                topic.add(text)
        for slash, tag, attributes, after in zip(rest[::4], rest[1::4], rest[2::4], rest[3::4], strict=True):
            name = tag.lower()
            if name == topic.name if topic else name in _TOPICS:
                if topic:
                    found = True
                    yield topic.line, _query(path, topic)
                topic = None if slash else _Topic(number, name, attributes)
            elif topic:
                with _named(path, topic):
                    topic.start("" if slash else name)
                    topic.add(after)
    if topic:
        found = True
        yield topic.line, _query(path, topic)
    if not found:
        raise UsageError(f"{path.name} begins like SGML, but has no <top> or <topic>.", _SGML)


def _query(path: Path, topic: _Topic) -> Query:
    with _named(path, topic):
        return topic.query()


@contextlib.contextmanager
def _named(path: Path, topic: _Topic) -> Iterator[None]:
    """Raise errors in a topic as UsageError, with the line where the topic begins."""
    try:
        yield
    except ValueError as error:
        raise bad_line(path, topic.line, f"begins a topic with {error}.", _SGML) from None


def _plain_or_compressed(path: Path) -> Path | None:
    names = (path.with_name(f"{path.name}{end}") for end in ("", *COMPRESSED))
    return next((name for name in names if name.is_file()), None)
