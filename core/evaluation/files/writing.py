"""Query sets, judgements and runs as lines of text, and writing them to files without overwriting unasked.

What a layout cannot hold is refused, so every written file can be read back unchanged.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from revector.core.errors import RefusedError, UsageError
from revector.core.evaluation.files.lines import BLANKS
from revector.core.evaluation.files.qrels import BEIR_HEADER
from revector.core.evaluation.files.topics import header_places
from revector.core.evaluation.judged_sets.query_sets import WHOLE_SET, Query
from revector.core.text import quote

Grades = Iterable[tuple[str, str, int]]
"""Query id, target and grade."""


def beir_queries(queries: Iterable[Query]) -> Iterator[str]:
    """The lines of queries.jsonl."""
    for query in queries:
        metadata = {} if query.segment == WHOLE_SET else {"segment": query.segment}
        yield json.dumps({"_id": query.id, "text": query.text, "metadata": metadata}, ensure_ascii=False)


def beir_qrels(grades: Grades) -> Iterator[str]:
    """The lines of a qrels file with its header."""
    yield "\t".join(BEIR_HEADER)
    for query, target, grade in grades:
        yield "\t".join((_held(query, "\t\r\n", "BEIR"), _held(target, "\t\r\n", "BEIR"), str(grade)))


def trec_topics(queries: Iterable[Query]) -> Iterator[str]:
    """`id<TAB>text`, and the segment as a third column where there is one."""
    for number, query in enumerate(queries):
        parts = [query.id, query.text] + ([query.segment] if query.segment != WHOLE_SET else [])
        # The file would be read as JSON or SGML, lose its first character as a byte order mark, or its first line as a
        # header.
        unreadable = query.id.lstrip().startswith(("{", "<", "\ufeff")) or header_places(parts) is not None
        if number == 0 and unreadable:
            raise _cannot_hold(query.id, "TREC")
        yield "\t".join(_held(part, "\t\r\n", "TREC") for part in parts)


def trec_qrels(grades: Grades) -> Iterator[str]:
    """`query 0 target grade`."""
    for number, (query, target, grade) in enumerate(grades):
        if number == 0 and query.startswith("\ufeff"):
            raise _cannot_hold(query, "TREC")
        yield " ".join(
            (_held(query, BLANKS + "\n", "TREC"), "0", _held(target, BLANKS + "\n", "TREC"), str(grade))
        )


def trec_run(rankings: Mapping[str, Sequence[str]], tag: str) -> Iterator[str]:
    """`query Q0 target rank score tag`, best first.

    The score counts down to 1: trec_eval sorts by it and not by the rank, and distances may tie.
    """
    for query, targets in rankings.items():
        for rank, target in enumerate(targets, 1):
            held = (_held(text, BLANKS + "\n", "TREC") for text in (query, target))
            yield " ".join((next(held), "Q0", next(held), str(rank), str(len(targets) - rank + 1), tag))


def write_files(files: Mapping[Path, Iterable[str]], *, overwrite: bool = False) -> None:
    """Write lines into files, creating folders; when one fails, none is left behind.

    Raises RefusedError naming an existing file unless told to overwrite, and UsageError for one that cannot be
    written.
    """
    if not overwrite and (there := [path for path in files if path.exists()]):
        raise _exists(there[0])
    parts = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in files}
    claimed: list[Path] = []
    try:
        for path, lines in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with parts[path].open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(f"{line}\n" for line in lines)
        for path, part in parts.items():
            if not overwrite:
                try:
                    path.touch(exist_ok=False)
                except FileExistsError:
                    raise _exists(path) from None
                claimed.append(path)
            part.replace(path)
        claimed.clear()
    except (OSError, ValueError) as error:  # ValueError: a NUL in a name
        raise UsageError(f"The export cannot be written: {error}") from None
    finally:
        for path in (*parts.values(), *claimed):
            with contextlib.suppress(OSError, ValueError):
                path.unlink(missing_ok=True)


def _exists(path: Path) -> RefusedError:
    return RefusedError(f"{path} already exists. Nothing was written.", "Choose another folder, or --overwrite.")


def _held(text: str, forbidden: str, layout: str) -> str:
    if not text or any(character in text for character in forbidden):
        raise _cannot_hold(text, layout)
    return text


def _cannot_hold(text: str, layout: str) -> UsageError:
    other = "Use --format beir." if layout == "TREC" else "Change the id at its source."
    return UsageError(
        f"The layout of {layout} cannot hold {quote(text)}: it would be read as something else.", other
    )
