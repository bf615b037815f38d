"""Queries and judgements in files: what is read, what is refused with its line, and that exports come back whole."""

from __future__ import annotations

import contextlib
import gzip
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revector.core.database import Connection
from revector.core.errors import RefusedError, UsageError
from revector.core.evaluation.files import writing
from revector.core.evaluation.files.exporting import export_query_set
from revector.core.evaluation.files.importing import import_query_set
from revector.core.evaluation.files.lines import MAX_LINE_BYTES
from revector.core.evaluation.files.qrels import JudgementFile, read_qrels
from revector.core.evaluation.files.topics import beir_files, read_queries
from revector.core.evaluation.judged_sets.judgements import given_judgements, load_qrels
from revector.core.evaluation.judged_sets.query_sets import Query, get_query_set
from tests.core.evaluation.support import add_document, judge, new_set

DATA = Path(__file__).resolve().parents[5] / "shared" / "data"
BEIR = '{"_id": "1", "text": "heat flow", "metadata": {"segment": "short"}}\n{"_id": 2, "text": "lift"}\n'
SGML = """<top>
<num> Number: 301
<title> Topic:  International
  Organized Crime

<desc> Description:
Identify organizations <i>with</i> crime.
<narr> Narrative: a < b
</top>

<TOP><num>302</num><title>Poliomyelitis &amp; AT&T &lt;1950</title></TOP>
"""
CLEF = """<top lang="en">
<num> C041 </num>
<EN-title> Pesticides in baby food </EN-title>
<EN-desc> Find <reports lang="any">on</reports> pesticides. </EN-desc>
</top>
<topic lang='en'><identifier>10.2452/451-AH</identifier><title>Roman military</title></topic>
"""
WEB_TRACK = """<webtrack2009>
<topic number="1" type="faceted">
  <query>obama family tree</query>
  <description>Find the TIME story.</description>
  <subtopic number="1" type="nav">a subtopic</subtopic>
</topic>
<topic number="2"><query>french lick &amp; resort</query></topic>
</webtrack2009>
"""
TOPICS = (Query("301", "International Organized Crime"), Query("302", "Poliomyelitis & AT&T <1950"))
QUERIES = (Query("1", "heat flow", "short"), Query("2", "lift"))


