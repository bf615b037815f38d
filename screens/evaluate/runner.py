"""The evaluation that runs in this process: its thread, its progress, and cancelling it.

The runs are rows in the database, stored as they are searched: the next evaluation with the same settings
continues interrupted ones, here or elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from revector.core.database import Connection, Database
from revector.core.errors import RefusedError, RevectorError
from revector.screens.widgets.background import readable

if TYPE_CHECKING:
    from revector.core.evaluation.document import Evaluation, Run
    from revector.core.evaluation.evaluate import Asked
    from revector.core.evaluation.judged_sets.query_sets import QuerySet
    from revector.core.evaluation.runs.pilot import Pilot
    from revector.core.registry import Version
    from revector.core.retrieval import EncoderCache

How = Literal["index", "exact", "pilot"]


@dataclass(frozen=True)
class Wish:
    """What to evaluate. `runs` are two stored ones (primary, candidate): then nothing is searched.

    `judges` and `measures` are as of `Asked`; `gates` is a file; `distractors` and `seed` are of a pilot.
    """

    query_set: str
    primary: str
    candidate: str
    how: How = "index"
    ef_search: int | None = None
    judges: tuple[str, ...] = ()
    measures: tuple[str, ...] = ()
    gates: str = ""
    k: int = 10
    confidence: float = 0.95
    distractors: int = 5_000
    seed: int = 2026
    runs: tuple[int, int] | None = None


@dataclass(frozen=True)
class Stage:
    """The progress: the current step, and `done` of `total` queries or chunks."""

    doing: str
    done: int = 0
    total: int = 0


class CancelledError(RefusedError):
    """The user cancelled the evaluation."""


class Evaluator:
    """Evaluates in a thread, one wish at a time. `on_change` is called in that thread.

    `ask` is called in it too, with the cost of a pilot in words, and returns whether to continue.
    """

    def __init__(self, database: Database, on_change: Callable[[], object], ask: Callable[[str], bool]) -> None:
        self._database, self._on_change, self._ask = database, on_change, ask
        self._cancelled = threading.Event()
        self._last = ""
        self._thread: threading.Thread | None = None
        self.stage: Stage | None = None
        self.error: RevectorError | None = None
        self.number: int | None = None
        """The id of the last evaluation finished here."""

    @property
    def working(self) -> bool:
        return self.stage is not None

    @property
    def cancelling(self) -> bool:
        """Whether it was cancelled and has not ended yet."""
        return self.working and self._cancelled.is_set()

    def start(self, wish: Wish) -> None:
        """Start; does nothing while an evaluation runs."""
        if self.working:
            return
        self._cancelled.clear()
        self._last = f"searching {wish.candidate}"
        self.error, self.stage = None, Stage("beginning")
        # A daemon thread, like those that search: a server that hangs must not keep the console from ending.
        self._thread = threading.Thread(target=self._work, args=[wish], name="evaluation", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Cancel it at the next stored batch."""
        self._cancelled.set()
        self._on_change()

    def _work(self, wish: Wish) -> None:
        try:
            self.number = self._evaluate(wish).id
        except Exception as error:  # noqa: BLE001  (shown on the screen, whatever it is)
            self.error = readable(error)
        finally:
            self.stage = None
            self._on_change()

    def _tell(self, doing: str, done: int, total: int) -> None:
        searched = doing == self._last and done == total
        self.stage = Stage("working out the measures") if searched else Stage(doing, done, total)
        self._on_change()
        if self._cancelled.is_set():
            raise CancelledError(
                "The evaluation was cancelled. Finished searches are kept: the next run with the same settings "
                "reuses them."
            )

    def _evaluate(self, wish: Wish) -> Evaluation:
        from revector.core.evaluation.evaluate import evaluate, evaluate_runs
        from revector.core.evaluation.judged_sets.query_sets import get_query_set
        from revector.core.evaluation.runs.store import get_run
        from revector.core.registry import get_version

        asked = asked_of(wish)
        with self._database.session("console") as connection:
            query_set = get_query_set(connection, wish.query_set)
            if wish.runs is not None:
                first, second = (get_run(connection, number) for number in wish.runs)
                return evaluate_runs(connection, query_set, first, second, asked)
            pair = get_version(connection, wish.primary), get_version(connection, wish.candidate)
            if wish.how == "pilot":
                return evaluate_runs(connection, query_set, *self._pilot(connection, wish, query_set, pair), asked)
        return evaluate(
            self._database,
            query_set,
            *pair,
            asked,
            exact=wish.how == "exact",
            ef_search=wish.ef_search,
            on_progress=self._tell,
        )

    def _pilot(
        self, connection: Connection, wish: Wish, query_set: QuerySet, pair: tuple[Version, Version]
    ) -> tuple[Run, Run]:
        from revector.core.evaluation.judged_sets.judgements import load_qrels
        from revector.core.evaluation.runs.pilot import embed_pilot, plan_pilot, run_pilot
        from revector.core.retrieval import EncoderCache

        cache: EncoderCache = EncoderCache()
        encoder = cache.encoder(pair[1])
        qrels = load_qrels(connection, query_set, wish.judges)
        self._tell("sampling for the pilot", 0, 0)
        plan = plan_pilot(connection, qrels, *pair, encoder, distractors=wish.distractors, seed=wish.seed)
        if plan.to_embed and encoder.price != 0 and not self._ask(_cost(plan, encoder.name)):
            raise RefusedError("Nothing was embedded.")
        embed_pilot(connection, pair[1], encoder, plan, on_progress=self._tell)
        return run_pilot(self._database, query_set, pair, plan, encoders=cache, on_progress=self._tell)


def asked_of(wish: Wish) -> Asked:
    """The wish as `Asked`. Raises UsageError for an invalid gate file or measure."""
    from revector.core.evaluation.evaluate import Asked
    from revector.core.evaluation.gates.gate_file import read_gates
    from revector.core.evaluation.measures.measures import check_measures

    check_measures(wish.measures)
    gates = read_gates(Path(wish.gates).expanduser()) if wish.gates else None
    return Asked(wish.judges, wish.measures, gates, wish.k, wish.confidence)


def _cost(plan: Pilot, encoder: str) -> str:
    price = "at an unknown price" if plan.cost_usd is None else f"for about ${plan.cost_usd:.4f}"
    return f"{plan.says}\n\n{plan.to_embed:,} chunks, {plan.tokens:,} tokens, go to {encoder} {price}."
