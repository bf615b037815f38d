"""The map of a backfill: its ranges of chunk ids in order, one sign for each range or for several."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.content import Content
from textual.widget import Widget

from revector.core.backfill.job.status import Cell
from revector.screens.wording.theme import BAD, CAUTION, FAINT, GOOD, TITLE

DONE, RUNNING, PARTLY, WAITING, FAILED = "█", "»", "▒", "·", "✗"
_STYLES = {DONE: GOOD, RUNNING: TITLE, PARTLY: CAUTION, WAITING: FAINT, FAILED: f"bold {BAD}"}
_WIDEST = 4
"""The height of a cell in signs when there are few."""
_LEGEND_LINES = 2


class RangeMap(Widget):
    """Cells differ by sign, not only by colour. Cells with failed chunks show their number."""

    DEFAULT_CSS = """
    RangeMap { border: round $border-blurred; border-title-color: $secondary; color: $foreground; min-height: 5; }
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._cells: tuple[Cell, ...] = ()
        self.border_title = Content(" map ")

    @property
    def room(self) -> int:
        """How many cells fit."""
        width, height = self.content_size
        return max(1, width * (height - _LEGEND_LINES))

    def plot(self, cells: Sequence[Cell]) -> None:
        if tuple(cells) != self._cells:
            self._cells = tuple(cells)
            ranges = sum(cell.ranges for cell in cells)
            each = -(-ranges // len(cells)) if cells else 1
            scale = f", one sign for {each:,} of them" if each > 1 else ""
            self.border_title = Content(
                f" map of the chunk ids in {ranges:,} part{'s' if ranges != 1 else ''}{scale} "
            )
            self.refresh()

    def render(self) -> Text:
        if not self._cells:
            return Text("No range of chunks has been planned yet.", FAINT)
        width, height = self.content_size
        text = Text(no_wrap=True)
        for line in drawn(self._cells, width, max(1, height - _LEGEND_LINES)):
            text.append(line).append("\n")
        return text.append(legend(self._cells, width))


def sign(cell: Cell) -> str:
    """The sign of a cell: failed first, then running, then done."""
    if cell.failed:
        return FAILED
    if cell.running:
        return RUNNING
    if cell.finished == cell.ranges:
        return DONE
    return PARTLY if cell.finished else WAITING


def drawn(cells: Sequence[Cell], width: int, height: int) -> list[Text]:
    """The cells in order on at most `height` lines of `width`; merges cells if there are too many."""
    cells = gathered(cells, width * height)
    wide = max(1, min(_WIDEST, width * height // len(cells), width))
    while wide > 1 and -(-len(cells) // (width // wide)) > height:
        wide -= 1
    on_a_line = width // wide
    lines = []
    for start in range(0, len(cells), on_a_line):
        line = Text(no_wrap=True)
        for cell in cells[start : start + on_a_line]:
            line.append(*_cell(cell, wide))
        lines.append(line)
    return lines


def _cell(cell: Cell, wide: int) -> tuple[str, str]:
    mark = sign(cell)
    count = str(cell.failed)
    if mark == FAILED and len(count) <= wide:
        return count.ljust(wide, FAILED), _STYLES[mark]
    return mark * wide, _STYLES[mark]


def gathered(cells: Sequence[Cell], most: int) -> list[Cell]:
    """At most that many cells, by merging neighbours."""
    groups: dict[int, list[Cell]] = {}
    for number, cell in enumerate(cells):
        groups.setdefault(number * min(most, len(cells)) // len(cells), []).append(cell)
    return [
        Cell(
            group[0].first_chunk_id,
            group[-1].last_chunk_id,
            *(sum(getattr(cell, name) for cell in group) for name in ("ranges", "finished", "running", "failed")),
        )
        for group in groups.values()
    ]


def legend(cells: Sequence[Cell], width: int) -> Text:
    """`█ 12 done  » 2 running  · 40 waiting  ▒ some done  3 ✗ 3 chunks failed`, wrapped to the width."""
    ranges, finished, running, failed = (
        sum(getattr(cell, name) for cell in cells) for name in ("ranges", "finished", "running", "failed")
    )
    parts = [
        (DONE, f"{finished:,} done"),
        (RUNNING, f"{running:,} running"),
        (WAITING, f"{ranges - finished - running:,} waiting"),
    ]
    if failed:
        parts.append((FAILED, f"or number: {failed:,} failed chunk{'s' if failed != 1 else ''}"))
    if any(sign(cell) == PARTLY for cell in cells):
        parts.append((PARTLY, "partly done"))
    text, used = Text(no_wrap=True), 0
    for mark, words in parts:
        length = len(mark) + 1 + len(words)
        if used and used + 2 + length > width:
            text.append("\n")
            used = 0
        elif used:
            text.append("  ")
            used += 2
        text.append(mark, _STYLES[mark]).append(f" {words}")
        used += length
    return text
