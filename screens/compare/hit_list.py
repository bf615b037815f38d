"""One side of a comparison: the hits of a version, each with its move to the other version."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.content import Content

from revector.core.evaluation.judged_sets.judged_hits import JudgedHits
from revector.core.overlap import Move
from revector.core.retrieval import Hit, SearchResult
from revector.screens.widgets.table import Column, Row, Table
from revector.screens.wording.grades import star_cell
from revector.screens.wording.text import first_line, milliseconds, printable
from revector.screens.wording.theme import BAD, FAINT, GOOD, TITLE

_COLUMNS = (
    Column("", 3, right=True),
    Column("", 4),
    Column("title"),
    Column("source", 18, from_width=52),
)


class HitList(Table):
    """Ranked hits. The other list marks the same chunk, if it has it."""

    DEFAULT_CSS = """
    HitList { border: round $border-blurred; width: 1fr; height: 1fr; border-title-color: $secondary; }
    HitList:focus { border: heavy $primary; border-title-color: $foreground; }
    HitList > .datatable--cursor { text-style: bold underline; }
    """

    def __init__(self, id: str) -> None:  # noqa: A002
        super().__init__(_COLUMNS, id=id, header=False)
        self.hits: tuple[Hit, ...] = ()
        self.moves: Sequence[Move] = ()

    def show_result(self, role: str, result: SearchResult, moves: Sequence[Move]) -> None:
        self.hits, self.moves = result.hits, moves
        key = printable(result.version_key)
        self.border_title = Content(f" {role} {key} · {milliseconds(result.encode_s + result.search_s)} ")
        self.show_stars(None)

    def show_stars(self, judged: JudgedHits | None) -> None:
        self.show([_row(hit, move, judged) for hit, move in zip(self.hits, self.moves, strict=True)])

    def show_nothing(self, role: str, key: str | None) -> None:
        """Draw an empty list for a version that was not searched."""
        self.hits, self.moves = (), ()
        self.border_title = Content(f" {role} {printable(key or '—')} ")
        self.show([])

    @property
    def hit(self) -> Hit | None:
        """The hit under the cursor."""
        return next((hit for hit in self.hits if str(hit.chunk_id) == self.row_key), None)

    def link(self, hit: Hit | None) -> None:
        """Mark the chunk under the other list's cursor, if it is among the hits."""
        with self.prevent(self.RowHighlighted):
            self.show_cursor = hit is not None and self.move_to(str(hit.chunk_id))

    def next_disagreement(self) -> None:
        """Move to the next hit with another rank in the other version, or missing there; wraps around."""
        line = self.cursor_row
        places = [*range(line + 1, len(self.moves)), *range(line + 1)]
        found = next((place for place in places if self.moves[place].label != "="), None)
        if found is not None:
            self.move_cursor(row=found)


def _row(hit: Hit, move: Move, judged: JudgedHits | None) -> Row:
    title = Text(first_line(hit.content))
    if judged is not None:
        title = Text.assemble(star_cell(judged, hit.chunk_id), title)
    return Row(str(hit.chunk_id), (str(hit.rank), move_text(move), title, Text(printable(hit.source_id), FAINT)))


def move_text(move: Move) -> Text:
    """`▲2`, `▼3`, `=`, `new` or `gone`; colour only repeats the sign."""
    label = move.label
    style = {"▲": GOOD, "▼": BAD, "g": BAD, "=": FAINT}.get(label[0], TITLE)
    return Text(f"{label:>4}", style)
