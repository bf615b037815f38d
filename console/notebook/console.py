"""The Console of a notebook: the command line's functions, with results that a notebook shows and code can use."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from revector.console.context import Context, open_aloud
from revector.console.notebook import views
from revector.console.notebook.answer import Answer, Picture
from revector.console.notebook.kernel import CellInterruptedError, Live, errors_for_people, in_kernel
from revector.core.errors import UsageError
from revector.core.evaluation.reports.page import Note, ReportPage

if TYPE_CHECKING:
    from revector.core.audit import AuditEntry
    from revector.core.backfill.job.status import JobStatus
    from revector.core.cutover import Check, Flip
    from revector.core.database import Connection, Database
    from revector.core.evaluation.document import Evaluation, EvaluationSummary
    from revector.core.evaluation.judged_sets.query_sets import QuerySetSummary
    from revector.core.evaluation.measures.thresholds import Thresholds
    from revector.core.index import IndexState
    from revector.core.registry import Version, VersionStatus
    from revector.core.retrieval import Comparison, EncoderCache, SearchResult

T = TypeVar("T")

_POLL_S = 0.5


class Console:
    """One collection, in a notebook.

    The database is `dsn`, else as for the command line (REVECTOR_DSN, DATABASE_URL, PG*, revector.toml), else the
    embedded server, started when first needed. `read_only` refuses all changes.

    Every method returns an Answer: it shows itself in a notebook, `data` is core's object, and `rows()` returns
    dictionaries for a data frame. Errors are those of core.errors; IPython shows them without a traceback.
    """

    def __init__(self, dsn: str | None = None, schema: str | None = None, read_only: bool | None = None) -> None:
        self._own = Context(dsn, schema, read_only)

    @classmethod
    @errors_for_people()
    def demo(cls, schema: str | None = None) -> Console:
        """A Console on the demo's collection, at the start of the story.

        Python's own documentation, `demo-64` active, `demo-256` registered, and judged queries. Raises RefusedError
        when the collection holds anything else.
        """
        from revector.console.demo import story

        found = cls(schema=schema)
        _ = found._database  # reports what it waits for
        live = Live()
        story.prepare(found._own, live.progress)
        with found._session() as connection:
            story.begin_anew(connection)
        live.show(
            ReportPage(
                "The demo is ready", (Note(f"{story.FIRST} is active, {story.SECOND} is registered."),), "pass"
            )
        )
        return found

    def __repr__(self) -> str:
        database = self._database
        return f"revector: {database.name}, schema {database.schema}{', read-only' if database.read_only else ''}"

    # -- versions and their backfills ---------------------------------------------------------------------

    @errors_for_people()
    def versions(self) -> Answer[tuple[VersionStatus, ...]]:
        """All versions with their counts."""
        from revector.core.registry import version_statuses

        with self._session() as connection:
            found = tuple(version_statuses(connection))
        return _answer(found, *views.versions_page(found))

    @errors_for_people()
    def status(self, key: str) -> Answer[JobStatus]:
        """The status of a version's backfill. Raises UsageError when it never had one."""
        from revector.core import index
        from revector.core.registry import get_version

        with self._session() as connection:
            version = get_version(connection, key)
            return _backfill_answer(_status(connection, version), index.inspect(connection, version))

    @errors_for_people()
    def backfill(self, key: str, *, build_index: bool = True, **settings: object) -> Answer[JobStatus]:
        """Run or continue a version's backfill, and build its index; follows it when it runs elsewhere.

        `settings` are those of `revector backfill set` (workers=2, max_rate=500 …). The cell shows the progress.
        On an interrupt the workers finish their current batches; the job is then `interrupted`, and the next call
        continues it. A followed backfill keeps running. If the encoder costs money, this call is the consent, and
        max_spend_usd the limit.
        """
        from revector.core.backfill.job import job
        from revector.core.backfill.job.status import status as job_status
        from revector.core.registry import get_version

        with self._session() as connection:
            version = get_version(connection, key)
            found = job_status(connection, version)
            elsewhere = found is not None and found.state in job.AT_WORK
            if settings or not elsewhere:
                self._own.require_writable()
            live = Live()
            if not elsewhere:
                return self._run(connection, version, settings, live, build_index=build_index)
            if settings:
                job.change_settings(connection, version, settings)
            return self._follow(connection, version, live)

    def _run(
        self,
        connection: Connection,
        version: Version,
        settings: dict[str, object],
        live: Live,
        *,
        build_index: bool,
    ) -> Answer[JobStatus]:
        from revector.core import index
        from revector.core.backfill.engines.local import LocalEngine
        from revector.core.backfill.job.settings import changed, default_settings
        from revector.core.backfill.plan.plan import cost_to_begin

        wanted = changed(default_settings(self._own.settings), settings)
        cost = cost_to_begin(connection, version, open_aloud)
        notes = [Note(cost, "soft")] if cost else []

        def show(found: JobStatus) -> None:
            live.show(views.backfill_page(found, None, *notes), now=False)

        engine = LocalEngine(
            self._database, version, wanted, settings, on_status=show,
            on_note=lambda text: notes.append(Note(text, "inconclusive")),
        )  # fmt: skip
        try:
            found = engine.run()
            if found.state == "done" and build_index:
                live.show(views.backfill_page(found, None, *notes, Note("Building the index …")))
                index.build(connection, version, self._own.settings)
        except KeyboardInterrupt:
            found = _status(connection, version)
            kept = Note(f'Interrupted; nothing is lost. Resume: console.backfill("{version.version_key}")')
            live.show(views.backfill_page(found, None, *notes, kept))
            raise CellInterruptedError(kept.text) from None
        return _backfill_answer(found, index.inspect(connection, version), live, *notes)

    def _follow(self, connection: Connection, version: Version, live: Live) -> Answer[JobStatus]:
        from revector.core import index
        from revector.core.backfill.job.job import AT_WORK

        elsewhere = Note("It is running elsewhere; this cell follows it.", "soft")
        try:
            while (found := _status(connection, version)).state in AT_WORK:
                live.show(views.backfill_page(found, None, elsewhere))
                time.sleep(_POLL_S)
        except KeyboardInterrupt:
            text = "No longer following. The backfill keeps running elsewhere."
            live.show(views.backfill_page(_status(connection, version), None, Note(text)))
            raise CellInterruptedError(text) from None
        return _backfill_answer(found, index.inspect(connection, version), live)

    # -- search and comparison ----------------------------------------------------------------------------

    @errors_for_people()
    def search(self, text: str, k: int = 10, *, version: str | None = None) -> Answer[SearchResult]:
        """The top-k by the active version, as users get it, or by the named one."""
        from revector.core.registry import get_version
        from revector.core.retrieval import VersionSearcher

        with self._session() as connection:
            named = get_version(connection, version) if version is not None else None
            found = VersionSearcher(connection, self._encoders).search(text, k, version=named)
        return _answer(found, *views.search_page(found))

    @errors_for_people()
    def compare(
        self, text: str, k: int = 10, *, candidate: str | None = None, primary: str | None = None
    ) -> Answer[Comparison]:
        """The top-k of two versions side by side: rank moves, grades if the query is judged, and overlap.

        By default `primary` is the active version, `candidate` the newest other one with vectors.
        """
        from revector.console.commands.search import chosen_versions
        from revector.core.evaluation.judged_sets.judged_hits import judge_comparison
        from revector.core.evaluation.reports.charts import depth_chart
        from revector.core.retrieval import VersionSearcher

        with self._session() as connection:
            pair = chosen_versions(connection, primary, candidate)
            searcher = VersionSearcher(connection, self._encoders)
            found = searcher.compare(text, *pair, k)
            judged = judge_comparison(connection, searcher, found, *pair)
        return _answer(found, *views.comparison_page(found, judged, depth_chart(found.overlap_by_depth)))

    # -- evaluation ---------------------------------------------------------------------------------------

    @errors_for_people()
    def query_sets(self) -> Answer[tuple[QuerySetSummary, ...]]:
        """All query sets."""
        from revector.core.evaluation.judged_sets.query_sets import query_sets

        with self._session() as connection:
            found = tuple(query_sets(connection))
        return _answer(found, *views.query_sets_page(found))

    @errors_for_people()
    def evaluate(
        self,
        name: str,
        candidate: str | None = None,
        *,
        primary: str | None = None,
        gates: str | Path | None = None,
        measures: Sequence[str] = (),
        judges: Sequence[str] = (),
        k: int = 10,
        exact: bool = False,
        ef_search: int | None = None,
        hybrid: bool = False,
        confidence: float = 0.95,
    ) -> Answer[Evaluation]:
        """Search two versions for every query of a set; measures by segment, rank overlap, and the verdict of gates.

        `gates` is a file as for `revector evaluate --gates`; `exact` searches without the index, so that
        differences come from the model alone; `hybrid` searches full text too. A verdict is never an exception: see
        `answer.data.verdict`.
        """
        from revector.console.commands.search import chosen_versions
        from revector.core.evaluation.evaluate import Asked, evaluate
        from revector.core.evaluation.gates.gate_file import read_gates
        from revector.core.evaluation.judged_sets.query_sets import get_query_set
        from revector.core.evaluation.reports.evaluation import evaluation_page

        self._own.require_writable()
        asked = Asked(judges, measures, read_gates(Path(gates)) if gates else None, k, confidence)
        with self._session() as connection:
            query_set = get_query_set(connection, name)
            pair = chosen_versions(connection, primary, candidate)
        live = Live()
        with live.progress() as progress:
            found = evaluate(
                self._database, query_set, *pair, asked,
                exact=exact, ef_search=ef_search, hybrid=hybrid, encoders=self._encoders, on_progress=progress,
            )  # fmt: skip
        return _answer(found, evaluation_page(found), [asdict(row) for row in found.measures], live)

    @errors_for_people()
    def evaluation(self, number: int) -> Answer[Evaluation]:
        """A stored evaluation."""
        from revector.core.evaluation.document import get_evaluation
        from revector.core.evaluation.reports.evaluation import evaluation_page

        with self._session() as connection:
            found = get_evaluation(connection, number)
        return _answer(found, evaluation_page(found), [asdict(row) for row in found.measures])

    @errors_for_people()
    def evaluations(self, *, candidate: str | None = None, n: int = 50) -> Answer[tuple[EvaluationSummary, ...]]:
        """The evaluations, newest first; only those of one candidate when it is named."""
        from revector.core.evaluation.document import evaluations

        with self._session() as connection:
            found = tuple(evaluations(connection, candidate=candidate, limit=n))
        return _answer(found, *views.evaluations_page(found))

    @errors_for_people()
    def thresholds(
        self,
        name: str,
        candidate: str | None = None,
        *,
        primary: str | None = None,
        cut: float | None = None,
        depth: int = 1,
    ) -> Answer[Thresholds]:
        """Absolute score thresholds: the candidate's value that keeps the same share of results.

        Takes the newest runs of the query set, or makes them.
        """
        from revector.console.commands.evaluation.evaluate import threshold_table

        live = Live()
        found, pair = threshold_table(
            self._own, name, primary, candidate, self._encoders, cut=cut, depth=depth, shown=live.progress
        )
        page, rows = views.thresholds_page(found, pair[0].version_key, pair[1].version_key)
        return _answer(found, page, rows, live)

    # -- cutover ------------------------------------------------------------------------------------------

    @errors_for_people()
    def cutover_check(self, key: str) -> Answer[Check]:
        """Run every guard of a cutover."""
        from revector.core import cutover

        with self._session() as connection:
            found = cutover.check(connection, key, encoders=self._encoders)
        return _answer(found, *views.check_page(found))

    @errors_for_people()
    def cutover(self, key: str, *, confirm: str, reason: str = "") -> Answer[Flip]:
        """Check the guards and flip, in one transaction; `confirm` repeats the key. On any error nothing changes.

        Raises RefusedError when a guard does not pass.
        """
        from revector.core import cutover

        with self._session(changes=True) as connection:
            found = cutover.run(connection, key, confirm=confirm, reason=reason)
        return _answer(found, *views.flip_page(found))

    @errors_for_people()
    def rollback(self, *, confirm: str, reason: str = "") -> Answer[Flip]:
        """Make the version before the newest cutover active again; `confirm` repeats its key.

        Never refused for a guard; says what it lacks. A second time nothing changes.
        """
        from revector.core import cutover

        with self._session(changes=True) as connection:
            found = cutover.rollback(connection, confirm=confirm, reason=reason)
        return _answer(found, *views.flip_page(found))

    @errors_for_people()
    def log(self, n: int = 20, *, key: str | None = None) -> Answer[tuple[AuditEntry, ...]]:
        """The audit log, newest first; only entries of one version when its key is given."""
        from revector.core.audit import entries

        if not 1 <= n <= 10_000:
            raise UsageError(f"{n} entries cannot be shown.", "Ask for 1 to 10,000.")
        with self._session() as connection:
            found = tuple(entries(connection, limit=n, version_key=key))
        return _answer(found, *views.log_page(found))

    # -- the terminal's screens ---------------------------------------------------------------------------

    @errors_for_people()
    def snapshot(
        self,
        tab: str = "compare",
        size: tuple[int, int] = (120, 40),
        *,
        query: str | None = None,
        candidate: str | None = None,
    ) -> Picture:
        """A screen of the terminal console as SVG, in columns and lines; of the Compare tab with a query's results."""
        from revector.console.notebook.snapshot import take_snapshot
        from revector.core.registry import get_version

        if candidate is not None:
            with self._session() as connection:
                get_version(connection, candidate)
        return take_snapshot(self._database, self._own.settings, tab, size, query, candidate)

    # -- what they share ----------------------------------------------------------------------------------

    @cached_property
    def _database(self) -> Database:
        live = Live()
        if in_kernel():
            title = "The embedded server"
            self._own.on_wait = lambda text: live.show(ReportPage(title, (Note(text, "soft"),)))
        database = self._own.database
        if live.drawn:
            live.show(ReportPage("The embedded server runs", kind="pass"))
        return database

    @cached_property
    def _encoders(self) -> EncoderCache:
        from revector.core.retrieval import EncoderCache

        return EncoderCache(open_aloud)

    @contextlib.contextmanager
    def _session(self, *, changes: bool = False) -> Iterator[Connection]:
        if changes:
            self._own.require_writable()
        with self._database.session("notebook") as connection:
            yield connection


def _status(connection: Connection, version: Version) -> JobStatus:
    from revector.core.backfill.job.status import status

    found = status(connection, version)
    if found is None:
        key = version.version_key
        raise UsageError(f"Version {key} has no backfill yet.", f'Start it: console.backfill("{key}")')
    return found


def _backfill_answer(
    found: JobStatus, index: IndexState, live: Live | None = None, *notes: Note
) -> Answer[JobStatus]:
    return _answer(found, views.backfill_page(found, index, *notes), [asdict(found)], live)


def _answer(data: T, page: ReportPage, rows: Sequence[views.Record], live: Live | None = None) -> Answer[T]:
    """The answer; with `live` it replaces the progress that the cell shows, if any."""
    shown_in = None
    if live is not None and live.shown_in is not None:
        live.show(page)
        shown_in = live.shown_in
    return Answer(data, page, tuple(rows), shown_in)
