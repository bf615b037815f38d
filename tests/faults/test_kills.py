"""kill -9 of workers, and of a whole run, at random moments."""

from __future__ import annotations

import random

import psutil

from revector.core.database import Database
from tests.faults import corpus
from tests.faults.conftest import MakeProcesses, Prepare
from tests.faults.moments import a_little_later, a_moment, spread
from tests.faults.numbers import NUMBERS
from tests.faults.proxy import Proxy
from tests.faults.truth import assert_whole
from tests.faults.watch import Watch, wait_until
from tests.faults.workers import Process, Processes

SLOW = {"batch_size": 1}
"""So that a run goes on while processes start: a small batch has as many moments as a large one."""


def kill_and_replace(processes: Processes, watch: Watch, chance: random.Random, times: int) -> list[Process]:
    """Any one of two workers at work is killed, so many times; the two that are there at the end."""
    fleet = processes.workers(2)
    for _ in range(times):
        watch.workers(len(fleet))
        a_little_later(chance, watch, NUMBERS.kills_chunks // times // 5, *fleet)
        place = chance.randrange(len(fleet))
        assert fleet[place].alive
        fleet[place].kill()
        fleet[place] = processes.worker()
    assert watch.state() != "done"  # the last one killed too was at work
    return fleet


def test_workers_killed_at_random_moments_lose_and_repeat_nothing(
    target: Database, prepare: Prepare, watch: Watch, make_processes: MakeProcesses, chance: random.Random
) -> None:
    prepare(NUMBERS.kills_chunks)
    for worker in kill_and_replace(make_processes(**SLOW), watch, chance, NUMBERS.kills):
        worker.kill()
    for worker in make_processes().workers(2):
        worker.finish()
    assert_whole(target)


def test_four_writers_throughout_while_workers_are_killed(
    target: Database, prepare: Prepare, watch: Watch, make_processes: MakeProcesses, chance: random.Random
) -> None:
    prepare(NUMBERS.kills_chunks)
    processes = make_processes(**SLOW, lease_s=2)
    writers = processes.writers(4, watch.number("SELECT max(id) FROM document_chunks"))
    wait_until("all write", lambda: watch.number(_WRITERS) == len(writers))
    fleet = kill_and_replace(processes, watch, chance, NUMBERS.kills_with_writers)
    assert all(writer.alive for writer in writers), [writer.text() for writer in writers]
    for writer in writers:
        writer.finish()
    # Nothing is written any more, and the run is not over: it must end with everything that was written.
    assert watch.state() != "done"
    for worker in fleet:
        worker.kill()
    for worker in make_processes().workers(2):
        worker.finish()
    assert_whole(target, written=True)
    assert watch.number("SELECT outbox_done FROM backfill_jobs") > 0
    assert watch.number("SELECT sum(number) FROM vectors_deleted") > 0


def test_four_writers_throughout_on_a_complete_version(
    target: Database, prepare: Prepare, watch: Watch, processes: Processes
) -> None:
    """A table with its foreign key refuses the vector of a chunk that was deleted since it was read."""
    prepare(NUMBERS.chunks)
    processes.worker().finish()
    last = watch.number("SELECT max(id) FROM document_chunks")
    for _ in range(NUMBERS.rounds):
        writers = processes.writers(4, last)
        goal, fleet = watch.done() + NUMBERS.written, processes.workers(2)

        def enough(goal: int = goal, fleet: list[Process] = fleet) -> bool:
            if not any(worker.alive for worker in fleet):  # they have come to a moment at which nothing waited
                for worker in fleet:
                    worker.finish()
                fleet[:] = processes.workers(2)
            return watch.done() >= goal

        wait_until("enough was written", enough)
        for process in [*writers, *fleet]:
            process.finish()
    processes.worker().finish()  # if both were done before the last writer was
    assert_whole(target, written=True)


_WRITERS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'revector writer'"


def test_a_run_replaces_its_killed_workers(
    target: Database, prepare: Prepare, watch: Watch, make_processes: MakeProcesses, chance: random.Random
) -> None:
    """Needs a run whose workers are processes of their own; their rows say which."""
    prepare(NUMBERS.kills_chunks)
    run = make_processes(**SLOW).run()
    watch.past(1, run)
    killed: set[int] = set()
    for _ in range(NUMBERS.run_kills):
        pids = wait_until("a worker that says its process", lambda: living_workers(watch) - killed, seconds=15)
        a_little_later(chance, watch, NUMBERS.kills_chunks // NUMBERS.run_kills // 5, run)
        victim = chance.choice(sorted(pids))
        assert victim in {child.pid for child in psutil.Process(run.pid).children(recursive=True)}
        psutil.Process(victim).kill()
        killed.add(victim)
    assert watch.state() != "done"
    run.finish()
    assert_whole(target)


def living_workers(watch: Watch) -> set[int]:
    rows = watch.ask("SELECT pid FROM backfill_workers WHERE ended_at IS NULL AND pid IS NOT NULL")
    return {row[0] for row in rows if psutil.pid_exists(row[0])}


def test_a_killed_run_is_gone_on_with_by_the_next_one(
    target: Database, prepare: Prepare, watch: Watch, processes: Processes, chance: random.Random
) -> None:
    """Killed with its workers, as when its machine goes down, or alone."""
    prepare(NUMBERS.run_chunks)
    for moment in spread(chance, NUMBERS.run_kills, NUMBERS.run_chunks):
        run = processes.run()
        watch.past(moment, run)
        a_moment(chance)
        chance.choice([run.end, run.kill])()
    processes.run().finish()
    assert_whole(target)


def test_what_a_killed_worker_had_from_the_outbox_is_taken_over_at_once(
    target: Database,
    through_proxy: Database,
    proxy: Proxy,
    prepare: Prepare,
    make_processes: MakeProcesses,
    chance: random.Random,
) -> None:
    """Like its range: no wait for the lease of a worker whose session is gone."""
    processes = make_processes(lease_s=3_600)
    prepare(200)
    processes.worker().finish()
    with target.session("test") as connection:
        connection.execute(corpus.INSERT, [[None] * 50, list(corpus.texts(chance, 50))])
    proxy.trap("in copy", "freeze")
    killed = processes.worker(through_proxy)
    wait_until("the new chunks are in hand", lambda: proxy.armed == 0)
    killed.kill()
    proxy.cut_all()
    processes.worker().finish(seconds=NUMBERS.patience_s / 2)
    assert_whole(target, written=True)