def file(folder: Path, content: str | bytes, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# -- queries -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "queries"),
    [
        (BEIR, QUERIES),
        ("1\theat flow\tshort\n2\tlift\n", QUERIES),
        ("1\theat flow\tshort\n\n2\tlift", QUERIES),
        (SGML, TOPICS),
        ('<?xml version="1.0"?>\n<topics>\n' + SGML + "</topics>", TOPICS),
        ("qid\tquery\n1\theat flow\n", (Query("1", "heat flow"),)),
        ("_id\ttext\tsegment\n1\theat flow\tshort\n2\tlift\tall\n", QUERIES),
        ("Segment,Query,Query-ID\nshort,heat flow,1\nall,lift,2\n", QUERIES),
        ('query_id,text\n1,"heat, flow"\n', (Query("1", "heat, flow"),)),
        ("id\twhat is an id\n", (Query("id", "what is an id"),)),
        (CLEF, (Query("C041", "Pesticides in baby food"), Query("10.2452/451-AH", "Roman military"))),
        (WEB_TRACK, (Query("1", "obama family tree"), Query("2", "french lick & resort"))),
        ("", ()),
        ("\n \n", ()),
    ],
)
@pytest.mark.parametrize("dress", ["plain", "crlf", "bom", "gzip", "all"])
def test_queries_are_recognised_by_their_content(
    tmp_path: Path, content: str, queries: tuple[Query, ...], dress: str
) -> None:
    data = content.encode()
    if dress in ("crlf", "all"):
        data = data.replace(b"\n", b"\r\n")
    if dress in ("bom", "all"):
        data = b"\xef\xbb\xbf" + data
    if dress in ("gzip", "all"):
        data = gzip.compress(data)
    assert read_queries(file(tmp_path, data, "misleading.tsv.json")) == queries


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"_id": 1, "text": "a"}\n{"_id": 1}', "file:2 is not a query."),
        ('{"_id": 1, "text": "a"}\n[]', "file:2 is not a query."),
        ('{"_id": true, "text": "a"}', "file:1 is not a query."),
        ('{"_id": 1, "text": 7}', "file:1 is not a query."),
        ('{"_id": 1, "text": "a", "metadata": {"segment": [1]}}', "file:1 is not a query."),
        ('{"_id": 1, "text": ' + "[" * 50_000, "file:1 is not a query."),
        ('{"_id": ' + "9" * 5_000 + ', "text": "a"}', "file:1 is not a query."),
        ('{"_id": 1, "text": "\\u0000"}', "file:1 cannot be read. Query '1': its text has a NUL"),
        ('{"_id": 1, "text": "\\ud800"}', "lone surrogate"),
        ('{"_id": 1, "text": " "}', "its text has 1 characters"),
        ('\n\n{"_id": 1, "text": "a"}\n{"_id": "1", "text": "b"}', "file:4 has query id '1' again, after line 3."),
        ("1\ta\n2", "file:2 is not a query: it has 1 columns."),
        ("1\ta\tb\tc", "file:1 is not a query: it has 4 columns."),
        ("qid\tquery\n1\ta\tb", "file:2 is not a query: it has 3 columns, the header 2."),
        ("qid,query\n1,a,b", "file:2 is not a query: it has 3 columns, the header 2."),
        ("1\ta\t", "its segment has 0 characters"),
        ("1\t" + "x" * 10_001, "file:1 cannot be read. Query '1': its text has 10,001 characters"),
        (b"1\ta\n2\t\xff\xfe", "file:2 is not UTF-8: byte 0xff at 2"),
        ("1\ta".encode("utf-16"), "file:1 is not UTF-8"),
        ("1\ta\n" + "x" * (MAX_LINE_BYTES + 1), "file:2 is longer than 1,048,576 bytes."),
        (gzip.compress(b"1\ta\n" * 999, mtime=0)[:-20], "cannot be read"),
        (b"\x1f\x8bno gzip", "cannot be read"),
        ("<html>\n", "file begins like SGML, but has no <top> or <topic>."),
        ("<top>\n<num>1\n<title>a\n</top>\n<top>\n<title>b\n</top>", "file:5 begins a topic with no <num>."),
        ("<top>\n<num>1\n</top>", "file:1 begins a topic with no <title>."),
        ("<top>\n<num>1\n<num>2\n<title>a</top>", "file:1 begins a topic with a second <num>."),
        ("<top>\n<num>1<title>" + ("x " * 500 + "\n") * 30, "<title> of more than 20,000"),
    ],
)
def test_a_query_that_cannot_be_read_is_named_by_its_line(
    tmp_path: Path, content: str | bytes, problem: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read_queries(file(tmp_path, content))
    assert problem in caught.value.problem


@pytest.mark.parametrize("name", ["missing", ".", "a\0b", "/dev/zero"])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    for read in (read_queries, read_qrels):
        with pytest.raises(UsageError, match=r"cannot be read|zero:1 is longer than"):
            read(tmp_path / name)


def test_a_folder_in_the_beir_layout(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no queries\.jsonl"):
        beir_files(tmp_path)
    queries = file(tmp_path, BEIR, "queries.jsonl")
    assert beir_files(tmp_path) == (queries, None)
    (tmp_path / "qrels").mkdir()
    file(tmp_path / "qrels", "", "dev.tsv")
    with pytest.raises(UsageError, match=r"no test\.tsv, but dev\.tsv"):
        beir_files(tmp_path)
    compressed = file(tmp_path / "qrels", "", "test.tsv.gz")
    assert beir_files(tmp_path) == (queries, compressed)
    plain = file(tmp_path / "qrels", "", "test.tsv")
    assert beir_files(tmp_path) == (queries, plain)


# -- judgements ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "grades"),
    [
        ("query-id\tcorpus-id\tscore\nq 1\td 1\t2\nq 1\td2\t0\n", {"q 1": {"d 1": 2, "d2": 0}}),
        ("1\td1\t2\n2\td 1\t0", {"1": {"d1": 2}, "2": {"d 1": 0}}),
        ("1 0 d1 2\n1\tQ0  d2\t0\n", {"1": {"d1": 2, "d2": 0}}),
        ("  1 0 d\u00a01 +1 \n", {"1": {"d\u00a01": 1}}),
        ("query-id\tcorpus-id\tscore\n", {}),
        ("query-id,corpus-id,score\nq 1,d 1,2\n", {"q 1": {"d 1": 2}}),
        ('qid,iter,docno,rel\n1,0,"d,1",2.0\n', {"1": {"d,1": 2}}),
        ("1,d1,2\n1,d2,0\n", {"1": {"d1": 2, "d2": 0}}),
        ("1,0,d1,2\n", {"1": {"d1": 2}}),
        ("query_id\tdoc_id\trelevance\n1\td1\t1.0\n", {"1": {"d1": 1}}),
        ("qid iter docno rel\n1 0 d1 3.00\n", {"1": {"d1": 3}}),
        ("query-id\tscore\tcorpus-id\n1\t2\td1\n", {"1": {"d1": 2}}),
        ("", {}),
    ],
)
@pytest.mark.parametrize("crlf", [False, True])
def test_judgements_are_recognised_by_their_content(
    tmp_path: Path, content: str, grades: dict[str, dict[str, int]], crlf: bool
) -> None:
    found = read_qrels(file(tmp_path, content.replace("\n", "\r\n") if crlf else content, "misleading.txt"))
    assert found == JudgementFile(grades)


def test_what_is_noticed_in_judgements(tmp_path: Path) -> None:
    found = read_qrels(file(tmp_path, "1 0 d1 -1\n1 0 d2 -2\n1 0 d3 1\n1 1 d3 1\n1 0 d1 0\n"))
    assert found == JudgementFile({"1": {"d1": 0, "d2": 0, "d3": 1}}, negative=2, repeated=2)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("1 0 d1 1\n1 0 d1", "file:2 is not a judgement: it has 3 columns."),
        ("1 0 d1 1\n1 0 d 1 1", "file:2 is not a judgement: it has 5 columns."),
        ("query-id\tcorpus-id\tscore\n1\td1", "file:2 is not a judgement: it has 2 columns."),
        ("1\td1\t0.5", "file:1 is not a judgement: '0.5' is not a whole number."),
        ("1 0 d1 1.5", "file:1 is not a judgement: '1.5' is not a whole number."),
        ("1,d1,2\n1,d1", "file:2 is not a judgement: it has 2 columns."),
        ("qid\tdocno\tlines\n", "file:1 is not a judgement: 'lines' is not a whole number."),
        ("1 0 d1 ٣", "is not a whole number"),
        ("1 0 d1 1e2", "is not a whole number"),
        ("1 0 d1 " + "1" * 5_000, "is not a whole number"),
        ("1 0 d1 101", "file:1 cannot be read. Query '1': the grade of 'd1' is 101"),
        ("1 0 " + "d" * 1_001 + " 1", "has 1001 characters"),
        ("1\t\t1", "has 0 characters"),
        ("1 0 d1 1\n2 0 d1 2\n1 0 d1 2\n", "file:3 judges 'd1' for query '1' again, with 2 after 1."),
        (b"1 0 d1 1\n1 0 \xff 1", "file:2 is not UTF-8"),
        ("x", "file:1 is not a judgement: it has 1 columns."),
    ],
)
def test_a_judgement_that_cannot_be_read_is_named_by_its_line(
    tmp_path: Path, content: str | bytes, problem: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read_qrels(file(tmp_path, content))
    assert problem in caught.value.problem


# -- round trips ---------------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12).filter(
    lambda text: bool(text.strip())
)
QUERY_SETS = st.lists(
    st.builds(Query, TEXT, TEXT, TEXT | st.just("all")), min_size=1, max_size=6, unique_by=lambda q: q.id
)
JUDGED = st.dictionaries(
    TEXT, st.dictionaries(TEXT, st.integers(0, 100), min_size=1, max_size=4), min_size=1, max_size=4
)


