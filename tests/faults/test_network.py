"""A network between workers and server that cuts, delays, refuses and swallows."""

from __future__ import annotations

import random

import pytest

from revector.core.database import Database
from tests.faults.conftest import Prepare
from tests.faults.moments import a_moment, spread
from tests.faults.numbers import NUMBERS
from tests.faults.proxy import Moment, Proxy
from tests.faults.truth import assert_whole
from tests.faults.watch import Watch, wait_until
from tests.faults.workers import Process, Processes


@pytest.fixture
def two(
    processes: Processes, through_proxy: Database, proxy: Proxy, prepare: Prepare, watch: Watch
) -> list[Process]:
    """Two workers behind the proxy, at work on a corpus."""
    prepare(NUMBERS.run_chunks)
    proxy.delay_s = 0.01  # or the first could be done before the second has started
    fleet = processes.workers(2, through_proxy)
    watch.past(1, *fleet)
    watch.workers(2)
    proxy.delay_s = 0
    return fleet


def test_workers_carry_on_after_every_cut(
    target: Database, two: list[Process], proxy: Proxy, watch: Watch, chance: random.Random
) -> None:
    begun = watch.done()
    for moment in spread(chance, NUMBERS.cuts, NUMBERS.run_chunks - begun):
        watch.past(begun + moment, *two)
        a_moment(chance)
        proxy.cut_all()
    assert proxy.cuts >= NUMBERS.cuts
    for worker in two:
        worker.finish()
    assert_whole(target)


def test_workers_carry_on_when_nobody_listens_for_a_while(
    target: Database, two: list[Process], proxy: Proxy, watch: Watch
) -> None:
    proxy.refuse()
    proxy.cut_all()
    wait_until("they try again, in vain", lambda: proxy.refused >= 10)
    assert all(worker.alive for worker in two), [worker.text() for worker in two]
    proxy.accept()
    for worker in two:
        worker.finish()
    assert_whole(target)


def test_workers_carry_on_when_connections_break_after_some_bytes(
    target: Database, two: list[Process], proxy: Proxy, chance: random.Random
) -> None:
    """In either direction and anywhere: in a greeting, a row that is read, a COPY or an answer."""

    def fuses() -> tuple[int, int]:
        if proxy.cuts >= NUMBERS.blown_fuses:
            return 0, 0
        return int(10 ** chance.uniform(2, 5.5)), int(10 ** chance.uniform(2, 5.5))

    proxy.fuses = fuses
    proxy.cut_all()
    for worker in two:
        worker.finish()
    assert proxy.cuts > NUMBERS.blown_fuses / 2
    assert_whole(target)


def test_a_cut_transaction_happened_or_did_not_and_workers_find_out(
    target: Database, two: list[Process], proxy: Proxy
) -> None:
    """Before and after a commit the worker sees the same: no answer. Its batch is in the table, or is not."""
    moments: list[Moment] = ["in copy", "before commit", "after commit"]
    for moment in moments * NUMBERS.trapped:
        before = proxy.cuts
        proxy.trap(moment)
        wait_until(f"a connection is cut {moment}", lambda before=before: proxy.cuts > before)
    for worker in two:
        worker.finish()
    assert_whole(target)


def test_a_slow_network_costs_time_alone(
    target: Database, through_proxy: Database, prepare: Prepare, proxy: Proxy, make_processes
) -> None:
    processes = make_processes(batch_size=512)
    prepare(NUMBERS.chunks)
    proxy.delay_s = 0.005
    for worker in processes.workers(2, through_proxy):
        worker.finish()
    assert_whole(target)


def test_a_network_that_stands_still_past_the_lease_lets_others_take_over(
    target: Database, through_proxy: Database, prepare: Prepare, proxy: Proxy, watch: Watch, make_processes
) -> None:
    """Half-open connections: the server and the worker both believe that the other is there."""
    processes = make_processes(lease_s=2)
    prepare(NUMBERS.run_chunks)
    still = processes.worker(through_proxy)
    watch.past(NUMBERS.run_chunks // 10, still)
    proxy.freeze()
    here = processes.worker()
    watch.past(NUMBERS.run_chunks * 8 // 10, here)
    proxy.thaw()
    here.finish()
    still.finish()
    assert_whole(target)
