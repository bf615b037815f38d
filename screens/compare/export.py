"""A comparison written to a file. An existing file is never overwritten."""

from __future__ import annotations

import csv
import datetime
import io
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from revector.core.errors import RefusedError
from revector.core.evaluation.judged_sets.judged_hits import JudgedHits
from revector.core.overlap import Move
from revector.core.retrieval import Comparison, SearchResult


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
    raise RefusedError(f"There are a thousand files like {path.name} already.")


def as_json(comparison: Comparison, judged: JudgedHits | None = None) -> str:
    """One JSON document, with the fields of `revector compare --json`."""
    document = {
        "query": comparison.query,
        "k": comparison.k,
        "primary": _side(comparison.primary, comparison.primary_moves, judged),
        "candidate": _side(comparison.candidate, comparison.candidate_moves, judged),
        "overlap": asdict(comparison.overlap),
        "overlap_by_depth": comparison.overlap_by_depth,
        "judged": judged_document(judged),
    }
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def judged_document(judged: JudgedHits | None) -> dict[str, Any] | None:
    """What judges say of the query in JSON, None for a query of no set."""
    if judged is None:
        return None
    return {
        "query_set": judged.query_set,
        "query_id": judged.query.id,
        "segment": judged.query.segment,
        "level": judged.level,
        "judges": list(judged.judges),
        "relevant": judged.relevant,
        "ndcg": {"k": judged.k, "primary": judged.primary_ndcg, "candidate": judged.candidate_ndcg},
    }


def _side(result: SearchResult, moves: list[Move], judged: JudgedHits | None) -> dict[str, Any]:
    return {
        "version_key": result.version_key,
        "encode_s": result.encode_s,
        "search_s": result.search_s,
        "hits": [
            {
                **asdict(hit),
                "primary_rank": move.before,
                "candidate_rank": move.after,
                "grade": judged.grades.get(hit.chunk_id) if judged else None,
            }
            for hit, move in zip(result.hits, moves, strict=True)
        ],
    }


def as_csv(comparison: Comparison, judged: JudgedHits | None = None) -> str:
    """One line for each hit of either version; no grade where nobody judged it."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(
        ["query", "side", "version_key", "primary_rank", "candidate_rank", "chunk_id", "semantic_key", "source_id",
         "distance", "grade", "content"]
    )  # fmt: skip
    writer.writerows(_lines(comparison, judged))
    return file.getvalue()


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
