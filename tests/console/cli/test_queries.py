"""`revector queries`, as a person or a script calls it."""

from __future__ import annotations

from pathlib import Path

import pytest

from revector.core import audit
from revector.core.database import Connection
from revector.core.evaluation.judged_sets.query_sets import get_query_set, query_sets
from tests.console.cli.program import Revector
from tests.core.evaluation.support import add_document, judge, new_set

QUERIES = '{"_id": "1", "text": "heat", "metadata": {"segment": "short"}}\n{"_id": "2", "text": "lift"}\n'
QRELS = "query-id\tcorpus-id\tscore\n1\td1\t2\n1\tgone\t1\n2\td1\t-1\n9\td1\t1\n2\td1\t-1\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in the BEIR layout."""
    (tmp_path / "beir" / "qrels").mkdir(parents=True)
    (tmp_path / "beir" / "queries.jsonl").write_text(QUERIES)
    (tmp_path / "beir" / "qrels" / "test.tsv").write_text(QRELS)
    return tmp_path / "beir"


def test_an_import_and_what_it_answers(revector: Revector, connection: Connection, folder: Path) -> None:
    add_document(connection, "d1", "text")
    found = revector.run("queries", "import", "set", "--queries", "beir", "--json")
    assert found.document == {
        "name": "set", "revision": get_query_set(connection, "set").revision, "queries": 2, "added": 2, "changed": 0,
        "removed": 0, "unchanged": 0, "judgements": 3, "segments": ["all", "short"], "judge": "qrels", "skipped": 1,
        "unknown_targets": 1,
    }  # fmt: skip
    assert found.err == (
        "2 grades below 0 (judged, not relevant) became 0.\n"
        "1 judgement appeared twice with the same grade.\n"
        "1 judgement skipped, for 1 query that the set does not contain (9).\n"
        "1 judgement on documents that are not in the collection.\n"
    )
    (folder / "topics").write_text("1\theat\tlong\n3\tdrag\n")
    shown = revector.call("queries", "import", "set", "--queries", str(folder / "topics"))
    assert shown.out == (
        "set: 2 queries in 2 segments (1 added, 1 changed, 1 removed), revision "
        f"{get_query_set(connection, 'set').revision}.\n"
    )
    (folder / "trec").write_text("1 0 d1 1\n")
    judged = revector.call("queries", "import", "set", "--qrels", str(folder / "trec"), "--judge", "anna")
    assert judged.out.endswith("1 judgement by anna on documents.\n")
    assert {entry.action for entry in audit.entries(connection)} >= {"queries import", "judgements import"}


def test_judgements_on_chunks_are_told_not_guessed(
    revector: Revector, connection: Connection, folder: Path
) -> None:
    (key,) = add_document(connection, "d1", "text")
    qrels = folder / "chunks.tsv"
    qrels.write_text(f"1\t{key}\t1\n")
    arguments = ("queries", "import", "set", "--queries", str(folder / "queries.jsonl"), "--qrels", str(qrels))
    wrong = revector.call(*arguments)
    assert "None was found. Are they on chunks (--targets chunks), or is this another collection?" in wrong.err
    right = revector.call(*arguments, "--targets", "chunks", "--replace", "--json")
    assert (right.err, right.document["unknown_targets"]) == ("", 0)
    assert revector.call("queries", "show", "set", "--json").document["judges"] == [
        {"judge": "qrels", "kind": "person", "judgements": 1, "chunks": 1}
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("import set", "There is nothing to import."),
        ("import set --qrels beir/qrels/test.tsv", "There is no query set 'set', and no other yet."),
        ("import set --queries no", "no cannot be read"),
        ("import set --queries .", "has no queries.jsonl"),
        ("import set --queries beir/qrels/test.tsv", "would have no queries|columns|Query"),
        ("import set --queries empty", "The query set 'set' would have no queries."),
        ("import set --queries beir --targets rows", "There is no kind of target 'rows'."),
        ("import set --queries beir/queries.jsonl --judge anna", "Add --qrels FILE."),
        ("import set --queries bad", "bad:2 is not a query: it has 1 columns."),
        ("export set out", "There is no query set 'set'"),
        ("show set", "There is no query set 'set'"),
        ("drop set", "There is no query set 'set'"),
        ("agreement set", "There is no query set 'set'"),
    ],
)
def test_what_is_refused(
    revector: Revector, connection: Connection, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: str,
    message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder.parent)
    Path("empty").touch()
    Path("bad").write_text("1\ta\n\x1b[31mred\n")
    if "test.tsv" in arguments and "--queries" in arguments:
        Path("beir/qrels/test.tsv").write_text("")
    refused = revector.call("queries", *arguments.split(), status=2)
    assert refused.out == ""
    assert any(part in refused.err for part in message.split("|"))
    assert query_sets(connection) == []


def test_a_read_only_session_imports_nothing(revector: Revector, connection: Connection, folder: Path) -> None:
    own = revector.with_options("--read-only")
    refused = own.call("queries", "import", "set", "--queries", str(folder), status=1)
    assert refused.err.startswith("This session is read-only: nothing was changed.\n")
    assert query_sets(connection) == []
    assert own.call("queries", "list").out.startswith("There is no query set yet.\n")


