"""The server stopped immediately (pg_ctl -m immediate) and started again during a run."""

from __future__ import annotations

import random

from revector.core.database import Database
from tests.faults.conftest import Prepare
from tests.faults.moments import a_moment, spread
from tests.faults.numbers import NUMBERS
from tests.faults.servers import FaultyServer
from tests.faults.truth import assert_counted, assert_whole
from tests.faults.watch import Watch
from tests.faults.workers import Process, Processes


def stop_and_start(faulty: FaultyServer, watch: Watch, chance: random.Random, fleet: list[Process]) -> None:
    for moment in spread(chance, NUMBERS.restarts, NUMBERS.run_chunks):
        watch.past(moment, *fleet)
        a_moment(chance)
        faulty.stop_immediately()
        a_moment(chance)
        faulty.restart()
    for process in fleet:
        process.finish()  # or it has already, in order: the last moments are near the end of the work


def test_workers_outlive_a_server_that_is_stopped_immediately(
    faulty: FaultyServer,
    target: Database,
    prepare: Prepare,
    watch: Watch,
    processes: Processes,
    chance: random.Random,
) -> None:
    prepare(NUMBERS.run_chunks)
    stop_and_start(faulty, watch, chance, processes.workers(2))
    assert_whole(target)


def test_a_run_outlives_a_server_that_is_stopped_immediately(
    faulty: FaultyServer,
    target: Database,
    prepare: Prepare,
    watch: Watch,
    processes: Processes,
    chance: random.Random,
) -> None:
    prepare(NUMBERS.run_chunks)
    stop_and_start(faulty, watch, chance, [processes.run()])
    assert_whole(target)


def test_a_server_that_dies_leaves_a_job_that_a_new_worker_goes_on_with(
    faulty: FaultyServer,
    target: Database,
    prepare: Prepare,
    watch: Watch,
    processes: Processes,
    chance: random.Random,
) -> None:
    """The machine of the workers goes down with the server's: no worker is left to continue."""
    prepare(NUMBERS.run_chunks)
    for moment in spread(chance, NUMBERS.restarts, NUMBERS.run_chunks):
        fleet = processes.workers(2)
        watch.past(moment, *fleet)
        a_moment(chance)
        faulty.stop_immediately()
        for process in fleet:
            process.end()
        faulty.restart()
        assert_counted(target)
    processes.worker().finish()
    assert_whole(target)