def written(lines: Iterable[str], folder: str) -> Path | None:
    """The file with these lines; None when the layout refuses to hold them."""
    path = Path(folder) / "file"
    with contextlib.suppress(UsageError):
        writing.write_files({path: lines})
        return path
    assert list(Path(folder).iterdir()) == []
    return None


@pytest.mark.slow
@given(QUERY_SETS)
def test_queries_come_back_from_beir(queries: list[Query]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(writing.beir_queries(queries), folder)
        assert path is not None
        assert read_queries(path) == tuple(queries)


@given(QUERY_SETS)
def test_queries_come_back_from_trec_or_are_refused(queries: list[Query]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written(writing.trec_topics(queries), folder)
        if path is None:
            texts = [text for q in queries for text in (q.id, q.text, q.segment)]
            assert any(set(text) & set("\t\r\n") for text in texts) or queries[0].id.lstrip()[0] in "{<\ufeff"
            return
        assert read_queries(path) == tuple(queries)


def test_a_first_query_that_looks_like_a_header_is_not_written(tmp_path: Path) -> None:
    assert written(writing.trec_topics([Query("id", "query")]), str(tmp_path)) is None
    assert written(writing.trec_topics([Query("1", "query"), Query("id", "query")]), str(tmp_path)) is not None


@pytest.mark.slow
@given(JUDGED)
@settings(max_examples=200)
def test_judgements_come_back_or_are_refused(grades: dict[str, dict[str, int]]) -> None:
    rows = [(query, target, grade) for query, by_target in grades.items() for target, grade in by_target.items()]
    ids = "".join(query + target for query, target, _ in rows)
    for write, forbidden in ((writing.beir_qrels, "\t\r\n"), (writing.trec_qrels, " \t\v\f\r\n")):
        with tempfile.TemporaryDirectory() as folder:
            path = written(write(rows), folder)
            assert (path is None) == (
                bool(set(ids) & set(forbidden)) or (" " in forbidden and rows[0][0][0] == "\ufeff")
            )
            if path:
                assert read_qrels(path) == JudgementFile(grades)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path, other = tmp_path / "new" / "a", tmp_path / "new" / "b"
    writing.write_files({path: ["one"]})
    with pytest.raises(RefusedError, match=r"already exists\. Nothing was written"):
        writing.write_files({other: ["two"], path: ["two"]})
    assert (path.read_text(), other.exists()) == ("one\n", False)
    writing.write_files({path: ["two"]}, overwrite=True)
    assert path.read_text() == "two\n"
    with pytest.raises(UsageError, match="cannot be written"):
        writing.write_files({path / "below": ["x"]})

    def comes_meanwhile() -> Iterable[str]:
        yield "ours"
        other.write_text("theirs")

    with pytest.raises(RefusedError, match="already exists"):
        writing.write_files({tmp_path / "c": ["x"], other: comes_meanwhile()})
    assert other.read_text() == "theirs"
    assert sorted(found.name for found in tmp_path.rglob("*") if found.is_file()) == ["a", "b"]


# -- the database --------------------------------------------------------------------------------------------


def test_an_import_says_what_it_skipped_and_what_is_not_there(connection: Connection) -> None:
    add_document(connection, "d1", "text")
    file_ = JudgementFile({"1": {"d1": 2, "gone": 1}, "9": {"d1": 1, "d2": 1}, "8": {"x": 0}}, negative=1)
    done = import_query_set(connection, "set", QUERIES, file_)
    assert (done.judge, done.judgements, done.skipped, done.skipped_queries) == ("qrels", 2, 3, ("8", "9"))
    assert (done.unknown_targets, done.negative) == (1, 1)
    assert load_qrels(connection, done.query_set).unknown == {"1": ("gone",)}
    again = import_query_set(connection, "set", None, JudgementFile({"2": {"d1": 1}}))
    assert (again.changes.unchanged, again.judgements) == (2, 1)
    assert len(given_judgements(connection, again.query_set)) == 3
    import_query_set(connection, "set", None, JudgementFile({"2": {"d1": 3}}), replace=True)
    assert [row.grade for row in given_judgements(connection, again.query_set)] == [3]


def test_an_import_that_fails_changes_nothing(connection: Connection) -> None:
    before = new_set(connection, *QUERIES)
    judge(connection, before, "m", ("1", "d", 1), model=True)
    with pytest.raises(UsageError, match="Judge 'm' is"):
        import_query_set(connection, "set", [Query("new", "query")], JudgementFile({"new": {"d": 1}}), judge="m")
    assert get_query_set(connection, "set") == before
    with pytest.raises(UsageError, match="no query set"):
        import_query_set(connection, "other", None, JudgementFile({"1": {"d": 1}}))


@pytest.mark.parametrize("layout", ["beir", "trec"])
def test_a_set_comes_back_from_its_export(connection: Connection, tmp_path: Path, layout: str) -> None:
    keys = add_document(connection, "d1", "a", "b")
    before = new_set(connection, *QUERIES)
    judge(connection, before, "anna", ("1", "d1", 3), ("2", "gone", 0))
    judge(connection, before, "anna", ("1", keys[0], 1), ("2", keys[1], 2), kind="chunk")
    judge(connection, before, "bert", ("1", "d1", 1))
    done = export_query_set(connection, before, tmp_path / "out", layout, judge="anna")  # type: ignore[arg-type]
    assert (done.queries, done.judgements, done.judges) == (2, 4, ("anna",))
    names = {
        "beir": ("queries.jsonl", "qrels/chunks.tsv", "qrels/test.tsv"),
        "trec": ("topics.tsv", "qrels.chunks.txt", "qrels.txt"),
    }[layout]
    queries, chunks, documents = (tmp_path / "out" / name for name in names)
    assert set(done.files) == {queries, chunks, documents}
    copy = import_query_set(
        connection, "copy", read_queries(queries), read_qrels(documents), judge="anna"
    ).query_set
    import_query_set(connection, "copy", None, read_qrels(chunks), judge="anna", targets="chunk")
    assert (copy.queries, copy.revision) == (before.queries, before.revision)
    assert [(r.query, r.target_kind, r.target, r.grade) for r in given_judgements(connection, copy)] == [
        (r.query, r.target_kind, r.target, r.grade) for r in given_judgements(connection, before, judge="anna")
    ]
    # Without a judge, what evaluation reads: the lower median of all people, by document.
    export_query_set(connection, before, tmp_path / "all", layout)  # type: ignore[arg-type]
    assert read_qrels(tmp_path / "all" / names[2]).grades == load_qrels(connection, before).grades
    assert not (tmp_path / "all" / names[1]).exists()


def test_a_set_without_judgements_is_its_queries(connection: Connection, tmp_path: Path) -> None:
    done = export_query_set(connection, new_set(connection, *QUERIES), tmp_path, "beir")
    assert done.files == (tmp_path / "queries.jsonl",)
    with pytest.raises(UsageError, match="no judge 'anna'"):
        export_query_set(connection, get_query_set(connection, "set"), tmp_path, "beir", judge="anna")


def test_a_stored_run_is_read_by_trec_evals_own_reader(connection: Connection, tmp_path: Path) -> None:
    """Ranks in the file are those of the run, whatever its distances: here some tie and all are below 0."""
    query_set = new_set(connection, *QUERIES)
    first, second = add_document(connection, "d1", "a", "b"), add_document(connection, "d2", "c")
    add_document(connection, "d3", "d")
    rows = connection.execute("SELECT id, document_id FROM document_chunks ORDER BY id").fetchall()
    (run,) = connection.execute(
        """
        INSERT INTO evaluation_runs (query_set_id, query_set_revision, version_key, encoder, encoder_revision, k,
                                     exact, index_settings, chunks, queries)
        VALUES (%s, 'r', 'v1', 'e', '1', 10, true, '{}', 4, 2) RETURNING id
        """,
        [query_set.id],
    ).fetchone()  # type: ignore[misc]
    for query, order in (("1", (2, 1, 3, 0)), ("2", (0, 2))):
        connection.execute(
            "INSERT INTO evaluation_results VALUES (%s, %s, %s, %s, %s, 0, 0)",
            [run, query, [rows[n][0] for n in order], [rows[n][1] for n in order], [-1.0] * len(order)],
        )
    connection.execute("UPDATE evaluation_runs SET state = 'done'")
    connection.execute("DELETE FROM document_chunks WHERE source_id = 'd3'")
    judge(connection, query_set, "anna", ("1", "d1", 1), ("2", "d1", 1))
    done = export_query_set(connection, query_set, tmp_path, "trec", runs=[run])
    assert {path.name for path in done.files} == {
        "topics.tsv", "qrels.txt", f"run-{run}.txt", f"run-{run}.chunks.txt",
    }  # fmt: skip
    text = (tmp_path / f"run-{run}.txt").read_text()
    assert text.splitlines()[0] == f"1 Q0 d2 1 2 v1-run-{run}"
    run_file = list(ir_measures.read_trec_run(str(tmp_path / f"run-{run}.txt")))
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "qrels.txt")))
    values = {m.query_id: m.value for m in ir_measures.iter_calc([ir_measures.RR @ 10], qrels, run_file)}
    assert values == {"1": 0.5, "2": 1.0}
    chunks = [line.split()[2] for line in (tmp_path / f"run-{run}.chunks.txt").read_text().splitlines()]
    assert chunks == [second[0], first[1], first[0], first[0], second[0]]

    with pytest.raises(UsageError, match="in the layout of TREC only"):
        export_query_set(connection, query_set, tmp_path / "x", "beir", runs=[run])
    with pytest.raises(UsageError, match="There is no run 99"):
        export_query_set(connection, query_set, tmp_path / "x", "trec", runs=[99])
    other = new_set(connection, Query("1", "other"), name="other")
    with pytest.raises(UsageError, match="is of the query set 'set', not of 'other'"):
        export_query_set(connection, other, tmp_path / "x", "trec", runs=[run])
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(not DATA.is_dir(), reason="the judged collections of ../shared/data are not there")
@pytest.mark.parametrize(("name", "queries", "judgements"), [("cranfield", 225, None), ("medline", 30, None)])
def test_the_shared_collections(name: str, queries: int, judgements: int | None, tmp_path: Path) -> None:
    paths = beir_files(DATA / name)
    assert paths[1] is not None
    found, judged = read_queries(paths[0]), read_qrels(paths[1])
    rows = [line.split("\t") for line in paths[1].read_text().splitlines()[1:]]
    assert len(found) == queries
    assert {query.segment for query in found} == {"short", "medium", "long"}
    assert found[0].text == json.loads(paths[0].read_text().splitlines()[0])["text"]
    assert judged.grades == {
        query: {target: int(grade) for other, target, grade in rows if other == query} for query, *_ in rows
    }
    assert sum(map(len, judged.grades.values())) + judged.repeated == len(rows)
    flat = [
        (query, target, grade) for query, by_target in judged.grades.items() for target, grade in by_target.items()
    ]
    writing.write_files({tmp_path / "t": writing.trec_topics(found), tmp_path / "q": writing.trec_qrels(flat)})
    assert read_queries(tmp_path / "t") == found
    assert read_qrels(tmp_path / "q").grades == judged.grades
    assert np.isin([grade for *_, grade in flat], [1, 2, 3, 4]).all()
