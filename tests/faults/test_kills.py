"""kill -9 of workers, and of a whole run, at random moments."""

from __future__ import annotations

import random

import psutil
import pytest

from core.database import Database
from tests.faults.conftest import Prepare
from tests.faults.moments import a_moment, spread
from tests.faults.numbers import NUMBERS
from tests.faults.truth import assert_whole
from tests.faults.watch import Watch, wait_until
from tests.faults.workers import Processes, some


def test_workers_killed_at_random_moments_lose_and_repeat_nothing(
    target: Database, prepare: Prepare, watch: Watch, processes: Processes, chance: random.Random
) -> None:
    prepare(NUMBERS.kills_chunks)
    fleet = processes.workers(2)
    for moment in spread(chance, NUMBERS.kills, NUMBERS.kills_chunks):
        watch.past(moment, *fleet)
        a_moment(chance)
        place = some(chance, fleet)
        assert fleet[place].alive
        fleet[place].kill()
        fleet[place] = processes.worker()
    assert watch.state() == "running"  # the last kill too met a run that goes on
    for worker in fleet:
        worker.finish()
    assert_whole(target)


def test_four_writers_throughout_while_workers_are_killed(
    target: Database, prepare: Prepare, watch: Watch, processes: Processes, chance: random.Random
) -> None:
    prepare(NUMBERS.kills_chunks)
    last = watch.number("SELECT max(id) FROM document_chunks")
    writers = processes.writers(4, last)
    wait_until("all write", lambda: watch.number(_WRITERS) == len(writers))
    fleet = processes.workers(2)
    for moment in spread(chance, NUMBERS.kills_with_writers, NUMBERS.kills_chunks, until=0.8):
        watch.past(moment, *fleet)
        a_moment(chance)
        place = some(chance, fleet)
        fleet[place].kill()
        fleet[place] = processes.worker()
    assert all(writer.alive for writer in writers), [writer.text() for writer in writers]
    for writer in writers:
        writer.finish()
    # Nobody writes any more, and the run is not over: it has to end with everything that was written in it.
    assert watch.state() in ("running", "proving")
    for worker in fleet:
        worker.finish()
    assert_whole(target, written=True)
    assert watch.number("SELECT outbox_done FROM backfill_jobs") > 0
    assert watch.number("SELECT sum(number) FROM vectors_deleted") > 0


_WRITERS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'revector writer'"


def test_a_run_replaces_its_killed_workers(
    target: Database, prepare: Prepare, watch: Watch, processes: Processes, chance: random.Random
) -> None:
    """Needs a run whose workers are processes of their own; their rows say which."""
    chunks = NUMBERS.kills_chunks
    prepare(chunks)
    run = processes.run()
    killed: set[int] = set()
    for moment in spread(chance, NUMBERS.run_kills, chunks):
        watch.past(moment, run)
        pids = wait_until("a worker that says its process", lambda: living_workers(watch) - killed, seconds=10)
        a_moment(chance)
        victim = chance.choice(sorted(pids))
        assert victim in {child.pid for child in psutil.Process(run.pid).children(recursive=True)}
        psutil.Process(victim).kill()
        killed.add(victim)
    run.finish()
    assert len(killed) == NUMBERS.run_kills
    assert_whole(target)


def living_workers(watch: Watch) -> set[int]:
    rows = watch.ask("SELECT pid FROM backfill_workers WHERE ended_at IS NULL AND pid IS NOT NULL")
    return {row[0] for row in rows if psutil.pid_exists(row[0])}


@pytest.mark.parametrize("whole", [False, True], ids=["the run alone", "the run with its workers"])
def test_a_killed_run_is_gone_on_with_by_the_next_one(
    target: Database, prepare: Prepare, watch: Watch, processes: Processes, chance: random.Random, whole: bool
) -> None:
    prepare(NUMBERS.kills_chunks)
    for moment in spread(chance, NUMBERS.run_kills, NUMBERS.kills_chunks):
        run = processes.run()
        watch.past(moment, run)
        a_moment(chance)
        if whole:
            run.end()
        else:
            run.kill()
    processes.run().finish()
    assert_whole(target)
