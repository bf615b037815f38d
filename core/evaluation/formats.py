"""Query sets in files: queries with segments, and their judgements, in the BEIR layout."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import UsageError
from core.evaluation.queries import Query


@dataclass(frozen=True)
class JudgedQueries:
    """Queries and their judgements: query id → source id of a document → grade (0 is not relevant)."""

    queries: tuple[Query, ...]
    qrels: Mapping[str, Mapping[str, int]]


def read_beir(queries: Path, qrels: Path) -> JudgedQueries:
    """Read queries.jsonl (`_id`, `text`, `metadata.segment`) and a qrels .tsv (query-id, corpus-id, score).

    Raises UsageError naming file and line for what cannot be read.
    """
    return JudgedQueries(tuple(_read_queries(queries)), _read_qrels(qrels))


def _read_queries(path: Path) -> list[Query]:
    found = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            segment = (row.get("metadata") or {}).get("segment", "all")
            found.append(Query(str(row["_id"]), str(row["text"]), str(segment)))
        except (ValueError, KeyError, AttributeError, TypeError):
            raise UsageError(
                f"{path.name}:{number} is no query.", 'Expected {"_id": …, "text": …, "metadata": {"segment": …}}.'
            ) from None
    return found


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for number, row in enumerate(csv.reader(_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE), 1):
        if not row or (number == 1 and row[0] == "query-id"):
            continue
        try:
            query, document, grade = row
            found.setdefault(query, {})[document] = int(grade)
        except ValueError:
            raise UsageError(
                f"{path.name}:{number} is no judgement.",
                "Expected query-id, corpus-id and a whole number, by tabs.",
            ) from None
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
