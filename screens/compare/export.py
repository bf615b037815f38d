"""A comparison written to a file. An existing file is never overwritten."""

from __future__ import annotations

import csv
import datetime
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec.structs import asdict

from revector.core.errors import RefusedError
from revector.core.evaluation.judged_sets.judged_hits import JudgedHits
from revector.core.keys import document
from revector.core.overlap import Move, Overlap
from revector.core.retrieval import Comparison, Hit, SearchResult


class ComparedHit(Hit, frozen=True, kw_only=True):
    """A result of one of two versions."""

    primary_rank: Annotated[int | None, "null where the primary does not find it"]
    candidate_rank: Annotated[int | None, "null where the candidate does not find it"]
    grade: Annotated[int | None, "0 is not relevant; null where nobody judged it"]


@dataclass(frozen=True)
class Side:
    """The results of one of two versions."""

    query: Annotated[str, "what was searched for"]
    version_key: Annotated[str, "the version that answered"]
    hits: Annotated[list[ComparedHit], "the nearest first"]
    encode_ms: Annotated[float, "to encode the query"]
    search_ms: Annotated[float, "to search"]


@dataclass(frozen=True)
class Ndcg:
    """nDCG of both versions; None when nothing relevant is known."""

    k: Annotated[int, "the depth"]
    primary: Annotated[float | None, "null when nothing relevant is known"]
    candidate: Annotated[float | None, "null when nothing relevant is known"]


@dataclass(frozen=True)
class JudgedQuery:
    """Judgements on a query."""

    query_set: Annotated[str, "the set that has it"]
    query_id: Annotated[str, "its id there"]
    segment: Annotated[str, "its segment there"]
    level: Annotated[str, "what was judged: document or chunk"]
    judges: Annotated[tuple[str, ...], "who judged"]
    relevant: Annotated[int, "documents or chunks known to be relevant"]
    ndcg: Annotated[Ndcg, "of both versions"]


@dataclass(frozen=True)
class ComparisonDocument:
    """Two versions on one query: the output of `revector compare --json`, and the console's export."""

    query: Annotated[str, "what was searched for"]
    primary: Annotated[Side, "by default the active version"]
    candidate: Annotated[Side, "by default the newest other one"]
    overlap: Annotated[Overlap, "how alike both are"]
    overlap_by_depth: Annotated[list[float], "overlap@1 to overlap@k"]
    judged: Annotated[JudgedQuery | None, "null for a query of no query set"]


def write_comparison(comparison: Comparison, folder: Path, kind: str, judged: JudgedHits | None = None) -> Path:
    """Write a new file, `compare-<query>-<time>.json` (or .csv), into the folder; returns its path.

    Raises RefusedError when it cannot be written.
    """
    text = as_json(comparison, judged) if kind == "json" else as_csv(comparison, judged)
    return write_file(comparison.query, folder, kind, text)


def write_file(name: str, folder: Path, kind: str, text: str, *, prefix: str = "compare") -> Path:
    """Write a new file, `<prefix>-<name>-<time>.<kind>`. Raises RefusedError when that cannot be done."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "query"
    moment = datetime.datetime.now().astimezone()
    for number in range(1, 1_000):
        again = f"-{number}" if number > 1 else ""
        path = folder / f"{prefix}-{words}-{moment:%Y%m%d-%H%M%S}{again}.{kind}"
        try:
            with path.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
        except FileExistsError:
            continue
        except OSError as error:
            raise RefusedError(f"{path} cannot be written: {error.strerror}.") from None
        return path.resolve()
    raise RefusedError(f"A thousand files like {path.name} already exist.")


def as_json(comparison: Comparison, judged: JudgedHits | None = None) -> str:
    """One JSON document, that of `revector compare --json`."""
    return json.dumps(document(comparison_document(comparison, judged)), ensure_ascii=False, indent=2) + "\n"


def comparison_document(comparison: Comparison, judged: JudgedHits | None) -> ComparisonDocument:
    """A comparison with its judgements; None for a query outside of query sets."""
    return ComparisonDocument(
        comparison.primary.query,
        _side(comparison.primary, comparison.primary_moves, judged),
        _side(comparison.candidate, comparison.candidate_moves, judged),
        comparison.overlap,
        comparison.overlap_by_depth,
        _judged(judged) if judged else None,
    )


def _judged(judged: JudgedHits) -> JudgedQuery:
    query, ndcg = judged.query, Ndcg(judged.k, judged.primary_ndcg, judged.candidate_ndcg)
    return JudgedQuery(
        judged.query_set, query.id, query.segment, judged.level, judged.judges, judged.relevant, ndcg
    )


def _side(result: SearchResult, moves: list[Move], judged: JudgedHits | None) -> Side:
    grades = judged.grades if judged else {}
    hits = [
        ComparedHit(
            **asdict(hit), primary_rank=move.before, candidate_rank=move.after, grade=grades.get(hit.chunk_id)
        )
        for hit, move in zip(result.hits, moves, strict=True)
    ]
    return Side(result.query, result.version_key, hits, result.encode_ms, result.search_ms)


def as_csv(comparison: Comparison, judged: JudgedHits | None = None) -> str:
    """One line for each hit of either version; no grade for an unjudged hit."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(
        ["query", "side", "version_key", "primary_rank", "candidate_rank", "chunk_id", "semantic_key", "source_id",
         "distance", "grade", "content"]
    )  # fmt: skip
    writer.writerows(map(_no_formula, line) for line in _lines(comparison, judged))
    return file.getvalue()


def _no_formula(cell: object) -> object:
    """A spreadsheet calculates a text that begins like a formula; behind an apostrophe it is a text."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _lines(comparison: Comparison, judged: JudgedHits | None) -> Iterator[list[Any]]:
    for side, result, moves in (
        ("primary", comparison.primary, comparison.primary_moves),
        ("candidate", comparison.candidate, comparison.candidate_moves),
    ):
        for hit, move in zip(result.hits, moves, strict=True):
            yield [
                comparison.query, side, result.version_key, move.before, move.after, hit.chunk_id,
                hit.semantic_key, hit.source_id, hit.distance,
                judged.grades.get(hit.chunk_id) if judged else None, hit.content,
            ]  # fmt: skip
