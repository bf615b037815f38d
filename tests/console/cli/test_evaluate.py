"""Evaluation from the command line: its contract, its exit statuses, its pages and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from revector.core import cutover
from revector.core.database import Database
from revector.core.evaluation.judged_sets.judgements import Judgement, ensure_judge, save_judgements
from revector.core.evaluation.judged_sets.query_sets import Query, get_query_set, save_queries
from tests.console.cli.conftest import on, write_corpus
from tests.console.cli.program import Revector
from tests.databases import copied
from tests.versions import NUMBERS, add, ready_version

TEXTS = [f"{a} {b}" for a in NUMBERS for b in NUMBERS if a != b]
GATE = '[[gate]]\nname = "{name}"\nmeasure = "nDCG@10"\n{rule}\n'


@pytest.fixture(scope="module")
def judged(template: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Revector]:
    """240 documents, 60 judged queries in two segments, v1 active, v2 ready, v3 without vectors."""
    folder = tmp_path_factory.mktemp("judged")
    with copied(template) as database:
        yield judged_on(database, folder)


def judged_on(database: Database, folder: Path) -> Revector:
    revector = on(database, folder)
    revector.call("ingest", str(write_corpus(folder / "corpus.jsonl", TEXTS)))
    with database.session("test") as connection:
        ready_version(database, connection, "v1")
        cutover.run(connection, "v1", confirm="v1")
        ready_version(database, connection, "v2", "static:wordllama-256")
        add(connection, "v3", "static:wordllama-128")
        picked = range(0, len(TEXTS), 4)
        save_queries(
            connection,
            "numbers",
            [Query(f"q{n:03}", " ".join(reversed(TEXTS[n].split())), "low" if n < 120 else "high") for n in picked]
            + [Query("unjudged", "something else", "low")],
        )
        query_set = get_query_set(connection, "numbers")
        save_judgements(
            connection, query_set, ensure_judge(connection, "ann", "person"),
            [Judgement(f"q{n:03}", "document", f"doc-{n}", 1) for n in picked]
            + [Judgement("q000", "document", "doc-that-is-gone", 1)],
        )  # fmt: skip
        save_queries(connection, "three", [Query(f"t{n}", TEXTS[n], "all") for n in range(3)])
        save_judgements(
            connection, get_query_set(connection, "three"), ensure_judge(connection, "ann", "person"),
            [Judgement(f"t{n}", "document", f"doc-{n}", 1) for n in range(3)],
        )  # fmt: skip
        save_queries(connection, "nobody", [Query("n1", "seven", "all")])
    return revector


def gates(folder: Path, *rules: str) -> str:
    path = folder / "gates.toml"
    path.write_text("".join(GATE.format(name=f"gate {n}", rule=rule) for n, rule in enumerate(rules)))
    return str(path)


def test_the_answer_in_json(judged: Revector) -> None:
    found = judged.run("evaluate", "numbers", "--candidate", "v2", "--json").document
    assert found["verdict"] is None
    assert found["gates"] == []
    rows = {(row["measure"], row["segment"]): row for row in found["measures"]}
    assert {measure for measure, _ in rows} == {"nDCG@10", "P@10", "R@100", "RR@10"}
    assert [segment for measure, segment in rows if measure == "nDCG@10"] == ["all", "high", "low"]
    for row in found["measures"]:
        assert row["difference"] == pytest.approx(row["candidate"] - row["primary"])
        assert row["low"] <= row["difference"] <= row["high"]
    assert rows["nDCG@10", "all"]["queries"] == 60
    assert (found["primary"]["version_key"], found["candidate"]["version_key"]) == ("v1", "v2")
    assert (found["judged_queries"], found["unjudged_queries"], found["judges"]) == (60, 1, ["ann"])
    assert found["unknown_targets"] == [["q000", "doc-that-is-gone"]]
    assert any("1 of 61 judgements" in warning for warning in found["warnings"])
    assert len(found["queries"]) == 61
    assert [query["rbo"] for query in found["queries"]] == sorted(query["rbo"] for query in found["queries"])


def test_the_verdict_is_the_exit_status(judged: Revector, tmp_path: Path) -> None:
    passed = judged.call("evaluate", "numbers", "--gates", gates(tmp_path, "at_least = 0.05"), "--json")
    assert (passed.document["verdict"], passed.document["gates"][0]["verdict"]) == ("pass", "pass")
    rules = gates(tmp_path, "at_least = 0.999", 'segment = "low"\nat_least = 0.05')
    failed = judged.call("evaluate", "numbers", "--gates", rules, "--json", status=1)
    assert failed.document["verdict"] == "fail"
    assert [gate["verdict"] for gate in failed.document["gates"]] == ["fail", "pass"]
    as_good = judged.call("evaluate", "numbers", "--gates", gates(tmp_path, "margin = 0.2"), "--json").document
    assert (as_good["gates"][0]["kind"], as_good["gates"][0]["bound"]) == ("non-inferiority", -0.2)


def test_three_queries_are_inconclusive(judged: Revector, tmp_path: Path) -> None:
    rules = gates(tmp_path, "at_least = 0.01", "margin = 0.5")
    found = judged.call("evaluate", "three", "--gates", rules, "--json", status=3).document
    assert found["verdict"] == "inconclusive"
    assert all(gate["further_queries"] >= 7 for gate in found["gates"])
    shown = judged.call("evaluate", "three", "--gates", rules, status=3).out
    assert "inconclusive below 10 queries: 7 more" in shown
    assert "Not enough data: v2 against v1" in shown


def test_pages_for_a_pipeline_and_for_people(judged: Revector, tmp_path: Path) -> None:
    pages = {kind: tmp_path / f"report.{kind}" for kind in ("xml", "md", "html")}
    shown = judged.call(
        "evaluate", "numbers", "--gates", gates(tmp_path, "at_least = 0.999"), "--junit", str(pages["xml"]),
        "--markdown", str(pages["md"]), "--html", str(pages["html"]), status=1,
    )  # fmt: skip
    assert "✗" in shown.out
    assert "nDCG@10" in shown.out
    assert "A gate fails: v2 against v1" in shown.out
    assert "<failure" in pages["xml"].read_text()
    assert "Fail: v2 against v1" in pages["md"].read_text()
    assert "<svg" in pages["html"].read_text()
    number = json.loads(judged.call("evaluations", "list", "--json").out)["evaluations"][0]["id"]
    again = judged.call("evaluations", "show", str(number))
    assert "A gate fails: v2 against v1" in again.out
    lost = judged.call("evaluate", "numbers", "--junit", str(tmp_path / "no" / "x.xml"), status=2)
    assert "cannot be written" in lost.err
    assert "revector evaluations show" in lost.err


def test_the_index_and_the_model_are_told_apart_by_two_runs_of_one_version(judged: Revector) -> None:
    judged.call("evaluate", "numbers", "--ef-search", "10")
    judged.call("evaluate", "numbers", "--exact")
    runs = judged.call("evaluations", "runs", "--query-set", "numbers", "--json").document["runs"]
    exact = next(run for run in runs if run["version_key"] == "v2" and run["exact"])
    index = next(run for run in runs if run["version_key"] == "v2" and not run["exact"])
    pair = str(exact["id"]), str(index["id"])
    found = judged.call("evaluations", "compare", *pair, "--json").document
    assert 0.9 < found["index_recall"] <= 1
    assert "of the exact top 10." in judged.call("evaluations", "compare", *pair).out
    assert judged.call("evaluations", "compare", *reversed(pair), "--json").document["index_recall"] is None
    assert any("exact search" in warning for warning in found["warnings"])
    assert next(row["mean"] for row in found["overlaps"] if row["measure"] == "overlap") > 0.9
    assert "exact" in judged.call("evaluations", "runs").out


def test_hybrid_searches_are_said_to_be_hybrid(judged: Revector) -> None:
    hybrid = judged.call("evaluate", "numbers", "--hybrid", "--json").document
    assert (hybrid["primary"]["hybrid"], hybrid["candidate"]["hybrid"]) == (True, True)
    assert "; hybrid search, ef_search 200." in judged.call("evaluate", "numbers", "--hybrid").out
    assert "200, hybrid" in judged.call("evaluations", "runs").out
    refused = judged.call("evaluate", "numbers", "--hybrid", "--pilot", "--candidate", "v2", status=2)
    assert "vectors alone" in refused.err


def test_a_pilot_embeds_what_was_judged_and_a_sample(judged: Revector) -> None:
    asked = ("evaluate", "numbers", "--candidate", "v3", "--pilot", "--distractors", "100", "--json")
    first = judged.call(*asked)
    found = first.document
    assert found["candidate"]["sample"]["judged"] == 60
    assert found["candidate"]["chunks"] == found["primary"]["chunks"] == 160
    assert "A pilot on 160 of 240 chunks: 60 judged, 100 random (seed 2026)" in found["warnings"][0]
    assert "A pilot on 160 of 240 chunks" in first.err
    again = judged.call(*asked).document
    assert [row["candidate"] for row in again["measures"]] == [row["candidate"] for row in found["measures"]]
    versions = judged.call("versions", "list", "--json").document["versions"]
    assert next((v["embedded"], v["missing"]) for v in versions if v["version_key"] == "v3") == (160, 80)


def test_a_pilot_smaller_than_a_measures_depth_ranks_all_of_it(judged: Revector) -> None:
    found = judged.call(
        "evaluate", "three", "--candidate", "v3", "--pilot", "--distractors", "20", "--json"
    ).document
    assert (found["candidate"]["chunks"], found["candidate"]["k"]) == (23, 23)
    assert {row["measure"]: row["candidate"] for row in found["measures"]}["R@100"] == 1.0


def test_a_threshold_is_carried_over_by_its_share(judged: Revector) -> None:
    judged.call("evaluate", "numbers", "--candidate", "v2")
    found = judged.call("thresholds", "numbers", "--candidate", "v2", "--cut", "0.8", "--json").document
    assert (found["primary"], found["candidate"], found["asked"]["primary"]) == ("v1", "v2", 0.8)
    assert 0 <= found["asked"]["kept"] <= 1
    shown = judged.call("thresholds", "numbers", "--candidate", "v2", "--cut", "0.8").out
    assert "A cut at 0.8 keeps" in shown
    assert "decide by rank" in shown


def test_a_set_that_nobody_judged_has_rankings_and_no_measures(judged: Revector, tmp_path: Path) -> None:
    found = judged.call("evaluate", "nobody", "--json").document
    assert (found["measures"], found["judged_queries"]) == ([], 0)
    assert found["overlaps"]
    assert any("No query of" in warning for warning in found["warnings"])
    judged.call("evaluate", "nobody", "--gates", gates(tmp_path, "at_least = 0.1"), status=3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("evaluate", "nmbers"), "Did you mean numbers?"),
        (("evaluate", "numbers", "--candidate", "v9"), "There is no embedding version 'v9'"),
        (("evaluate", "numbers", "-m", "nDGC@10"), "nDCG"),
        (("evaluate", "numbers", "--judge", "anne"), "Did you mean ann?"),
        (("evaluate", "numbers", "--gates", "nowhere.toml"), "nowhere.toml"),
        (("evaluate", "numbers", "--pilot"), "--candidate"),
        (("evaluations", "show", "999"), "There is no evaluation 999"),
        (("evaluations", "compare", "998", "999"), "There is no run 998"),
    ],
)
def test_what_is_not_there_is_named(judged: Revector, arguments: tuple[str, ...], said: str) -> None:
    assert said in judged.call(*arguments, status=2).err


def test_a_bad_gate_file_is_refused_before_anything_is_searched(judged: Revector, tmp_path: Path) -> None:
    before = judged.call("evaluations", "runs", "--json").document["runs"]
    path = tmp_path / "gates.toml"
    for text, said in (
        ("[[gate]\n", "gates.toml:1"),
        ('[[gate]]\nmeasure = "nDGC@10"\nat_least = 0.1\n', "nDCG"),
        ('[[gate]]\nmeasure = "P@10"\nat_lest = 0.1\n', "at_least"),
        ('[[gate]]\nmeasure = "P@10"\nsegment = "lo"\nat_least = 0.1\n', "low"),
    ):
        path.write_text(text)
        assert said in judged.call("evaluate", "numbers", "--gates", str(path), status=2).err
    assert judged.call("evaluations", "runs", "--json").document["runs"] == before


def test_a_version_without_vectors_or_against_itself_is_refused(judged: Revector) -> None:
    assert "itself" in judged.call("evaluate", "numbers", "--candidate", "v1", status=1).err
    assert "read-only" in judged.with_options("--read-only").call("evaluate", "numbers", status=1).err
