"""What a second worker process brings with an encoder that costs nothing, and what limits it.

One or two processes (free_worker.py) do the same backfill, in turns. Beside each run this process looks twenty
times a second at the sessions of the backfill in pg_stat_activity, at what they wait for, and at the processor
seconds of their server processes. A session reads or writes: which one, its last statement tells.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from revector.core.database import Connection, Database
from revector.core.registry import Version
from tests.benchmarks.corpus import BATCH, LONG_TEXT, fill, fresh_version, random_vectors, rows_in
from tests.benchmarks.measure import Contender, in_turns, own_database, show_rates, show_table, tell

CHUNKS, DIMENSIONS = 200_000, 384
READER, WRITER, PYTHON, SERVER = "reading backends", "writing backends", "Python", "the server's other processes"
ON_A_CORE, FOR_THE_WORKER = "running", "waiting for the worker"
_LOOK_S = 0.05
_BUSY = 0.85


@dataclass
class Watched:
    """What one run took up to its last batch: processor seconds by role, states of its sessions, and WAL."""

    seconds: float = 0.0
    wal_bytes: int = 0
    machine_busy: float = 0.0
    """The share of all cores' time that all programs of this machine took together."""
    cpu: dict[str, float] = field(default_factory=dict)
    states: dict[str, Counter[str]] = field(default_factory=lambda: {READER: Counter(), WRITER: Counter()})

    def busy(self) -> float:
        """The share of all cores' time that these took."""
        return sum(self.cpu.values()) / self.seconds / (os.cpu_count() or 1)


