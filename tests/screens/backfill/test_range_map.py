"""The map of a backfill's ranges: what each cell says, and that nothing is lost however many there are."""

from __future__ import annotations

import itertools

import pytest
from rich.cells import cell_len

from revector.core.backfill.job.status import Cell
from revector.screens.backfill.range_map import (
    DONE,
    FAILED,
    PARTLY,
    RUNNING,
    WAITING,
    drawn,
    gathered,
    legend,
    sign,
)


def cell(ranges: int = 1, finished: int = 0, running: int = 0, failed: int = 0) -> Cell:
    return Cell(1, 10, ranges, finished, running, failed)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (cell(), WAITING),
        (cell(finished=1), DONE),
        (cell(running=1), RUNNING),
        (cell(4, finished=2), PARTLY),
        (cell(4, finished=2, running=1), RUNNING),
        (cell(4, finished=4, failed=1), FAILED),
    ],
)
def test_signs(found: Cell, expected: str) -> None:
    assert sign(found) == expected


def test_signs_are_all_different() -> None:
    assert len({DONE, RUNNING, PARTLY, WAITING, FAILED}) == 5


def test_a_failed_cell_tells_how_many_where_that_fits() -> None:
    assert [line.plain for line in drawn([cell(failed=7), cell()], 8, 1)] == ["7✗✗✗····"]
    assert [line.plain for line in drawn([cell(failed=7), cell()], 2, 1)] == ["7·"]
    assert [line.plain for line in drawn([cell(failed=12), cell()], 2, 1)] == ["✗·"]


@pytest.mark.parametrize("count", [1, 3, 10, 99, 100, 101, 5_000])
@pytest.mark.parametrize(("width", "height"), [(10, 10), (76, 6), (13, 1), (1, 1)])
def test_any_number_of_cells_fits_any_room(count: int, width: int, height: int) -> None:
    cells = [cell(finished=1) for _ in range(count)]
    lines = drawn(cells, width, height)
    assert len(lines) <= height
    assert all(cell_len(line.plain) <= width for line in lines)
    assert set("".join(line.plain for line in lines)) == {DONE}


def test_gathering_loses_nothing() -> None:
    cells = [Cell(n * 10 + 1, n * 10 + 10, 2, n % 3, n % 2, n % 5) for n in range(1_000)]
    few = gathered(cells, 37)
    assert len(few) == 37
    for name in ("ranges", "finished", "running", "failed"):
        assert sum(getattr(one, name) for one in few) == sum(getattr(one, name) for one in cells)
    assert (few[0].first_chunk_id, few[-1].last_chunk_id) == (1, 10_000)
    assert all(before.last_chunk_id + 1 == after.first_chunk_id for before, after in itertools.pairwise(few))


def test_the_legend_counts_ranges_and_fits() -> None:
    cells = [cell(10, finished=3, running=2), cell(10, finished=1), cell(10, finished=10, failed=1)]
    assert (
        legend(cells, 200).plain
        == "█ 14 done  » 2 running  · 14 waiting  ✗ or number: 1 failed chunk  ▒ partly done"
    )
    assert all(cell_len(line) <= 40 for line in legend(cells, 40).plain.split("\n"))
