"""The chart: drawn by plotext, when its data or size change and at no other time."""

from __future__ import annotations

from textual.app import App, ComposeResult

from revector.screens.widgets.chart import Chart, Series, build
from tests.screens.support import until


def test_lines_have_the_size_asked_for_and_no_colour() -> None:
    lines = build([Series((0.2, 0.5, 1.0))], 50, 12, (0, 1)).split("\n")
    assert len(lines) == 12
    assert {len(line) for line in lines} == {50}
    assert "\x1b" not in "".join(lines)
    assert "1.00" in lines[0]
    assert lines[-1].split() == ["1", "2", "3"]


def test_larger_than_the_terminal_that_plotext_believes_in() -> None:
    assert {len(line) for line in build([Series((1.0, 2.0))], 300, 20).split("\n")} == {300}


def test_series_differ_by_marker_and_label() -> None:
    drawn = build([Series((1, 2, 1), "demo-64"), Series((2, 1, 2), "demo\x1b-256")], 60, 14)
    assert "• demo-64" in drawn
    assert "x demo␛-256" in drawn
    assert drawn.count("•") > 5
    assert drawn.count("x") > 5


def test_the_smallest_that_is_drawn_and_a_single_point() -> None:
    assert len(build([Series((7.0,))], 12, 4).split("\n")) == 4


class OneChart(App[None]):
    def compose(self) -> ComposeResult:
        yield Chart("rate", nothing="Nothing yet.")


async def test_it_draws_only_when_something_changed() -> None:
    app = OneChart()
    async with app.run_test(size=(60, 20)) as pilot:
        chart = app.query_one(Chart)
        chart.plot([])
        assert "Nothing yet." in chart.render().plain
        assert chart.builds == 0
        chart.plot([Series((1.0, 3.0, 2.0))])
        await until(pilot, lambda: chart.builds == 1, "the first drawing")
        for _ in range(5):
            chart.plot([Series((1.0, 3.0, 2.0))])
            chart.refresh()
            await pilot.pause()
        assert chart.builds == 1
        chart.plot([Series((1.0, 3.0, 2.0, 4.0))])
        assert chart.builds == 2
        await pilot.resize_terminal(50, 20)
        await until(pilot, lambda: chart.builds == 3, "the drawing in the new size")
        assert max(map(len, chart.render().plain.split("\n"))) == 48
