"""The dialogs of the Shadow screen: what is mirrored and kept, and where the worst disagreements are judged."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text
from textual.app import ComposeResult

from revector.core.encoders import runs_here
from revector.core.errors import UsageError
from revector.core.registry import Version
from revector.core.shadow.judging import DEFAULT_SET
from revector.core.shadow.runs import check_settings
from revector.screens.services import Services
from revector.screens.widgets.form import Form, wrong
from revector.screens.wording.facts import facts
from revector.screens.wording.text import printable
from revector.screens.wording.theme import CAUTION


@dataclass(frozen=True)
class ShadowWish:
    """The settings of the shadow to start."""

    key: str
    sample: float
    query_text: str
    retention_days: float
    reason: str


class StartShadow(Form[ShadowWish | None]):
    """Returns the shadow to start, once the version key is typed, or None."""

    def __init__(self, services: Services, version: Version) -> None:
        super().__init__()
        self._services, self._version = services, version

    def compose(self) -> ComposeResult:
        key = self._version.version_key
        spec = self._version.encoder_spec
        encoder = Text(printable(spec))
        if not runs_here(spec):
            encoder.append("  users' queries leave this machine and may cost money", CAUTION)
        lines: list[tuple[str, str | Text]] = [
            self._services.where,
            ("encoder", encoder),
            (
                "effect",
                "users' queries are sampled and searched with it too; they get the active version's answer",
            ),
        ]
        with self.frame(f"Shadow users' queries to {printable(key)}"):
            yield self.about(facts(lines))
            yield self.field("sample", "sample", "0.1", hint="share, above 0 up to 1")
            yield self.field("query-text", "query text", "hashed", hint="stored, hashed or omitted")
            yield self.field("retention", "kept, in days", "14")
            yield self.field("reason", "reason", hint="for the log (optional)")
            yield self.field("key", "version key", hint=f"type {printable(key)} to confirm")
            yield from self.end_of_form("Start it")

    def objection(self) -> Text:
        try:
            wish = self._wish()
            check_settings(wish.sample, wish.query_text, wish.retention_days)
        except UsageError as error:
            return wrong(error.problem, error.remedy)
        if wish.key != self._version.version_key:
            return Text(f"Type {printable(self._version.version_key)} in the last box. Esc: close without changes")
        return Text()

    def _wish(self) -> ShadowWish:
        return ShadowWish(
            self.text("key"), self._number("sample"), self.text("query-text"), self._number("retention"),
            self.text("reason"),
        )  # fmt: skip

    def _number(self, name: str) -> float:
        try:
            return float(self.text(name))
        except ValueError:
            raise UsageError(f"{self.text(name)!r} is not a number.", f"Expected one for the {name}.") from None

    def go(self) -> None:
        self.dismiss(self._wish())


class SendToJudging(Form[str | None]):
    """Returns the name of the query set for that many queries, or None."""

    def __init__(self, queries: int) -> None:
        super().__init__()
        self._queries = queries

    def compose(self) -> ComposeResult:
        count = f"{self._queries} queries" if self._queries > 1 else "1 query"
        with self.frame("Send the worst disagreements to the judging queue"):
            yield self.about(
                f"The {count} below whose text is stored are added to a query set; J judges what both versions "
                "find for them. Use a separate set to leave evaluations of other sets unchanged."
            )
            yield self.field("set", "query set", DEFAULT_SET)
            yield from self.end_of_form("Send them")

    def objection(self) -> Text:
        return Text() if self.text("set") else Text("Type the name of a query set. A new one is created.")

    def go(self) -> None:
        self.dismiss(self.text("set"))
