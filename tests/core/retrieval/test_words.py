"""The list by words of a hybrid search: BM25, its statistics, its operators, and the work that it may do."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence

import pytest

from revector.core.database import Connection, Database, fetch_column, fetch_one
from revector.core.encoders import open_encoder
from revector.core.retrieval import Retriever, VersionSearcher
from revector.core.retrieval.query_text import each_word_once, excludes, without_operators
from tests.core.retrieval.collections import two_versions
from tests.versions import add_chunks

K1, B = 1.2, 0.75
FRUIT = ["apple", "pear", "plum", "cherry", "quince", "medlar", "fig", "olive"]


def insert(connection: Connection, texts: Sequence[str]) -> list[int]:
    """Chunks with these texts, by one statement."""
    return fetch_column(
        connection,
        """
        INSERT INTO document_chunks (semantic_key, document_id, chunk_no, content, content_sha256)
        SELECT gen_random_uuid()::text, gen_random_uuid(), 0, content, sha256(convert_to(content, 'UTF8'))
        FROM unnest(%s::text[]) AS content RETURNING id
        """,
        [list(texts)],
    )


def by_words(connection: Connection, query: str, most: int = 100) -> list[int]:
    rows = connection.execute("SELECT chunk_id FROM chunks_by_words(%s, %s)", [query, most]).fetchall()
    return [row[0] for row in rows]


def texts_by_words(connection: Connection, query: str) -> list[str]:
    """The texts of the list, in alphabetical order."""
    return fetch_column(
        connection,
        "SELECT content FROM chunks_by_words(%s, 100) w JOIN document_chunks c ON c.id = w.chunk_id ORDER BY content",
        [query],
    )


def bm25(texts: Sequence[str], query: Sequence[str]) -> list[float]:
    """The formula as the paper has it; a text's length is the number of its different words."""
    words = [text.split() for text in texts]
    average = sum(len(set(each)) for each in words) / len(words)
    scores = [0.0] * len(texts)
    for word in query:
        found = sum(word in each for each in words)
        idf = math.log(1 + (len(texts) - found + 0.5) / (found + 0.5))
        for place, each in enumerate(words):
            often = each.count(word)
            norm = K1 * (1 - B + B * len(set(each)) / average)
            scores[place] += idf * often * (K1 + 1) / (often + norm)
    return scores


def test_it_is_bm25(database: Database, connection: Connection) -> None:
    chosen = random.Random(1)  # noqa: S311
    texts = [" ".join(chosen.choices(FRUIT, range(8, 0, -1), k=chosen.randint(1, 60))) for _ in range(300)]
    ids = insert(connection, texts)
    query = ["fig", "olive", "apple", "apple", "walnut"]
    expected = {chunk: score for chunk, score in zip(ids, bm25(texts, query[:3]), strict=True) if score}
    found = connection.execute("SELECT * FROM chunks_by_words(%s, 1000)", [" ".join(query)]).fetchall()
    assert dict(found) == pytest.approx(expected)
    assert [row[0] for row in found] == sorted(expected, key=lambda chunk: (-expected[chunk], chunk))


@pytest.mark.parametrize("often", [1, 2, 3, 17, 200, 255])
def test_how_often_a_word_occurs_is_had_from_ts_rank(connection: Connection, often: int) -> None:
    found = fetch_one(connection, "SELECT bm25(to_tsvector('english', repeat('fig ', %s)), 'fig', 1.2)", [often])[
        0
    ]
    assert found == pytest.approx(often / (often + 1.2))


def test_a_rare_word_is_found_beside_a_common_one(database: Database, connection: Connection) -> None:
    insert(connection, [f"the system of number {number}" for number in range(2_900)])
    [rare] = insert(connection, ["a zylophon"])
    insert(connection, [f"another system, number {number}" for number in range(2_900)])
    assert by_words(connection, "system zylophon")[0] == rare
    assert by_words(connection, "zylophon system " * 1_500)[0] == rare
    assert len(by_words(connection, "system", 50)) == 50


