"""The dialog that waives a failed chunk: which one, and why it may be missing."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult

from revector.screens.widgets.form import Form
from revector.screens.wording.text import printable


class WaiveChunk(Form[tuple[int, str] | None]):
    """Returns the chunk that may be missing and why, or None. A reason is required."""

    def __init__(self, key: str, chunk_id: int | None) -> None:
        super().__init__()
        self._key, self._chunk_id = key, chunk_id
        # Enter alone does nothing: the box is empty.
        self.focus_first = "#chunk" if chunk_id is None else "#reason"

    def compose(self) -> ComposeResult:
        with self.frame("Waive a dead letter"):
            yield self.about(
                f"The chunk gets no vector in {printable(self._key)}, and the version counts as complete without it. "
                "Searches do not find it. Your name and reason are logged."
            )
            yield self.field("chunk", "chunk", str(self._chunk_id or ""))
            yield self.field("reason", "why", hint="why it may be missing")
            yield from self.end_of_form("Waive")

    def objection(self) -> Text:
        chunk = self.text("chunk")
        if chunk.isascii() and chunk.isdigit() and int(chunk) < 2**63 and self.text("reason"):
            return Text()
        return Text("Type the number of the chunk and a reason. Esc: close without changes")

    def go(self) -> None:
        self.dismiss((int(self.text("chunk")), self.text("reason")))
