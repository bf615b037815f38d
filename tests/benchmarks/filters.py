"""Searches with a filter, by how many of 50,000 chunks match: recall, and time against comparing all that match.

Vectors lie in clusters, as those of texts do; what matches is spread over all of them.
"""

from __future__ import annotations

import statistics
import time
from unittest import mock

import numpy as np

from revector.core.retrieval import check_options, search_vector, statements
from tests.benchmarks.measure import own_database, show_table
from tests.core.retrieval.collections import chunks_with_metadata, drawn_version

CHUNKS, DIMENSIONS, CLUSTERS = 50_000, 256, 300
PARTS = {500: 100, 1_250: 40, 2_500: 20, 3_333: 15, 5_000: 10, 10_000: 5}
"""How many chunks match: one in so many."""
QUERIES = 100
K = 10


def run(rounds: int) -> None:
    """Measure and print; `rounds` is not used."""
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((CLUSTERS, DIMENSIONS), dtype=np.float32)
    vectors = centres[rng.integers(0, CLUSTERS, CHUNKS)]
    vectors += 0.7 * rng.standard_normal((CHUNKS, DIMENSIONS), dtype=np.float32)
    queries = vectors[rng.integers(0, CHUNKS, QUERIES)]
    queries += 0.1 * rng.standard_normal((QUERIES, DIMENSIONS), dtype=np.float32)
    metadata = ", ".join(f"'one_in_{part}', (n * 7919) % {part}" for part in PARTS.values())
    with own_database("bench") as database, database.session("bench") as connection:
        chunks_with_metadata(connection, CHUNKS, f"jsonb_build_object({metadata})")
        version = drawn_version(connection, "v1", vectors)
        connection.execute("ANALYZE")
        rows = []
        for matching, part in PARTS.items():
            options = check_options(K, where={f"one_in_{part}": 3})
            seconds: dict[str, list[float]] = {"exact": [], "as it is": []}
            found = 0
            for query in queries:
                hits = {}
                for name, most in (("exact", CHUNKS), ("as it is", statements.EXACT_ROWS)):
                    with mock.patch.object(statements, "EXACT_ROWS", most):
                        start = time.perf_counter()
                        answer, _ = search_vector(connection, version, query, options)
                        seconds[name].append(time.perf_counter() - start)
                    hits[name] = {hit.chunk_id for hit in answer}
                found += len(hits["exact"] & hits["as it is"])
            took, exact = (statistics.median(seconds[name]) for name in ("as it is", "exact"))
            rows.append(
                (f"{matching:,} match", f"{found / QUERIES / K:.3f}", f"{1000 * took:.1f}", f"{took / exact:.2f}")
            )
    show_table(
        f"{CHUNKS:,} × {DIMENSIONS} in {CLUSTERS} clusters, top-{K}", ("recall", "ms median", "time / exact"), rows
    )