def test_the_work_does_not_grow_with_the_query(database: Database, connection: Connection) -> None:
    """Counted in chunks that are read, of 6,000: a word is in 6 to 6,000 of them."""
    words = [f"w{number}x" for number in range(1, 1_000)]
    insert(connection, [" ".join(word for n, word in enumerate(words, 1) if i % n == 0) for i in range(1, 6_001)])

    def read(query: Sequence[str]) -> int:
        counted = "SELECT pg_stat_get_xact_tuples_fetched('document_chunks'::regclass)"
        with connection.transaction():
            before = fetch_one(connection, counted)[0]
            assert by_words(connection, " ".join(query))
            return int(fetch_one(connection, counted)[0] - before)

    for many in (1, 2, 17, 60, 200, 999):
        for chosen in (words[:many], words[-many:], words[:: len(words) // many]):
            assert 0 < read(chosen) < 2_000, chosen
    assert read(words[100:101] * 3_000) == read(words[100:101])


@pytest.mark.parametrize("part", ["a_", "~/", "1_", "é_", "<!--", '"a_', "-b_", "b ", "a_b-c/", "b.", '"'])
def test_what_is_read_of_a_query_is_bounded(connection: Connection, part: str) -> None:
    """Postgres' parser takes quadratic time for one long token, and for a comment that does not end."""
    [read] = fetch_column(connection, "SELECT readable(%s)", [part * 15_000])
    assert len(read) <= 2_000
    assert max(map(len, re.split(r'[\s"]', read))) <= 100
    assert "<!--" not in read
    assert read.startswith(part[:-1].replace("<!-", " -"))


@pytest.mark.parametrize("pattern", ["{}", "-{}", "{} OR", '"{}" OR', '-"{} {}"', '"{}-{}"', '"a" {} OR -b'])
def test_operators_are_read_up_to_a_limit(connection: Connection, pattern: str) -> None:
    query = '"a b" OR ' + " ".join(pattern.format(f"w{number}x", "file") for number in range(3_000))
    nodes = connection.execute(
        "SELECT coalesce(numnode(wanted), 0), coalesce(numnode(condition), 0), coalesce(numnode(excluded), 0) "
        "FROM read_query(%s)",
        [query],
    ).fetchone()
    assert nodes is not None
    assert max(nodes) < 150


def test_beyond_the_limit_words_count_and_conditions_do_not(connection: Connection) -> None:
    insert(connection, ["green tea", "black tea", "tea with sugar", "coffee"])
    many = " ".join(f"-w{number}x" for number in range(15))
    assert texts_by_words(connection, f"{many} -green tea -sugar") == ["black tea", "tea with sugar"]
    assert texts_by_words(connection, f'{many} -green "with sugar" tea') == ["black tea", "tea with sugar"]
    assert texts_by_words(connection, f'{many} "with sugar" tea') == ["tea with sugar"]
    assert texts_by_words(connection, "coffee -" + "tea_" * 100) == ["coffee"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("green tea", ["black tea", "green tea", "green tea with milk", "tea green", "tea with sugar"]),
        ('"green tea"', ["green tea", "green tea with milk"]),
        ('"green tea" milk', ["green tea", "green tea with milk"]),
        ("tea -green", ["black tea", "tea with sugar"]),
        ("tea -green -sugar", ["black tea"]),
        ('tea -"green tea"', ["black tea", "tea green", "tea with sugar"]),
        ('"green tea" OR sugar', ["green tea", "green tea with milk", "tea with sugar"]),
        ('"green tea" -milk or "tea with sugar"', ["green tea", "tea with sugar"]),
        ("milk OR sugar", ["green tea with milk", "tea with sugar"]),
        ("tea - green", ["black tea", "green tea", "green tea with milk", "tea green", "tea with sugar"]),
        ('"green', ["green tea", "green tea with milk", "tea green"]),
        ('""', []),
        ("-green", []),
        ("the of and", []),
        ("-the tea", ["black tea", "green tea", "green tea with milk", "tea green", "tea with sugar"]),
        ('sugar" -" --milk', ["green tea with milk", "tea with sugar"]),
        ("&|! <-> :*'\\ sugar\\'", ["tea with sugar"]),
    ],
)
def test_operators(connection: Connection, query: str, expected: list[str]) -> None:
    insert(connection, ["green tea", "black tea", "green tea with milk", "tea green", "tea with sugar", "coffee"])
    assert texts_by_words(connection, query) == expected


def test_nothing_is_left_out_that_websearch_finds(connection: Connection) -> None:
    """For operators in every combination: what matches strictly is in the list, whatever else is."""
    chosen = random.Random(2)  # noqa: S311
    insert(connection, [" ".join(chosen.choices(FRUIT[:5], k=chosen.randint(1, 6))) for _ in range(200)])
    found = 0
    for _ in range(300):
        parts = [
            chosen.choice(["", "", "-"]) + chosen.choice(["{}", "{}", '"{} {}"', "{}-{}", "OR"])
            for _ in range(chosen.randint(1, 6))
        ]
        query = " ".join(part.format(*chosen.choices(FRUIT[:6], k=2)) for part in parts)
        strictly = fetch_column(
            connection,
            """
            SELECT c.id FROM document_chunks c, websearch_to_tsquery('english', %(query)s) AS q
            WHERE c.content_tsv @@ q AND c.content_tsv @@ any_of((read_query(%(query)s)).words)
            """,
            {"query": query},
        )
        assert set(strictly) <= set(by_words(connection, query, 1_000)), query
        found += bool(strictly)
    assert found > 80


def test_no_hit_contains_an_excluded_word(database: Database, connection: Connection) -> None:
    """However near its vector is: with few chunks left, with many, and beside a filter."""
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    two_versions(database, connection, [f"{a} {b} {c}" for a in numbers for b in numbers for c in numbers[:8]])
    connection.execute("UPDATE document_chunks SET metadata = '{\"a\": 1}' WHERE id % 2 = 0")
    searcher = VersionSearcher(connection)
    with Retriever(database) as retriever:
        for query in ("seven -eight", 'seven -eight -"seven seven"', "seven -one -two -three -four -five -six"):
            for where in (None, {"a": 1}):
                hits = retriever.search(query, 20, hybrid=True, where=where).hits
                assert hits
                assert hits == searcher.search(query, 20, hybrid=True, where=where).hits
                for hit in hits:
                    assert "eight" not in hit.content or "-eight" not in query
                    assert "seven seven" not in hit.content or "seven seven" not in query
                    assert "two" not in hit.content or "-two" not in query
        assert "eight" in " ".join(hit.content for hit in retriever.search("seven eight", 20, hybrid=True).hits)


@pytest.mark.parametrize(
    "query",
    [
        "the of",
        "-seven",
        '-"seven three"',
        '"',
        '"seven',
        "- -",
        "🙂 seven",
        "se\0ven",
        "seven " * 3_000,
        "a_" * 15_000,
        '"' + "a_" * 15_000,
        "seven -" + "a_" * 14_000,
        "-🙂",
        "OR",
    ],
)
def test_odd_queries_find_something(database: Database, connection: Connection, query: str) -> None:
    two_versions(database, connection, ["seven and three", "one and two", "six"])
    with Retriever(database) as retriever:
        assert retriever.search(query, 3, hybrid=True).hits
    assert VersionSearcher(connection).search(query, 3, hybrid=True).hits


def test_the_encoder_gets_no_operators(database: Database, connection: Connection) -> None:
    two_versions(database, connection, ["tea", "milk", "tea with milk"])
    vector = open_encoder("static:wordllama-64").encode_query("tea")
    with Retriever(database) as retriever:
        nearest = retriever.search_vector(vector, "v1", 1).hits[0]
        assert retriever.search("tea -milk", 1, hybrid=True).hits[0].distance == pytest.approx(nearest.distance)
    for text, left in (
        ("tea -milk", "tea"),
        ('"green tea" -"with milk" please', "green tea  please"),
        ("-milk", "-milk"),
        ("green-tea - it's --nice", "green-tea - it's --nice"),
        ("a OR b", "a OR b"),
    ):
        assert without_operators(text) == left
    assert each_word_once("to be or not to be") == "to be or not"
    assert each_word_once('a "a b" OR a OR b') == 'a "a b" OR a OR b'
    assert [excludes(text) for text in ("a -b", '-"b', "a - b", "a-b", "--b", "(-b)", '"-b"', "a")] == [
        True, True, False, False, False, True, False, False,
    ]  # fmt: skip


# -- how common words are ------------------------------------------------------------------------------------


def statistics(connection: Connection) -> list[tuple[int, int]]:
    """Of each row the chunks, and how many words are counted."""
    return connection.execute(
        """
        SELECT s.chunks, count(w.word) FROM word_statistics s LEFT JOIN word_counts w ON w.statistics_id = s.id
        GROUP BY s.id ORDER BY s.id
        """
    ).fetchall()


def test_words_are_counted_when_the_collection_has_doubled(connection: Connection) -> None:
    insert(connection, ["apple"] * 900)
    assert statistics(connection) == []
    insert(connection, ["apple pear"] * 400 + ["fig", "fig"])
    assert statistics(connection) == [(1_302, 2)]
    counted = dict(connection.execute("SELECT word, chunks FROM word_counts").fetchall())
    assert counted == pytest.approx({"appl": 1_300, "pear": 400}, rel=0.5)
    insert(connection, ["plum"] * 1_200)
    assert statistics(connection) == [(1_302, 2)]
    insert(connection, ["plum"] * 200)
    assert statistics(connection) == [(2_702, 3)]
    add_chunks(connection, ["quince", "quince and apple"])
    connection.execute("DELETE FROM document_chunks")
    assert statistics(connection) == [(2_702, 3)]
    assert by_words(connection, "apple quince") == []


def test_a_large_collection_is_sampled(connection: Connection) -> None:
    insert(connection, ["apple " + FRUIT[number % 8] + f" n{number}" for number in range(12_000)])
    counted = dict(connection.execute("SELECT word, chunks FROM word_counts").fetchall())
    assert counted["appl"] == pytest.approx(12_000, rel=0.01)
    assert counted["plum"] == pytest.approx(1_500, rel=0.3)
    assert len(counted) == len(FRUIT)


def test_counting_makes_no_writer_wait(database: Database, connection: Connection) -> None:
    with database.session("test") as other:
        other.execute("SET lock_timeout = '2s'")
        with connection.transaction():
            insert(connection, ["apple"] * 1_100)
            insert(other, ["pear"] * 1_100)  # leaves the counting to the first
            assert statistics(other) == []
        assert statistics(other) == [(1_100, 1)]
        insert(other, ["pear"] * 1_100)
        assert statistics(other) == [(3_300, 2)]
