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

from core.errors import RefusedError
from core.overlap import Move
from core.retrieval import Comparison, SearchResult


def write_comparison(comparison: Comparison, folder: Path, kind: str) -> Path:
    """Write a new file, `compare-<query>-<time>.json` (or .csv), into the folder; returns its path.

    Raises RefusedError when it cannot be written.
    """
    text = as_json(comparison) if kind == "json" else as_csv(comparison)
    words = re.sub(r"[^a-z0-9]+", "-", comparison.query.lower()).strip("-")[:40] or "query"
    moment = datetime.datetime.now().astimezone()
    for number in range(1, 1_000):
        again = f"-{number}" if number > 1 else ""
        path = folder / f"compare-{words}-{moment:%Y%m%d-%H%M%S}{again}.{kind}"
        try:
            with path.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
        except FileExistsError:
            continue
        except OSError as error:
            raise RefusedError(f"The comparison cannot be written to {path}: {error.strerror}.") from None
        return path.resolve()
    raise RefusedError(f"There are a thousand files like {path.name} already.")


def as_json(comparison: Comparison) -> str:
    """One JSON document, with the fields of `revector compare --json`."""
    document = {
        "query": comparison.query,
        "k": comparison.k,
        "primary": _side(comparison.primary, comparison.primary_moves),
        "candidate": _side(comparison.candidate, comparison.candidate_moves),
        "overlap": asdict(comparison.overlap),
        "overlap_by_depth": comparison.overlap_by_depth,
    }
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _side(result: SearchResult, moves: list[Move]) -> dict[str, Any]:
    return {
        "version_key": result.version_key,
        "encode_s": result.encode_s,
        "search_s": result.search_s,
        "hits": [
            {**asdict(hit), "primary_rank": move.before, "candidate_rank": move.after}
            for hit, move in zip(result.hits, moves, strict=True)
        ],
    }


def as_csv(comparison: Comparison) -> str:
    """One line for each hit of either version."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(
        ["query", "side", "version_key", "primary_rank", "candidate_rank", "chunk_id", "semantic_key", "source_id",
         "distance", "content"]
    )  # fmt: skip
    writer.writerows(_lines(comparison))
    return file.getvalue()


def _lines(comparison: Comparison) -> Iterator[list[Any]]:
    for side, result, moves in (
        ("primary", comparison.primary, comparison.primary_moves),
        ("candidate", comparison.candidate, comparison.candidate_moves),
    ):
        for hit, move in zip(result.hits, moves, strict=True):
            yield [
                comparison.query, side, result.version_key, move.before, move.after, hit.chunk_id,
                hit.semantic_key, hit.source_id, hit.distance, hit.content,
            ]  # fmt: skip
