"""A snapshot built by hand, and a reader that always has it: screens without a database."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import replace

from revector.core.audit import AuditEntry
from revector.core.backfill.job.dead_letters import Failure
from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.job.status import Cell, JobDetail, JobStatus, Proof, Transition, WorkerState
from revector.core.cutover import Check, Guard
from revector.core.database import Database, ServerInfo
from revector.core.evaluation.document import Evaluation, OverlapResult, QueryResult, Run
from revector.core.evaluation.judged_sets.judged_hits import JudgedHits
from revector.core.evaluation.judged_sets.query_sets import Query, QuerySet
from revector.core.explain import Explanation
from revector.core.index import IndexState
from revector.core.overlap import compare
from revector.core.overview import Overview
from revector.core.registry import Version, VersionStatus
from revector.core.retrieval import Comparison, Hit, SearchResult
from revector.core.revisions import HEAD
from revector.screens.compare.query_sets import Browsing, PairFacts, browse
from revector.screens.frame.snapshots import Reading
from revector.screens.situation import Situation, State

NOW = datetime.datetime(2026, 3, 1, 14, 2, 11, tzinfo=datetime.UTC)
YESTERDAY = NOW - datetime.timedelta(days=1)

NOWHERE = Database("host=/nowhere dbname=search", "docs")
"""A database that is not there."""


def version(number: int, key: str, dimensions: int, state: str, *, active: bool = False) -> Version:
    """A version of an encoder of that many dimensions."""
    complete = None if state in ("registered", "backfilling") else YESTERDAY
    spec = f"static:wordllama-{dimensions}"
    return Version(
        number, key, spec, "r1", dimensions, "cosine", active, YESTERDAY, state, spec, "vector", {}, "ada", "",
        complete, complete, YESTERDAY if active else None, None,
    )  # fmt: skip


def job(key: str, state: str, done: int, total: int, **changes: object) -> JobStatus:
    """A backfill at some point."""
    status = JobStatus(key, state, total, done, 0, total - done, 250.0, 8.0, None, 1, 0.0, None, YESTERDAY, None)
    status = replace(status, run_started_at=YESTERDAY, run_done=done)
    return replace(status, **changes)  # type: ignore[arg-type]


def detail(**changes: object) -> JobDetail:
    """A job on which two people's workers are: half done, held, with a failed chunk here and there."""
    minute = datetime.timedelta(minutes=1)
    cells = []
    for number in range(300):
        done = number < 160 or number in (163, 164)
        running = number in (160, 161, 165)
        failed = {40: 1, 97: 12}.get(number, 0)
        cells.append(Cell(number * 16_384 + 1, (number + 1) * 16_384, 1, int(done), int(running), failed))

    def worker(number: int, client: str, **more: object) -> WorkerState:
        one = WorkerState(
            number, client, "local", 4_000 + number, True, YESTERDAY, NOW, None, 420 * number, 256, None, None
        )
        return replace(one, **more)  # type: ignore[arg-type]

    return replace(
        JobDetail(
            JobSettings(workers=2, max_rate=500.0, max_spend_usd=50.0, max_replication_lag_s=5.0),
            {
                "held_by": "max_replication_lag_s",
                "max_spend_usd": {"value": 1.2, "reason": None},
                "max_replication_lag_s": {"value": 12.3, "reason": "standby b is 12 s behind, limit 5 s"},
            },
            (
                worker(9, "ada@ops-1"),
                worker(8, "bob@ops-2", throttle="429: Rate limit reached, waiting 20 s"),
                worker(
                    7, "ada@ops-1", alive=False, seen_at=NOW - 4 * minute, ended_at=None,
                    error=None, started_at=YESTERDAY,
                ),
            ),
            tuple(cells),
            (Proof(YESTERDAY, 12, 2_600, 0, 0.4),),
            (
                Transition(NOW - 9 * minute, "paused", "running", None, "ada@ops-1"),
                Transition(NOW - 12 * minute, "pausing", "paused", None, "ada@ops-1"),
                Transition(NOW - 13 * minute, "running", "pausing", "asked for", "bob@ops-2"),
                Transition(YESTERDAY, None, "running", None, "ada@ops-1"),
            ),
        ),
        **changes,  # type: ignore[arg-type]
    )  # fmt: skip


