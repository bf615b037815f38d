"""The effect of shadow traffic on users: their p99 with a candidate that hangs, fails or is dropped; within 5 %.

Services in processes of their own search by a Retriever, one query every other millisecond, each another one. For each
kind of candidate there are two on one collection, one that mirrors every query (sample 1) and one that does not. They
take turns of a second in an order drawn anew each time, so that a slow minute of the machine meets all; and each round
has new processes and new shadows, since one process is quicker than another by itself, and since what a candidate costs
until its breaker opens is part of it. A candidate that is dropped is so in the middle of a turn, that of the service
that does not mirror as well: a drop alone costs something. One more service that does not mirror shows what the
measurement adds by itself.

A ratio comes with the interval that holds 95 of 100 ratios of rounds drawn anew with replacement (a bootstrap, Efron
1979), which says how much of it is the machine's noise.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from revector.core import cutover, registry, shadow
from revector.core.database import Database
from revector.core.migrations import upgrade
from tests.benchmarks.corpus import LONG_TEXT, fill
from tests.benchmarks.measure import own_database, show_table, tell
from tests.benchmarks.shadow_user import K
from tests.protocol_server import Gate, ProtocolServer
from tests.versions import ready_version

CHUNKS = 5_000
QUERIES_A_TURN = 400
TURNS_A_ROUND = 6
"""Of every service; those in whose turn a version is dropped have one, as long as all of these."""
LIMIT = 1.05
_LOCAL = "static:wordllama-64"
_CANDIDATE = "candidate"
_COUNTED = ("drawn", "done", "failed", "dropped")
_DRAWS = 1_000
_FEWEST_ROUNDS = 5
"""Fewer do not say how far rounds differ."""


class Service:
    """A process that searches one collection on request; see shadow_user."""

    def __init__(self, database: Database, *, mirrored: bool) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "tests.benchmarks.shadow_user", database.dsn, database.schema,
                "mirrored" if mirrored else "plain",
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def follow(self, shadow_id: int) -> None:
        """Wait until its mirror follows that shadow."""
        self._tell(f"follow {shadow_id}")
        self._expect("follows")

    def search(self, queries: int, halfway: Callable[[], object]) -> NDArray[np.float64]:
        """What so many searches took, an array of seconds (queries,); `halfway` is called in their midst."""
        self._tell(f"search {queries}")
        self._expect("half")
        halfway()
        seconds = np.array(json.loads(self._said()))
        self._expect("over")
        return seconds

    def close(self) -> None:
        """End it."""
        with self._process:
            self._process.terminate()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def _expect(self, word: str) -> None:
        found = self._said()
        if found != word:
            raise RuntimeError(f"a service said {found[:100]!r}, not {word!r}")


class Collection:
    """A collection with an active version, and what makes and drops the candidate beside it."""

    def __init__(self, held: contextlib.ExitStack, server: Database, schema: str, spec: str) -> None:
        self._spec = spec
        self.database = Database(server.dsn, schema, embedded=True)
        upgrade(self.database)
        self.connection = held.enter_context(self.database.session("bench"))
        fill(self.connection, CHUNKS, words=LONG_TEXT)
        ready_version(self.database, self.connection, "active", _LOCAL)
        cutover.run(self.connection, "active", confirm="active")
        self.renew()

    def renew(self) -> None:
        """Make the candidate."""
        ready_version(self.database, self.connection, _CANDIDATE, self._spec)

    def drop(self) -> None:
        """Retire the candidate and drop it."""
        registry.retire_version(self.connection, _CANDIDATE)
        registry.drop_version(self.connection, _CANDIDATE)


class Case:
    """A service of a collection, and what its searches took: arrays of seconds, turn by turn and round by round."""

    def __init__(
        self, name: str, collection: Collection, *, mirrored: bool = True, base: Sequence[Case] = ()
    ) -> None:
        self.name, self._collection, self._mirrored, self.base = name, collection, mirrored, base
        self.rounds: list[list[NDArray[np.float64]]] = []
        self.made: Counter[str] = Counter()

    def begin(self) -> None:
        """A new service, with a new shadow if it mirrors."""
        self._service = Service(self._collection.database, mirrored=self._mirrored)
        if self._mirrored:
            self._service.follow(shadow.start(self._collection.connection, _CANDIDATE, sample=1).id)
        self.rounds.append([])

    def take_turn(self) -> None:
        """Search as often as a turn has it."""
        self.rounds[-1].append(self._service.search(QUERIES_A_TURN, lambda: None))

    def take_turn_with_drop(self) -> None:
        """Search as often as all turns of a round have it, and drop the candidate in the middle."""

        def halfway() -> None:
            self._count()  # it goes with the candidate
            self._collection.drop()

        self.rounds[-1].append(self._service.search(QUERIES_A_TURN * TURNS_A_ROUND, halfway))

    def end(self) -> None:
        """End the shadow, if it has not ended with its candidate, and the service."""
        if self._mirrored and shadow.running(self._collection.connection) is not None:
            self._count()
            shadow.stop(self._collection.connection)
        self._service.close()

    def _count(self) -> None:
        if self._mirrored:
            found = shadow.report(self._collection.connection, limit=1)
            self.made += Counter({name: getattr(found, name) for name in _COUNTED})


def run(rounds: int) -> None:
    """Measure, and print median and p99 of each case against no shadowing."""
    with contextlib.ExitStack() as held:
        hanging, failing = held.enter_context(ProtocolServer()), held.enter_context(ProtocolServer())
        server = held.enter_context(own_database("bench"))
        spec = "openai:house-model?max_retries=0&base_url="
        hangs = Collection(held, server, "hangs", spec + hanging.base_url)
        errors = Collection(held, server, "errors", spec + failing.base_url)
        dropped = Collection(held, server, "dropped", _LOCAL)
        gate = Gate(hanging, lambda _text: True)
        held.callback(gate.open)
        failing.fail(400, 1_000_000, message="no such model any more")
        bare = [Case("no shadow", each, mirrored=False) for each in (hangs, errors, dropped)]
        again = Case("the same again", hangs, mirrored=False, base=[bare[0]])
        steady = [
            bare[0],
            again,
            Case("hangs", hangs, base=[bare[0], again]),
            bare[1],
            Case("errors", errors, base=[bare[1]]),
        ]
        gone = [bare[2], Case("is dropped", dropped, base=[bare[2]])]
        for number in range(rounds + 1):  # the first one warms up
            _play_round(steady)
            _play_round_of_drops(gone, dropped)
            if number == 0:
                for case in (*steady, *gone):
                    case.rounds.clear()
                    case.made.clear()
        _show(steady + gone)


def _play_round(cases: Sequence[Case]) -> None:
    for case in cases:
        case.begin()
    for _ in range(TURNS_A_ROUND):
        for case in random.sample(cases, len(cases)):
            case.take_turn()
    for case in cases:
        case.end()


def _play_round_of_drops(cases: Sequence[Case], collection: Collection) -> None:
    for case in random.sample(cases, len(cases)):
        case.begin()
        case.take_turn_with_drop()
        case.end()
        collection.renew()


def _seconds(cases: Sequence[Case], rounds: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.concatenate([turn for case in cases for number in rounds for turn in case.rounds[number]])


def _ratio(case: Case, rounds: NDArray[np.int64]) -> float:
    """Of the p99 of these rounds to that of the base's."""
    return float(np.quantile(_seconds([case], rounds), 0.99) / np.quantile(_seconds(case.base, rounds), 0.99))


