"""`revector queries`: imports, exports and lists judged query sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from revector.console.commands.evaluation import agreement
from revector.console.commands.options import Json, QuerySetName
from revector.console.context import aligned, answer, context_of, counted, fold, note, right
from revector.console.contract import answering

if TYPE_CHECKING:
    from revector.core.database import Connection
    from revector.core.evaluation.files.importing import Imported
    from revector.core.evaluation.judged_sets.judgements import GivenJudgement
    from revector.core.evaluation.judged_sets.query_sets import QuerySet

app = typer.Typer(name="queries", help="Query sets and their judgements.")

TargetsOption = Annotated[
    str, typer.Option("--targets", metavar="KIND", help="What the judgements are on: documents or chunks.")
]

app.command("agreement", cls=answering("console.commands.evaluation.agreement:AgreementList"))(agreement.agreement)

_TARGETS: dict[str, Literal["document", "chunk"]] = {"documents": "document", "chunks": "chunk"}
_NAMED = 5
"""How many items of a long list are printed."""


@dataclass(frozen=True)
class ImportedSet:
    """A query set that was imported."""

    name: Annotated[str, "the query set"]
    revision: Annotated[str, "a digest of ids, texts and segments"]
    queries: Annotated[int, "in the set now"]
    segments: Annotated[tuple[str, ...], "of the queries"]


@dataclass(frozen=True)
class SetSegment:
    """A segment of a query set."""

    segment: Annotated[str, "its name"]
    queries: Annotated[int, "in it"]
    judged: Annotated[int, "of them, with a judgement"]


@dataclass(frozen=True)
class SetJudge:
    """A judge of a query set."""

    judge: Annotated[str, "the name"]
    kind: Annotated[str, "person or model"]
    judgements: Annotated[int, "that were given"]
    chunks: Annotated[int, "of them, on chunks"]


@dataclass(frozen=True)
class UnknownTarget:
    """A judged target that is not in the collection."""

    query: Annotated[str, "the query's id"]
    kind: Annotated[str, "document or chunk"]
    target: Annotated[str, "what was judged"]


@dataclass(frozen=True)
class FullSet:
    """Everything about a query set."""

    name: Annotated[str, "the query set"]
    revision: Annotated[str, "a digest of ids, texts and segments"]
    queries: Annotated[int, "in it"]
    judgements: Annotated[int, "of all judges"]
    segments: Annotated[list[SetSegment], "by name"]
    judges: Annotated[list[SetJudge], "people first"]
    unknown_targets: Annotated[list[UnknownTarget], "judged, and not in the collection"]


@dataclass(frozen=True)
class ExportedSet:
    """The exported query set."""

    name: Annotated[str, "the query set"]
    format: Annotated[str, "beir or trec"]


@dataclass(frozen=True)
class DroppedSet:
    """What was deleted."""

    name: Annotated[str, "the query set"]
    dropped: Annotated[bool, "true"] = True


_HERE = "console.commands.evaluation.queries"
_IMPORTED = (
    f"{_HERE}:ImportedSet",
    "core.evaluation.judged_sets.query_sets:QueryChanges",
    "core.evaluation.files.importing:Imported",
)


@app.command("import", cls=answering(*_IMPORTED))
def import_(
    context: typer.Context,
    name: QuerySetName,
    queries: Annotated[
        Path | None,
        typer.Option("--queries", metavar="FILE", help="BEIR's queries.jsonl, TREC topics, or a BEIR folder."),
    ] = None,
    qrels: Annotated[
        Path | None, typer.Option("--qrels", metavar="FILE", help="Judgements as BEIR's .tsv or TREC's qrels.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option("--judge", metavar="NAME", help="Who judged. Default: qrels.")
    ] = None,
    targets: TargetsOption = "documents",
    replace: Annotated[bool, typer.Option("--replace", help="Replace this judge's earlier judgements.")] = False,
    as_json: Json = False,
) -> None:
    """Import queries, judgements or both; the same set again replaces its queries.

    A query whose text changed loses its judgements: they were on another one. A TSV of topics has the id, the text
    and perhaps a segment. Judged documents are named by their source ids, chunks by their semantic keys.
    """
    from revector.core.errors import UsageError, unknown_name
    from revector.core.evaluation.files.importing import import_query_set
    from revector.core.evaluation.files.qrels import read_qrels
    from revector.core.evaluation.files.topics import beir_files, read_queries
    from revector.core.evaluation.judged_sets.judgements import IMPORTED
    from revector.core.keys import document

    if queries is None and qrels is None:
        raise UsageError("There is nothing to import.", "Name a file: --queries FILE, --qrels FILE, or both.")
    if targets not in _TARGETS:
        raise unknown_name("kind of target", targets, _TARGETS)
    if queries is not None and queries.is_dir():
        queries, found = beir_files(queries)
        qrels = qrels or found
    own = context_of(context)
    own.require_writable()
    read = None if queries is None else read_queries(queries)
    judged = None if qrels is None else read_qrels(qrels)
    if judged is None and (judge is not None or replace):
        raise UsageError("--judge and --replace need judgements.", "Add --qrels FILE.")
    with own.session(changes=True) as connection:
        done = import_query_set(
            connection, name, read, judged, judge=judge or IMPORTED, targets=_TARGETS[targets], replace=replace
        )
    _note_oddities(done, targets)
    changes = done.changes
    now = ImportedSet(name, done.query_set.revision, len(done.query_set.queries), done.query_set.segments)

    def show() -> Iterator[str]:
        yield (
            f"{name}: {_queries(len(done.query_set.queries))} in {counted(len(done.query_set.segments), 'segment')}"
            f" ({changes.added:,} added, {changes.changed:,} changed, {changes.removed:,} removed), "
            f"revision {done.query_set.revision}."
        )
        if done.judge is not None:
            yield f"{counted(done.judgements, 'judgement')} by {done.judge} on {targets}."

    answer(document(now) | document(changes) | document(done), as_json, show())


@app.command("list", cls=answering(query_sets="core.evaluation.judged_sets.query_sets:QuerySetSummary"))
def list_sets(context: typer.Context, as_json: Json = False) -> None:
    """All query sets."""
    from revector.core.evaluation.judged_sets.query_sets import query_sets

    with context_of(context).session() as connection:
        found = query_sets(connection)

    def show() -> Iterator[str]:
        if not found:
            yield "There is no query set yet."
            yield "Import one: revector queries import NAME --queries FILE --qrels FILE"
            return
        from revector.screens.wording.text import date_and_time

        yield from aligned(
            [
                (
                    s.name,
                    f"{s.queries:,}",
                    f"{len(s.segments):,}",
                    f"{s.judgements:,}",
                    ", ".join(s.judges) or "—",
                    date_and_time(s.updated_at),
                )
                for s in found
            ],
            fold("query set"),
            *right("queries", "segments", "judgements"),
            fold("judges"),
            "updated",
        )

    answer({"query_sets": found}, as_json, show())


@app.command(cls=answering(f"{_HERE}:FullSet"))
def show(context: typer.Context, name: QuerySetName, as_json: Json = False) -> None:
    """One query set: its segments, its judges, and judged targets that are not in the collection."""
    from revector.core.evaluation.judged_sets.judgements import given_judgements
    from revector.core.evaluation.judged_sets.query_sets import get_query_set

    with context_of(context).session() as connection:
        query_set = get_query_set(connection, name)
        given = given_judgements(connection, query_set)
        found = _full_set(connection, query_set, given)
    answer(found, as_json, _set_lines(found))


@app.command(cls=answering(f"{_HERE}:ExportedSet", "core.evaluation.files.exporting:Exported"))
def export(
    context: typer.Context,
    name: QuerySetName,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write to; created if missing.")],
    layout: Annotated[str, typer.Option("--format", metavar="LAYOUT", help="beir or trec.")] = "beir",
    judge: Annotated[
        str | None,
        typer.Option("--judge", metavar="NAME", help="One judge's grades, instead of everybody's merged."),
    ] = None,
    run: Annotated[
        list[int] | None, typer.Option("--run", metavar="ID", help="Also a stored run, with --format trec.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Overwrite existing files.")] = False,
    as_json: Json = False,
) -> None:
    """Write a query set and its judgements in the layout of BEIR or of TREC.

    BEIR: queries.jsonl and qrels/test.tsv. TREC: topics.tsv, qrels.txt, run-ID.txt. Judgements on chunks are in a
    file of their own (qrels/chunks.tsv, qrels.chunks.txt).
    """
    from revector.core.errors import unknown_name
    from revector.core.evaluation.files.exporting import export_query_set
    from revector.core.evaluation.judged_sets.query_sets import get_query_set
    from revector.core.keys import document

    if layout not in ("beir", "trec"):
        raise unknown_name("format", layout, ("beir", "trec"))
    with context_of(context).session() as connection:
        done = export_query_set(
            connection, get_query_set(connection, name), folder,
            layout,  # type: ignore[arg-type]
            judge=judge, runs=run or (), overwrite=overwrite,
        )  # fmt: skip

    def show() -> Iterator[str]:
        judges = f" by {', '.join(done.judges)}" if done.judges else ""
        yield f"{name}: {_queries(done.queries)} and {counted(done.judgements, 'judgement')}{judges}."
        yield from map(str, done.files)

    answer(document(ExportedSet(name, layout)) | document(done), as_json, show())


@app.command(cls=answering(f"{_HERE}:DroppedSet"))
def drop(
    context: typer.Context,
    name: QuerySetName,
    confirm: Annotated[str | None, typer.Option("--confirm", metavar="NAME", help="The name again.")] = None,
    as_json: Json = False,
) -> None:
    """Delete a query set with its judgements, runs and evaluations, permanently."""
    from revector.console.confirmation import confirmed_key
    from revector.core.evaluation.judged_sets.judgements import judgement_count
    from revector.core.evaluation.judged_sets.query_sets import drop_query_set, get_query_set

    own = context_of(context)
    with own.session(changes=True) as connection:
        query_set = get_query_set(connection, name)
        judgements = counted(judgement_count(connection, query_set), "judgement")
        confirmed_key(
            own, name, confirm, f"This deletes {_queries(len(query_set.queries))}, {judgements}, and the runs and "
            f"evaluations of {name}, permanently.", what="name",
        )  # fmt: skip
        drop_query_set(connection, name)
    answer(DroppedSet(name), as_json, f"{name} was deleted.")


def _note_oddities(done: Imported, targets: str) -> None:
    """Print what an import noticed but accepted."""
    if done.negative:
        note(f"{counted(done.negative, 'grade')} below 0 (judged, not relevant) became 0.")
    if done.repeated:
        note(f"{counted(done.repeated, 'judgement')} appeared twice with the same grade.")
    if done.skipped:
        named = ", ".join(done.skipped_queries[:_NAMED]) + ("…" if len(done.skipped_queries) > _NAMED else "")
        note(
            f"{counted(done.skipped, 'judgement')} skipped, for {_queries(len(done.skipped_queries))} that the set "
            f"does not contain ({named})."
        )
    if done.unknown_targets:
        text = f"{counted(done.unknown_targets, 'judgement')} on {targets} that are not in the collection."
        if done.unknown_targets == done.judgements:
            other = "chunks" if targets == "documents" else "documents"
            text += f" None was found. Are they on {other} (--targets {other}), or is this another collection?"
        note(text)


def _full_set(connection: Connection, query_set: QuerySet, given: list[GivenJudgement]) -> FullSet:
    from revector.core.evaluation.judged_sets.judgements import in_collection

    here = {
        kind: in_collection(connection, kind, {row.target for row in given if row.target_kind == kind})
        for kind in _TARGETS.values()
    }
    unknown = dict.fromkeys((row.query, row.target_kind, row.target) for row in given)
    segments = {query.id: query.segment for query in query_set.queries}
    sizes = Counter(segments.values())
    judged = Counter(segments[query] for query in {row.query for row in given})
    by_judge = Counter((row.judge_kind, row.judge) for row in given)
    return FullSet(
        query_set.name,
        query_set.revision,
        len(query_set.queries),
        len(given),
        [SetSegment(segment, sizes[segment], judged[segment]) for segment in query_set.segments],
        [
            SetJudge(judge, kind, count, sum(row.judge == judge and row.target_kind == "chunk" for row in given))
            # People first, as in every list of judges.
            for (kind, judge), count in sorted(
                by_judge.items(), key=lambda item: (item[0][0] == "model", item[0][1])
            )
        ],
        [UnknownTarget(query, kind, target) for query, kind, target in unknown if target not in here[kind]],
    )


def _set_lines(found: FullSet) -> Iterator[str]:
    yield f"{found.name}: {_queries(found.queries)}, revision {found.revision}"
    yield from aligned(
        [(row.segment, f"{row.queries:,}", f"{row.judged:,}") for row in found.segments],
        fold("segment"),
        *right("queries", "judged"),
    )
    if found.judges:
        yield from aligned(
            [(r.judge, r.kind, f"{r.judgements:,}", f"{r.chunks:,}") for r in found.judges],
            fold("judge"),
            "kind",
            *right("judgements", "of them on chunks"),
        )
    else:
        yield "No judgements yet."
    if unknown := found.unknown_targets:
        named = ", ".join(f"{row.target} (query {row.query})" for row in unknown[:_NAMED])
        more = "…" if len(unknown) > _NAMED else ""
        yield f"{counted(len(unknown), 'judged target')} not in the collection: {named}{more}"


def _queries(number: int) -> str:
    return counted(number, "query", "queries")