def test_list_and_show(revector: Revector, connection: Connection) -> None:
    add_document(connection, "d1", "text")
    query_set = new_set(connection)
    judge(connection, query_set, "anna", ("q1", "d1", 1), ("q2", "gone\x1b[2J", 1))
    judge(connection, query_set, "m", ("q1", "key", 1), kind="chunk", model=True)
    listed = revector.call("queries", "list", "--json").document["query_sets"]
    assert [row.keys() >= {"name", "revision", "queries", "segments", "judgements", "judges", "updated_at"} for row in
            listed] == [True]  # fmt: skip
    assert (listed[0]["judgements"], listed[0]["judges"]) == (3, ["anna", "m"])
    assert "anna, m" in revector.call("queries", "list").out
    document = revector.call("queries", "show", "set", "--json").document
    assert document["segments"] == [
        {"segment": "even", "queries": 2, "judged": 1},
        {"segment": "odd", "queries": 2, "judged": 1},
    ]
    assert [(row["judge"], row["kind"], row["judgements"]) for row in document["judges"]] == [
        ("anna", "person", 2), ("m", "model", 1),
    ]  # fmt: skip
    assert [row["target"] for row in document["unknown_targets"]] == ["key", "gone\x1b[2J"]
    shown = revector.call("queries", "show", "set").out
    assert "2 judged targets not in the collection: key (query q1), gone␛[2J (query q2)" in shown


def test_an_export_comes_back(revector: Revector, connection: Connection, folder: Path) -> None:
    add_document(connection, "d1", "text")
    revector.call("queries", "import", "set", "--queries", str(folder))
    done = revector.run("queries", "export", "set", "out", "--json").document
    assert done["files"] == ["out/queries.jsonl", "out/qrels/test.tsv"]
    refused = revector.run("queries", "export", "set", "out", status=1)
    assert "queries.jsonl already exists. Nothing was written." in refused.err
    revector.run("queries", "export", "set", "out", "--overwrite")
    copy = revector.run("queries", "import", "copy", "--queries", "out", "--json").document
    assert copy["revision"] == revector.call("queries", "show", "set", "--json").document["revision"]
    assert (copy["judgements"], copy["skipped"]) == (3, 0)
    shown = revector.run("queries", "export", "set", "trec", "--format", "trec", "--judge", "qrels").out
    assert shown == "set: 2 queries and 3 judgements by qrels.\ntrec/topics.tsv\ntrec/qrels.txt\n"
    assert "no format 'tsv'" in revector.call("queries", "export", "set", "x", "--format", "tsv", status=2).err


def test_a_drop_names_its_target(revector: Revector, connection: Connection) -> None:
    query_set = new_set(connection)
    judge(connection, query_set, "anna", ("q1", "d1", 1))
    refused = revector.type("sett", "queries", "drop", "set", status=1)
    assert "This deletes 4 queries, 1 judgement, and the runs and evaluations of set, permanently." in refused.err
    assert "Type the name set to confirm:" in refused.err
    assert "The typed name is 'sett', not 'set': nothing was changed." in refused.err
    assert revector.call("queries", "drop", "set", "--confirm", "", status=1).out == ""
    assert [one.name for one in query_sets(connection)] == ["set"]
    assert revector.type("set", "queries", "drop", "set").out == "set was deleted.\n"
    assert query_sets(connection) == []


def test_agreement_of_judges(revector: Revector, connection: Connection) -> None:
    query_set = new_set(connection)
    assert revector.call("queries", "agreement", "set").out == "set has fewer than two judges.\n"
    rows = [(f"q{q}", f"d{d}", (q + d) % 2) for q in range(1, 5) for d in range(10)]
    judge(connection, query_set, "anna", *rows)
    judge(connection, query_set, "bert", *[(q, d, g if q in ("q1", "q3") else int(d < "d5")) for q, d, g in rows])
    judge(connection, query_set, "carl", *[(q, d, 3 * g) for q, d, g in rows])
    found = revector.call("queries", "agreement", "set", "--json").document["agreements"]
    assert [(one["first"], one["second"], one["pairs"]) for one in found] == [
        ("anna", "bert", 40), ("anna", "carl", 40), ("bert", "carl", 40),
    ]  # fmt: skip
    assert [one["binarised"] for one in found] == [False, True, True]
    assert found[0]["most_disagreeing"] == "even"
    assert found[1]["kappa"] == 1
    shown = revector.call("queries", "agreement", "set", "--judge", "carl", "--judge", "anna").out
    assert shown.startswith("carl and anna: weighted kappa 1.00, 100% of 40 document pairs with the same grade.\n")
    assert "Their scales differ (carl 0 to 3, anna 0 to 1): compared as relevant (1 and above) or not." in shown
    for judges, message in ((("anna",), "needs two judges"), (("anna", "dora"), "no judge 'dora'")):
        options = [part for name in judges for part in ("--judge", name)]
        assert message in revector.call("queries", "agreement", "set", *options, status=2).err
