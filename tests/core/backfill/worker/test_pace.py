"""How large batches are and how soon they begin."""

from __future__ import annotations

import itertools

import pytest

from revector.core.backfill.worker.pace import BatchPacer, BatchSize


def test_the_size_follows_the_pace_by_no_more_than_twice_at_a_time() -> None:
    size = BatchSize()
    sizes = []
    for _ in range(12):
        sizes.append(size.next(None))
        size.took(sizes[-1], sizes[-1] * 0.0001, target_s=0.5)  # 10,000 chunks a second: half a second is 5,000
    assert sizes[:4] == [256, 512, 1024, 2048]
    assert all(after <= 2 * before for before, after in itertools.pairwise(sizes))
    assert sizes[-1] == pytest.approx(5000, rel=0.01)


def test_a_slow_encoder_gets_small_batches_and_a_free_one_the_largest() -> None:
    slow, free = BatchSize(), BatchSize()
    for _ in range(40):
        slow.took(slow.size, slow.size * 1.0, target_s=1)
        free.took(free.size, 1e-6, target_s=1)
    assert slow.size == 16
    assert free.size == 8192


def test_one_slow_batch_does_not_throw_the_size_over() -> None:
    size = BatchSize()
    for _ in range(30):
        size.took(size.size, size.size * 0.001, target_s=1)
    steady = size.size
    size.took(size.size, size.size * 0.002, target_s=1)
    assert steady > size.size > 0.7 * steady


def test_limits_of_the_size() -> None:
    size = BatchSize(most=100)
    assert size.next(None) == 100
    assert size.next(5000) == 100
    assert size.next(7) == 7
    assert size.next(None, rate=3.7) == 3
    assert size.next(None, rate=0.1) == 1
    size.took(0, 0, target_s=1)
    assert size.next(None) == 100


def test_batches_are_spaced_by_the_rate_in_force() -> None:
    now = [0.0]
    pacer = BatchPacer(clock=lambda: now[0])
    assert pacer.delay(10) == 0
    pacer.begin(50)
    assert pacer.delay(10) == 5
    now[0] = 2
    assert pacer.delay(10) == 3
    assert pacer.delay(25) == 0  # a higher rate counts at once
    assert pacer.delay(None) == 0
    now[0] = 100
    pacer.begin(10)
    assert pacer.delay(10) == 1  # time that went by unused is not made up for