def _interval(case: Case) -> tuple[float, float]:
    """Between which two 95 of 100 ratios lie when rounds are drawn anew."""
    rounds = len(case.rounds)
    generator = np.random.default_rng(0)
    drawn = [_ratio(case, generator.integers(rounds, size=rounds)) for _ in range(_DRAWS)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def _show(cases: Sequence[Case]) -> None:
    rows, lines = [], []
    for case in cases:
        every = np.arange(len(case.rounds))
        took = _seconds([case], every) * 1000
        row = [case.name, f"{len(took):,}", f"{np.median(took):.2f}", f"{np.quantile(took, 0.99):.2f}", "", "", ""]
        if case.base:
            ratio, high = _ratio(case, every), math.inf
            row[4] = f"{ratio:.3f}"
            if len(every) >= _FEWEST_ROUNDS:
                low, high = _interval(case)
                row[5] = f"{low:.2f}–{high:.2f}"
            if case.made:
                row[6] = "/".join(str(case.made[name]) for name in _COUNTED)
                lines.append(_verdict(case.name, ratio, high))
        rows.append(row)
    show_table(
        f"users' searches of {CHUNKS:,} chunks, k {K}",
        ("queries", "median", "p99 ms", "× none", "95 % of it", "/".join(_COUNTED)),
        rows,
    )
    for line in lines:
        tell(line)


def _verdict(name: str, ratio: float, high: float) -> str:
    verdict = "within" if ratio <= LIMIT else "ABOVE"
    sure = ", and surely" if high <= LIMIT else ", as far as the noise lets one see" if ratio <= LIMIT else ""
    return f"A candidate that {name}: {ratio - 1:+.1%} at p99, {verdict} {LIMIT - 1:.0%}{sure}."
