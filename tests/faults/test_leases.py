"""Workers that hold what another has taken over: frozen past their lease, or given the same range on purpose."""

from __future__ import annotations

import random

import pytest

from revector.core.database import Database
from tests.faults.conftest import MakeProcesses, Prepare
from tests.faults.moments import a_little_later, a_moment, spread
from tests.faults.numbers import NUMBERS
from tests.faults.proxy import Moment, Proxy
from tests.faults.truth import assert_whole
from tests.faults.watch import Watch, wait_until
from tests.faults.workers import Process

LEASE_S = 2


def test_a_worker_frozen_past_its_lease_stores_nothing_when_it_wakes(
    target: Database, prepare: Prepare, watch: Watch, make_processes: MakeProcesses, chance: random.Random
) -> None:
    processes = make_processes(lease_s=LEASE_S, batch_size=1)
    prepare(NUMBERS.chunks)
    first = processes.worker()
    watch.past(1, first)
    for _ in range(NUMBERS.freezes):
        held = freeze_with_a_range(watch, first, chance)
        second = processes.worker()
        wait_until("the range is taken over", lambda held=held: held.isdisjoint(leases(watch)))
        # Both work on it now: the one that resumed with its batch, and the one that took it over.
        first.wake()
        a_little_later(chance, watch, 50, first)
        second.kill()
        watch.workers(1)
    make_processes(lease_s=LEASE_S).worker().finish()
    first.finish()
    assert_whole(target)


def leases(watch: Watch) -> list[tuple[int, int]]:
    """The leased ranges, with their tokens."""
    return [
        (row[0], row[1]) for row in watch.ask("SELECT id, lease_token FROM backfill_ranges WHERE state = 'leased'")
    ]


def freeze_with_a_range(watch: Watch, worker: Process, chance: random.Random) -> set[tuple[int, int]]:
    """Freeze the only worker while it holds a range and no transaction; what it holds."""

    def frozen() -> set[tuple[int, int]]:
        a_moment(chance)
        assert worker.alive, worker.text()
        worker.freeze()
        held = set(leases(watch))
        if held and not watch.number(IN_TRANSACTION):
            return held
        worker.wake()
        return set()

    held: set[tuple[int, int]] = wait_until("the worker is frozen with a range in hand", frozen)
    return held


IN_TRANSACTION = """
    SELECT count(*) FROM pg_stat_activity
    WHERE application_name LIKE 'revector backfill%%' AND xact_start IS NOT NULL
"""


@pytest.mark.parametrize("moment", ["in copy", "before commit"])
def test_a_worker_frozen_in_its_transaction_holds_nobody_up(
    target: Database,
    through_proxy: Database,
    proxy: Proxy,
    prepare: Prepare,
    watch: Watch,
    make_processes: MakeProcesses,
    moment: Moment,
) -> None:
    """Its session holds locks on the table, its rows' keys and its range: others must not wait until it
    resumes."""
    processes = make_processes(lease_s=LEASE_S)
    prepare(NUMBERS.chunks)
    proxy.trap(moment, "freeze")
    frozen = processes.worker(through_proxy)
    wait_until(f"a worker stands still {moment}", lambda: proxy.armed == 0)
    proxy.freeze()
    frozen.freeze()
    processes.worker().finish(seconds=NUMBERS.patience_s / 2)
    assert watch.state() == "done"
    frozen.wake()
    proxy.thaw()
    frozen.finish()
    assert_whole(target)


def test_two_workers_given_the_same_range_store_it_once(
    target: Database, prepare: Prepare, watch: Watch, make_processes: MakeProcesses, chance: random.Random
) -> None:
    """Leased ranges are released behind their holders' backs, again and again, so each goes to another worker
    too."""
    processes = make_processes(batch_size=32)
    prepare(NUMBERS.run_chunks)
    fleet, taken = processes.workers(2), []
    for moment in spread(chance, NUMBERS.resets, NUMBERS.run_chunks):
        watch.past(moment, *fleet)
        a_moment(chance)
        taken += watch.ask(
            """
            UPDATE backfill_ranges SET state = 'waiting', lease_worker = NULL, lease_until = NULL
            WHERE state = 'leased' RETURNING id
            """
        )
    for worker in fleet:
        worker.finish()
    assert_whole(target)
    assert len(taken) > NUMBERS.resets / 2
