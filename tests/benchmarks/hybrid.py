"""Hybrid search against the same search by vector alone, at the median, for queries from 2 words to 3,000.

The texts have a vocabulary as Zipf describes it: a few words are in most chunks, and most words in few. Each query is
searched in both ways in turn. Its vector is in the cache, so that the encoder is in neither time. The aim is at most
LIMIT times as long, however long the query. A -word and a phrase are conditions, and are shown
for themselves.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from revector.core.database import Connection
from revector.core.registry import get_version
from revector.core.retrieval import Retriever
from tests.benchmarks.measure import own_database, show_table, tell
from tests.versions import ready_version

CHUNKS = 50_000
SPEC = "static:wordllama-256"
K = 10
LIMIT = 3.0
VOCABULARY = 60_000
QUERIES = 20
OPERATORS = ("8 words, one of them excluded", "a phrase of 2 words, and 6 words")
_BATCH = 1_000
_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]


def run(rounds: int) -> None:
    """Measure, and print the medians by shape of query and how many times as long the hybrid search takes."""
    texts = zipf_texts(CHUNKS)
    with own_database("bench") as database, database.session("bench") as connection:
        fill(connection, texts)
        ready_version(database, connection, "v1", SPEC)
        connection.execute(
            "UPDATE embedding_versions SET active = true WHERE id = %s", [get_version(connection, "v1").id]
        )
        rows, worst = [], 0.0
        with Retriever(database) as retriever:
            for name, queries in shapes(texts).items():
                near, fused = _in_turns(
                    queries,
                    rounds,
                    lambda query: len(retriever.search(query, K, timeout_s=60).hits),
                    lambda query: len(retriever.search(query, K, hybrid=True, timeout_s=60).hits),
                )
                ratio = statistics.median(fused) / statistics.median(near)
                worst = max(worst, ratio if name not in OPERATORS else 0)
                rows.append([
                    name, f"{1000 * statistics.median(near):.2f}", f"{1000 * statistics.median(fused):.2f}",
                    f"{1000 * float(np.quantile(fused, 0.95)):.2f}", f"× {ratio:.2f}",
                ])  # fmt: skip
    show_table(
        f"one search of {CHUNKS:,} chunks, {SPEC}, k {K}",
        ("vector alone, ms", "hybrid, ms", "hybrid p95", "hybrid takes"),
        rows,
    )
    tell(f"{'within' if worst <= LIMIT else 'ABOVE'} the limit of × {LIMIT:g}: × {worst:.2f} at most")


def zipf_texts(number: int) -> list[str]:
    """Texts of 60 to 200 words; the nth most common word is drawn with a probability of about 1/n."""
    draw = np.random.default_rng(7)
    made: dict[str, None] = {}
    while len(made) < VOCABULARY:
        made["".join(draw.choice(_SYLLABLES, draw.integers(2, 5)))] = None
    words = np.array(list(made))
    share = 1 / (np.arange(VOCABULARY) + 2.7)
    lengths = draw.integers(60, 200, number)
    drawn = words[np.searchsorted(np.cumsum(share / share.sum())[:-1], draw.random(int(lengths.sum())))]
    return [" ".join(part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]


def shapes(texts: Sequence[str]) -> dict[str, list[str]]:
    """Queries of each shape, made of the words of some chunks."""
    draw = np.random.default_rng(3)

    def words(number: int) -> list[str]:
        found: list[str] = []
        while len(found) < number:
            found += texts[int(draw.integers(len(texts)))].split()
        return [str(word) for word in draw.permutation(found)[:number]]

    made = {f"{number} words": [" ".join(words(number)) for _ in range(QUERIES)] for number in (2, 17, 60, 200)}
    made["one word 3,000 times"] = [" ".join(words(1) * 3_000) for _ in range(QUERIES)]
    made[OPERATORS[0]] = [" ".join(["-" + words(1)[0], *words(7)]) for _ in range(QUERIES)]
    phrases = [texts[int(place)].split() for place in draw.integers(len(texts), size=QUERIES)]
    made[OPERATORS[1]] = [f'"{" ".join(text[:2])}" {" ".join(words(6))}' for text in phrases]
    return made


def fill(connection: Connection, texts: Sequence[str]) -> None:
    """Insert the texts, one chunk a document, in batches as an ingest does."""
    for start in range(0, len(texts), _BATCH):
        connection.execute(
            """
            INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256, source_id)
            SELECT 'key-' || n, md5(n::text)::uuid, 0, content, sha256(convert_to(content, 'UTF8')), 'doc-' || n
            FROM unnest(%(texts)s::text[]) WITH ORDINALITY AS given (content, place), LATERAL (
                SELECT place + %(start)s AS n) AS numbered
            """,
            {"texts": list(texts[start : start + _BATCH]), "start": start},
        )
    connection.execute("VACUUM ANALYZE document_chunks")


def _in_turns(queries: Sequence[str], rounds: int, *ways: Callable[[str], int]) -> tuple[list[float], list[float]]:
    """The seconds of each way's searches, each query by both in turn. The first round is warm-up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for place, query in enumerate(queries):
            for which in (0, 1) if (place + number) % 2 else (1, 0):
                start = time.perf_counter()
                if ways[which](query) != K:
                    raise RuntimeError(f"a search found fewer than {K} chunks")
                took = time.perf_counter() - start
                if number:
                    seconds[which].append(took)
    return seconds
