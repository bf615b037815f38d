"""What users notice of shadow traffic: their p99 with a candidate that hangs, errors or is dropped; within 5 %.

A service in a process and a collection of its own for each case, which searches by a Retriever, one query every other
millisecond, each another one; every query is drawn (sample 1). They take turns of a second, so that a slow minute of
the machine meets all. The cases are: no shadowing, twice, to see what the measurement adds by itself; a candidate that
answers, for comparison (it takes part of the machine's cores and of Python's one lock, which is what the sample is
for); one whose encoder never answers; one whose encoder answers with errors; and one that is retired and dropped in the
middle of the turn, beside a service that is not mirrored and whose collection loses a version likewise, since that
alone costs something. Each round begins with new shadows: what a candidate costs until its breaker opens is part of it.

A ratio comes with the interval that holds 95 of 100 ratios of turns drawn anew with replacement (a bootstrap of turns,
Efron 1979), which says how much of it is the machine's noise.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from core import cutover, registry, shadow
from core.database import Database
from core.migrations import upgrade
from tests.benchmarks.corpus import LONG_TEXT, fill
from tests.benchmarks.measure import own_database, show_table, tell
from tests.benchmarks.shadow_user import K
from tests.protocol_server import Gate, ProtocolServer
from tests.versions import ready_version

CHUNKS = 5_000
QUERIES_A_TURN = 400
TURNS_A_ROUND = 6
"""Of every case; those in which a version is dropped have one turn a round, as long as all of these."""
LIMIT = 1.05
_LOCAL = "static:wordllama-64"
_CANDIDATE = "candidate"
TROUBLE = ("hangs", "errors", "is dropped")
_COUNTED = ("drawn", "done", "failed", "dropped")
_DRAWS = 1_000


class Service:
    """A process that searches one collection when it is told to; see shadow_user."""

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


class Case:
    """A collection with its service, and what its searches took, turn by turn.

    `candidate` is the encoder of the version beside the active one, None for no such version; `drops` says that this is
    dropped in the middle of every turn.
    """

    def __init__(
        self, held: contextlib.ExitStack, server: Database, name: str, candidate: str | None = None, *,
        mirrored: bool = True, drops: bool = False, base: Sequence[Case] = (),
    ) -> None:  # fmt: skip
        self.name, self.base, self._mirrored, self._drops = name, base, mirrored, drops
        self.database = Database(server.dsn, "".join(filter(str.isalpha, name)), embedded=True)
        upgrade(self.database)
        self._connection = held.enter_context(self.database.session("bench"))
        fill(self._connection, CHUNKS, words=LONG_TEXT)
        ready_version(self.database, self._connection, "active", _LOCAL)
        cutover.run(self._connection, "active", confirm="active")
        if candidate and not drops:
            ready_version(self.database, self._connection, _CANDIDATE, candidate)
        self.service = Service(self.database, mirrored=mirrored)
        held.callback(self.service.close)
        self.turns: list[NDArray[np.float64]] = []
        self.made: Counter[str] = Counter()

    def begin(self) -> None:
        """A new shadow, if it is mirrored."""
        if self._drops:
            ready_version(self.database, self._connection, _CANDIDATE, _LOCAL)
        if self._mirrored:
            self.service.follow(shadow.start(self._connection, _CANDIDATE, sample=1).id)

    def take_turn(self, queries: int) -> None:
        """Search so many times."""
        self.turns.append(self.service.search(queries, self._drop if self._drops else lambda: None))

    def end(self) -> None:
        """End the shadow, if it has not ended with its candidate."""
        if shadow.running(self._connection) is not None:
            self._count()
            shadow.stop(self._connection)

    def _drop(self) -> None:
        if self._mirrored:
            self._count()  # it goes with its candidate
        registry.retire_version(self._connection, _CANDIDATE)
        registry.drop_version(self._connection, _CANDIDATE)

    def _count(self) -> None:
        found = shadow.report(self._connection, limit=1)
        self.made += Counter({name: getattr(found, name) for name in _COUNTED})


def run(rounds: int) -> None:
    """Measure, and print median and p99 of each case against no shadowing."""
    with contextlib.ExitStack() as held:
        hanging, failing = held.enter_context(ProtocolServer()), held.enter_context(ProtocolServer())
        server = held.enter_context(own_database("bench"))
        spec = "openai:house-model?max_retries=0&base_url="
        none = Case(held, server, "no shadow", mirrored=False)
        again = Case(held, server, "no shadow, again", mirrored=False, base=[none])
        steady = [
            none,
            again,
            Case(held, server, "answers", _LOCAL, base=[none, again]),
            Case(held, server, "hangs", spec + hanging.base_url, base=[none, again]),
            Case(held, server, "errors", spec + failing.base_url, base=[none, again]),
        ]
        bare = Case(held, server, "no shadow, a drop", mirrored=False, drops=True)
        dropped = [bare, Case(held, server, "is dropped", drops=True, base=[bare])]
        gate = Gate(hanging, lambda _text: True)
        held.callback(gate.open)
        failing.fail(400, 1_000_000, message="no such model any more")
        for number in range(rounds + 1):  # the first one warms up
            _play_round(steady, TURNS_A_ROUND, QUERIES_A_TURN)
            _play_round(dropped, 1, QUERIES_A_TURN * TURNS_A_ROUND)
            if number == 0:
                for case in (*steady, *dropped):
                    case.turns.clear()
                    case.made.clear()
        _show(steady + dropped)


def _play_round(cases: Sequence[Case], turns: int, queries: int) -> None:
    for case in cases:
        case.begin()
    for number in range(turns):
        for case in cases if number % 2 else reversed(cases):
            case.take_turn(queries)
    for case in cases:
        case.end()


def _ratio(case: Case, places: NDArray[np.int64]) -> float:
    """Of the p99 of these turns to that of the base's turns of the same times."""
    above, below = (
        np.quantile(np.concatenate([one.turns[place] for one in cases for place in places]), 0.99)
        for cases in ([case], case.base)
    )
    return float(above / below)


def _ratios(case: Case) -> tuple[float, float, float]:
    """The ratio of the p99, and between which two 95 of 100 lie when turns are drawn anew."""
    turns = len(case.turns)
    random = np.random.default_rng(0)
    drawn = [_ratio(case, random.integers(turns, size=turns)) for _ in range(_DRAWS)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return _ratio(case, np.arange(turns)), float(low), float(high)


def _show(cases: Sequence[Case]) -> None:
    rows, bad = [], []
    for case in cases:
        took = np.concatenate(case.turns) * 1000
        against = ["", ""]
        if case.base:
            ratio, low, high = _ratios(case)
            against = [f"{ratio:.3f}", f"{low:.2f} to {high:.2f}"]
            if case.name in TROUBLE:
                bad.append((case.name, ratio, high))
        rows.append(
            [
                case.name, f"{len(took):,}", f"{np.median(took):.2f}", f"{np.quantile(took, 0.99):.2f}", *against,
                "/".join(str(case.made[name]) for name in _COUNTED),
            ]
        )  # fmt: skip
    show_table(
        f"users' searches of {CHUNKS:,} chunks, k {K}",
        ("queries", "median ms", "p99", "× none", "95 % of it", "/".join(_COUNTED)),
        rows,
    )
    for name, ratio, high in bad:
        verdict = "within" if ratio <= LIMIT else "ABOVE"
        sure = ", and surely" if high <= LIMIT else ", as far as the noise lets one see" if ratio <= LIMIT else ""
        tell(f"A candidate that {name}: {ratio - 1:+.1%} at p99, {verdict} {LIMIT - 1:.0%}{sure}.")
