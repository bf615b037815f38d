"""The demo's corpus is the same in every process, and its judgements hold on it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import sysconfig
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from revector.console.demo.corpus import Entry, standard_library

DEMO = resources.files("revector.console.demo")
DUMP = """
import sys
from revector.console.demo.corpus import standard_library
for entry in standard_library():
    print(ascii((entry.id, entry.title, entry.text, entry.kind)))
"""


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    return standard_library()


@pytest.fixture(scope="module")
def ids(entries: list[Entry]) -> set[str]:
    return {entry.id for entry in entries}


@pytest.fixture(scope="module")
def queries() -> list[dict[str, Any]]:
    lines = DEMO.joinpath("queries.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def qrels() -> list[dict[str, str]]:
    lines = DEMO.joinpath("qrels.tsv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "query-id\tcorpus-id\tscore"
    return list(csv.DictReader(lines, delimiter="\t"))


def dump(hash_seed: str, prelude: str = "") -> str:
    """The corpus as a fresh interpreter sees it; whatever an import would write to stdout shows as well."""
    done = subprocess.run(
        [sys.executable, "-c", prelude + DUMP],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    return done.stdout


def test_size(entries: list[Entry]) -> None:
    assert 4_000 < len(entries) < 6_000
    assert 1_400_000 < sum(len(entry.text.encode()) for entry in entries) < 2_200_000
    assert {entry.kind for entry in entries} == {"module", "class", "function", "method", "topic"}


@pytest.mark.slow
def test_same_bytes_in_every_process() -> None:
    first = dump("1")
    assert first.count("\n") > 4_000
    assert first == dump("2")


@pytest.mark.slow
def test_a_missing_module_takes_nothing_else_away() -> None:
    whole, without = dump("0"), dump("0", "import sys\nsys.modules['sqlite3'] = None\n")
    missing = set(whole.splitlines()) - set(without.splitlines())
    assert missing
    assert all(line.startswith("('sqlite3") for line in missing)
    assert set(without.splitlines()) < set(whole.splitlines())


def test_ids_are_unique_and_in_order(entries: list[Entry]) -> None:
    ordered = [entry.id for entry in entries]
    assert ordered == sorted(set(ordered))


def test_each_text_once(entries: list[Entry]) -> None:
    assert max(Counter(" ".join(entry.text.split()) for entry in entries).values()) == 1


def test_no_private_symbol(entries: list[Entry]) -> None:
    symbols = [entry.id for entry in entries if entry.kind != "topic"]
    assert not [symbol for symbol in symbols if any(part.startswith("_") for part in symbol.split("."))]


def test_texts_and_titles(entries: list[Entry]) -> None:
    for entry in entries:
        assert entry.text == entry.text.strip() != ""
        assert entry.title == entry.title.strip() != ""
        assert "\n" not in entry.title
        assert entry.kind == "topic" or entry.title.startswith(entry.id)


def test_nothing_of_this_machine(entries: list[Entry]) -> None:
    here = {sys.executable, str(Path(os.__file__).parent), str(Path.cwd())}
    for entry in entries:
        shown = entry.title + entry.text
        assert " at 0x" not in shown
        assert repr(sysconfig.get_default_scheme()) not in entry.title
        assert not [path for path in here if path in shown]


@pytest.mark.parametrize(
    "symbol",
    [
        "asyncio.gather",
        "bytes.decode",
        "collections.OrderedDict",
        "datetime.datetime.strptime",
        "dict.get",
        "json.dumps",
        "list.sort",
        "open",
        "os.path.join",
        "pathlib.Path.exists",
        "random.choice",
        "re",
        "socket.socket.connect",
        "str.split",
        "topic:assert",
    ],
)
def test_names_people_use(ids: set[str], symbol: str) -> None:
    assert symbol in ids


@pytest.mark.parametrize("symbol", ["posixpath.join", "asyncio.tasks.gather", "posix.stat", "IOError", "this"])
def test_no_second_name(ids: set[str], symbol: str) -> None:
    assert symbol not in ids


def test_queries(queries: list[dict[str, Any]]) -> None:
    assert len(queries) >= 120
    assert len({query["_id"] for query in queries}) == len(queries)
    assert len({query["text"] for query in queries}) == len(queries)
    segments = Counter(query["metadata"]["segment"] for query in queries)
    assert len(segments) >= 6
    assert min(segments.values()) >= 15


def test_judgements(queries: list[dict[str, Any]], qrels: list[dict[str, str]], ids: set[str]) -> None:
    pairs = [(row["query-id"], row["corpus-id"]) for row in qrels]
    assert len(set(pairs)) == len(pairs)
    assert not {corpus_id for _, corpus_id in pairs} - ids
    assert {row["score"] for row in qrels} == {"1", "2"}
    judged = Counter(query_id for query_id, _ in pairs)
    assert judged.keys() == {query["_id"] for query in queries}
    assert max(judged.values()) <= 8


def test_every_query_has_a_best_answer(queries: list[dict[str, Any]], qrels: list[dict[str, str]]) -> None:
    best = {row["query-id"] for row in qrels if row["score"] == "2"}
    assert best == {query["_id"] for query in queries}