def run(rounds: int) -> None:
    """Measure, and print the rates and where the time goes."""
    with (
        own_database("bench") as database,
        database.session("bench") as connection,
        tempfile.TemporaryDirectory(prefix="revector-bench-") as folder,
    ):
        fill(connection, CHUNKS, words=LONG_TEXT)
        matrix = Path(folder) / "matrix.npy"
        np.save(matrix, random_vectors(CHUNKS, DIMENSIONS))
        watched: dict[int, list[Watched]] = {1: [], 2: []}

        def work(processes: int) -> float:
            version = fresh_version(connection, DIMENSIONS)
            watched[processes].append(_work(database, version, matrix, processes))
            if (found := rows_in(connection, version)) != CHUNKS:
                raise RuntimeError(f"{found:,} of {CHUNKS:,} chunks have a vector")
            return watched[processes][-1].seconds

        contenders = [
            Contender("2 processes", lambda: work(2), CHUNKS),
            Contender("1 process", lambda: work(1), CHUNKS),
        ]
        results = in_turns(contenders, max(1, rounds // 3))
        show_rates(
            f"free encoder, {CHUNKS:,} × {DIMENSIONS}, without the proof, {os.cpu_count()} cores",
            "rows/s",
            results,
        )
        for processes, each in watched.items():
            _show(processes, each[1:])  # without the warm-up


def _work(database: Database, version: Version, matrix: Path, processes: int) -> Watched:
    command = [sys.executable, "-m", "tests.benchmarks.free_worker", database.dsn, database.schema]
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(_child([*command, version.version_key, str(matrix), str(BATCH)]))
            for _ in range(processes)
        ]
        for child in children:
            _line(child)
        with _watching(database, version, [child.pid for child in children]) as watched:
            start = time.perf_counter()
            for child in children:
                assert child.stdin is not None
                child.stdin.write("begin\n")
                child.stdin.flush()
            answers = [json.loads(_line(child)) for child in children]
    watched.seconds = max(answer["last"] for answer in answers) - start
    return watched


@contextlib.contextmanager
def _child(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    if not (line := child.stdout.readline()):
        raise RuntimeError("a worker process ended; what it said stands above")
    return line


# -- what is seen beside a run --------------------------------------------------------------------------------


@contextlib.contextmanager
def _watching(database: Database, version: Version, children: Sequence[int]) -> Iterator[Watched]:
    """Look at the run from a thread, until its proof begins."""
    watched, stop = Watched(), threading.Event()
    with database.session("bench") as connection:
        thread = threading.Thread(target=_watch, args=[connection, version, children, watched, stop])
        thread.start()
        try:
            yield watched
        finally:
            stop.set()
            thread.join()


def _watch(
    connection: Connection, version: Version, children: Sequence[int], watched: Watched, stop: threading.Event
) -> None:
    server = psutil.Process(connection.info.backend_pid).parent()
    assert server is not None
    own = connection.info.backend_pid
    roles = dict.fromkeys(children, PYTHON)
    before = _processor_seconds([*children, *(child.pid for child in server.children())])
    first, machine = _wal_position(connection), psutil.cpu_times()
    while not stop.wait(_LOOK_S):
        if connection.execute(
            "SELECT FROM backfill_jobs WHERE embedding_version_id = %s AND state IN ('proving', 'done')",
            [version.id],
        ).rowcount:
            return
        now = _processor_seconds([*children, *(child.pid for child in server.children() if child.pid != own)])
        _look(connection, roles, watched)
        cpu = dict.fromkeys((READER, WRITER, PYTHON, SERVER), 0.0)
        for pid, seconds in now.items():
            cpu[roles.get(pid, SERVER)] += seconds - before.get(pid, 0.0)
        watched.cpu, watched.wal_bytes = cpu, _wal_position(connection) - first
        watched.machine_busy = _busy_share(machine, psutil.cpu_times())


def _look(connection: Connection, roles: dict[int, str], watched: Watched) -> None:
    """Put down what the backfill's sessions do at this moment, and learn from their statements which is which."""
    for pid, statement, state, kind, event in connection.execute(
        """
        SELECT pid, query, state, wait_event_type, wait_event FROM pg_stat_activity
        WHERE application_name = 'revector backfill'
        """
    ):
        if statement.lstrip().startswith("COPY"):
            roles[pid] = WRITER
        elif "FROM document_chunks c" in statement:
            roles[pid] = READER
        if pid in roles:
            waits = state != "active" or kind == "Client"
            known = FOR_THE_WORKER if waits else f"{kind}: {event}" if kind else ON_A_CORE
            watched.states[roles[pid]][known] += 1


def _processor_seconds(pids: Sequence[int]) -> dict[int, float]:
    seconds = {}
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            seconds[pid] = times.user + times.system
    return seconds


def _busy_share(before: Any, after: Any) -> float:
    spent = [late - early for early, late in zip(before, after, strict=True)]
    named = dict(zip(after._fields, spent, strict=True))
    guests = named.get("guest", 0.0) + named.get("guest_nice", 0.0)  # counted in user and nice already
    return 1 - (named["idle"] + named.get("iowait", 0.0)) / max(sum(spent) - guests, 1e-9)


def _wal_position(connection: Connection) -> int:
    row = connection.execute("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").fetchone()
    assert row is not None
    return int(row[0])


# -- tables ---------------------------------------------------------------------------------------------------


def _show(processes: int, runs: Sequence[Watched]) -> None:
    name = f"{processes} process" + ("es" if processes > 1 else "")
    cpu = {
        role: statistics.median(1e6 * each.cpu[role] / CHUNKS for each in runs)
        for role in (READER, WRITER, PYTHON, SERVER)
    }
    rows = [[role, f"{figure:.1f}"] for role, figure in cpu.items()]
    rows.append(["together", f"{sum(cpu.values()):.1f}"])
    show_table(f"{name}: processor time", ("µs a row",), rows)
    states = []
    for role in (READER, WRITER):
        seen = sum((each.states[role] for each in runs), Counter[str]())
        shares = [f"{state} {count / seen.total():.0%}" for state, count in seen.most_common(5)]
        states.append([role, ", ".join(shares) or "never seen"])
    show_table(f"{name}: what the sessions were seen doing", ("",), states)
    busy = statistics.median(each.busy() for each in runs)
    wal = statistics.median(each.wal_bytes / each.seconds for each in runs) / 1e6
    per_row = statistics.median(each.wal_bytes / CHUNKS for each in runs)
    machine = statistics.median(each.machine_busy for each in runs)
    tell(f"{name}: {busy:.0%} of the cores' time taken by these, {machine:.0%} by all programs of this machine")
    tell(f"{name}: {wal:,.0f} MB/s of WAL, {per_row:,.0f} bytes a row")
    tell(f"{name}: limited by {_limit(busy, machine, runs)}\n")


def _limit(busy: float, machine: float, runs: Sequence[Watched]) -> str:
    if machine > _BUSY:
        others = machine - busy
        shared = (
            f", of which other programs took {others:.0%}: measure again on a quiet machine"
            if others > 0.1
            else ""
        )
        return f"the cores: the server's backends and Python share them{shared}"
    writing = sum((each.states[WRITER] for each in runs), Counter[str]())
    most, _ = writing.most_common(1)[0]
    if most == ON_A_CORE:
        return "the one core that a writing backend can use"
    if most == FOR_THE_WORKER:
        return "what comes before the writing backend: it waits for its worker"
    return f"the writing backend's waits for {most}"
