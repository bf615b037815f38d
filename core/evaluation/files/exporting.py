"""Exports query sets, judgements and stored runs as files for other tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from revector.core.database import Connection
from revector.core.errors import UsageError
from revector.core.evaluation.files import writing
from revector.core.evaluation.judged_sets import judgements
from revector.core.evaluation.judged_sets.query_sets import QuerySet
from revector.core.evaluation.runs.store import Results, get_run, load_results

Layout = Literal["beir", "trec"]

_QRELS: Mapping[tuple[Layout, judgements.TargetKind], str] = {
    ("beir", "document"): "qrels/test.tsv",
    ("beir", "chunk"): "qrels/chunks.tsv",
    ("trec", "document"): "qrels.txt",
    ("trec", "chunk"): "qrels.chunks.txt",
}


@dataclass(frozen=True)
class Exported:
    """The files written, and what is in them."""

    files: Annotated[tuple[Path, ...], "that were written"]
    queries: Annotated[int, "in them"]
    judgements: Annotated[int, "in them"]
    judges: Annotated[tuple[str, ...], "who gave the judgements"]


def export_query_set(
    connection: Connection,
    query_set: QuerySet,
    folder: Path,
    layout: Layout,
    *,
    judge: str | None = None,
    runs: Sequence[int] = (),
    overwrite: bool = False,
) -> Exported:
    """Write the set into a folder; importing the files gives the same set.

    - BEIR: queries.jsonl and qrels/test.tsv. TREC: topics.tsv and qrels.txt.
    - Judgements on chunks go into a separate file: qrels/chunks.tsv, qrels.chunks.txt.
    - With a judge, exactly that judge's grades; else the judgements as an evaluation reads them (see load_qrels). A
      model's scores have no place in either layout.
    - For each run run-N.txt, ranking documents by their best chunks, and run-N.chunks.txt; TREC only.

    Raises RefusedError for an existing file unless told to overwrite, and UsageError for an unknown judge or run,
    a run of another set, and an id that the layout cannot hold; then nothing is written.
    """
    if runs and layout != "trec":
        raise UsageError("Runs are written in the layout of TREC only.", "Use --format trec.")
    grades, judges = _grades(connection, query_set, judge)
    files: dict[Path, Iterable[str]] = {}
    if layout == "beir":
        files[folder / "queries.jsonl"] = writing.beir_queries(query_set.queries)
    else:
        files[folder / "topics.tsv"] = writing.trec_topics(query_set.queries)
    write = writing.beir_qrels if layout == "beir" else writing.trec_qrels
    for kind, rows in grades.items():
        files[folder / _QRELS[layout, kind]] = write(rows)
    for number in runs:
        files |= _run_files(connection, query_set, folder, number)
    writing.write_files(files, overwrite=overwrite)
    return Exported(tuple(files), len(query_set.queries), sum(map(len, grades.values())), judges)


def _grades(
    connection: Connection, query_set: QuerySet, judge: str | None
) -> tuple[dict[judgements.TargetKind, list[tuple[str, str, int]]], tuple[str, ...]]:
    grades: dict[judgements.TargetKind, list[tuple[str, str, int]]] = {}
    if judge is not None:
        judgements.get_judge(connection, judge)
        for row in judgements.given_judgements(connection, query_set, judge=judge):
            grades.setdefault(row.target_kind, []).append((row.query, row.target, row.grade))
        return grades, (judge,)
    if judgements.judgement_count(connection, query_set) == 0:
        return grades, ()
    qrels = judgements.load_qrels(connection, query_set)
    grades[qrels.level] = [
        (query, target, grade)
        for query, by_target in sorted(qrels.grades.items())
        for target, grade in sorted(by_target.items())
    ]
    return grades, qrels.judges


def _run_files(
    connection: Connection, query_set: QuerySet, folder: Path, number: int
) -> Iterator[tuple[Path, Iterator[str]]]:
    run = get_run(connection, number)
    if run.query_set != query_set.name:
        raise UsageError(f"Run {number} is of the query set {run.query_set!r}, not of {query_set.name!r}.")
    results = load_results(connection, run)
    tag = f"{run.version_key}-run-{number}"
    documents, chunks = _rankings(connection, results)
    yield folder / f"run-{number}.txt", writing.trec_run(documents, tag)
    yield folder / f"run-{number}.chunks.txt", writing.trec_run(chunks, tag)


def _rankings(connection: Connection, results: Results) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Query id → documents, each ranked by its best chunk, and query id → semantic keys, best first.

    Chunks that were deleted since are left out.
    """
    wanted = {int(chunk) for hits in results.hits.values() for chunk in hits.chunk_ids}
    rows = connection.execute(
        "SELECT id, semantic_key, source_id, document_id FROM document_chunks WHERE id = ANY(%s)", [list(wanted)]
    ).fetchall()
    known = {
        chunk: (key, judgements.document_target(source_id, document)) for chunk, key, source_id, document in rows
    }
    documents, chunks = {}, {}
    for query, hits in results.hits.items():
        found = [known[chunk] for chunk in map(int, hits.chunk_ids) if chunk in known]
        chunks[query] = [key for key, _ in found]
        documents[query] = list(dict.fromkeys(document for _, document in found))
    return documents, chunks