def letters(count: int = 3) -> tuple[Failure, ...]:
    """Dead letters."""
    return tuple(
        Failure(
            700 + number, f"guide/{number}.md", number, "400: the input is too long: 9,001 tokens, at most 8,191",
            2, NOW, "a scan without text" if number == 1 else None,
        )
        for number in range(count)
    )  # fmt: skip


OVERVIEW = Overview(
    taken_at=NOW,
    server=ServerInfo("18.6", "0.8.6", HEAD, "ada", False),
    versions=(
        VersionStatus(version(1, "embed-v2026-02", 64, "active", active=True), 4_856, 0, 0),
        VersionStatus(version(2, "embed-v2026-03", 256, "ready"), 4_856, 0, 0),
        VersionStatus(version(3, "embed-v2026-04", 256, "backfilling"), 2_800, 2_056, 0),
    ),
    jobs={
        "embed-v2026-03": job("embed-v2026-03", "done", 4_856, 4_856, finished_at=NOW, workers=0, rate=0.0),
        "embed-v2026-04": job("embed-v2026-04", "running", 2_800, 4_856),
    },
    rates={"embed-v2026-04": (200.0, 260.0, 240.0, 250.0)},
    indexes={
        "embed-v2026-02": IndexState("chunk_embeddings_1_hnsw", True, True, 2_800_000),
        "embed-v2026-03": IndexState("chunk_embeddings_2_hnsw", True, True, 6_600_000),
        "embed-v2026-04": IndexState("chunk_embeddings_3_hnsw", False, False, 0),
    },
    builds={},
    rollback_to=None,
    log=(
        AuditEntry(
            2, NOW, "ada", "ada@ops-1", "revector console", "cutover", "embed-v2026-02", "done",
            "better", {"from": None, "to": "embed-v2026-02"},
        ),
        AuditEntry(
            1, YESTERDAY, "ada", "ada@ops-1", "revector cli", "versions add", "embed-v2026-02", "done", "", {}
        ),
    ),
)  # fmt: skip


def situation(
    overview: Overview | None = OVERVIEW,
    selection: str | None = None,
    tabs: tuple[object, ...] = (),
    **state: object,
) -> Situation:
    """A live situation, on the Versions tab unless another is named."""
    return Situation(overview, selection, State(**{"live": True, "tab": "1", **state}), tabs)  # type: ignore[arg-type]


class FrozenReader:
    """Has one snapshot for ever, just received; `change` puts another one in its place."""

    def __init__(self, overview: Overview | None = OVERVIEW) -> None:
        self.latest = Reading(overview, time.monotonic(), lost=False)
        self.requests = 0
        self.retries = 0
        self._on_reading: Callable[[], None] = lambda: None

    def start(self, on_reading: Callable[[], None] | None = None) -> None:
        """Nothing to do."""
        self._on_reading = on_reading or self._on_reading

    def request(self) -> None:
        """There is nothing newer; the snapshot stays fresh."""
        self.requests += 1
        if self.latest.error is None:
            self.latest = replace(self.latest, received=time.monotonic())

    def retry(self) -> None:
        """There is nothing to reach."""
        self.retries += 1

    def stop(self) -> None:
        """There is no thread."""

    def change(self, reading: Reading) -> None:
        """The next reading."""
        self.latest = reading
        self._on_reading()


TITLES = {
    1: "Key rotation policy",
    2: "Secrets manager overview",
    3: "Rotating credentials",
    4: "API keys: create, rotate, revoke",
    5: "[red]Hostile[/red] \x1b[31mtitle\x1b[0m \u202eand\u202c more",
    6: "漢字 wide title 漢字",
}


def result(key: str, order: list[int], seconds: float) -> SearchResult:
    """Hits in that order of chunk ids."""
    hits = tuple(
        Hit(rank, chunk, f"key-{chunk}", f"guide/{chunk}.md", 0, rank / 10, f"{TITLES[chunk]}\nText of {chunk}.")
        for rank, chunk in enumerate(order, 1)
    )
    return SearchResult("rotate an api key", key, hits, seconds, 2 * seconds)


def comparison() -> Comparison:
    """Five hits each, of which four are common."""
    first, second = [1, 2, 3, 5, 6], [3, 2, 1, 4, 5]
    return Comparison(
        "rotate an api key",
        5,
        result("embed-v2026-02", first, 0.0006),
        result("embed-v2026-03", second, 0.0007),
        compare([f"key-{n}" for n in first], [f"key-{n}" for n in second], 5),
    )


def check(*, ready: bool = True) -> Check:
    """Guards of the candidate."""
    return Check(
        "embed-v2026-03",
        (
            Guard("complete", "pass", "4,856 of 4,856 chunks embedded, proven 2026-02-28 14:02"),
            Guard("index valid", "pass", "chunk_embeddings_2_hnsw, 6.6 MB"),
            Guard("index used", "pass", "Index Scan using chunk_embeddings_2_hnsw")
            if ready
            else Guard("index used", "fail", "the planner takes a Seq Scan", "ANALYZE chunk_embeddings_2"),
        ),
    )


def judged() -> JudgedHits:
    """The judgements on `comparison`'s hits."""
    query = Query("q7", "rotate an api key", "how-to")
    return JudgedHits("support", query, "document", ("ada", "bob"), {3: 2, 4: 1, 2: 0}, 3, 5, 0.61, 0.78)


def facts() -> PairFacts:
    """An evaluation of the pair by three segments."""
    runs = [
        Run(
            number,
            "support",
            "r1",
            key,
            "static",
            "r1",
            100,
            False,
            False,
            100,
            {},
            None,
            4_856,
            40,
            "done",
            NOW,
            NOW,
            2.0,
            "ada",
        )
        for number, key in ((1, "embed-v2026-02"), (2, "embed-v2026-03"))
    ]
    segments = {"all": (0.5, 0.66, 0.9), "billing": (0.7, 0.82, 0.95), "how-to": (0.3, 0.48, 0.6)}
    overlaps = tuple(
        OverlapResult("rbo", name, 20, mean, (0.0, 0.1, low, mean, high, 0.98, 1.0), (2,) * 10)
        for name, (low, mean, high) in segments.items()
    )
    queries = tuple(
        QueryResult(query.id, query.text, query.segment, 0, {}, {}, 0, 0, rbo, rbo, rbo, None)
        for query, rbo in zip(QUERIES, (0.31, 0.55, 1.0), strict=True)
    )
    return PairFacts(
        ("embed-v2026-02", "embed-v2026-03"),
        "support",
        None,
        Evaluation(
            id=12,
            query_set="support",
            query_set_revision="r1",
            primary=runs[0],
            candidate=runs[1],
            judges=("ada", "bob"),
            level="document",
            k=10,
            rbo_p=0.9,
            confidence=0.95,
            measures=(),
            overlaps=overlaps,
            gates=(),
            verdict=None,
            queries=queries,
            judged_queries=3,
            unjudged_queries=0,
            judgements=9,
            unknown_targets=(),
            warnings=(),
            created_at=NOW,
            created_by="ada",
        ),
    )


QUERIES = (
    Query("q7", "rotate an api key", "how-to"),
    Query("q2", "where is my \x1b[31minvoice", "billing"),
    Query("q9", "refund for a 漢字 order", "billing"),
)


def browsing() -> Browsing:
    """The query set of `judged` with its query in front."""
    return browse(QuerySet(1, "support", "r1", QUERIES), facts().evaluation).at("q7")


def explanation(key: str, number: int, exact_rank: int | None) -> Explanation:
    """Of the third chunk, third in the primary and first in the candidate."""
    found = comparison()
    side = found.primary if number == 1 else found.candidate
    rank = 3 if number == 1 else 1
    plan = (
        "Sort  (cost=85.12..86.36 rows=5 width=148) (actual time=0.919..0.921 rows=5.00 loops=1)",
        "  Sort Key: n.distance, n.chunk_id",
        f"  ->  Index Scan using chunk_embeddings_{number}_hnsw on chunk_embeddings_{number}",
        "        Order By: (embedding <=> '[…]'::vector(64))",
        "Execution Time: 0.975 ms",
    )
    return Explanation(
        version(number, key, 64 * number, "ready"), side, 3, rank, 0.3993, exact_rank, 0.0101, 100, 16, 64, "vector",
        IndexState(f"chunk_embeddings_{number}_hnsw", True, True, 2_900_000), True, plan,
    )  # fmt: skip
