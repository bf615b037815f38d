"""The dialogs of the Shadow screen: what is mirrored and kept, and where the worst disagreements are judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.text import Text
from textual.app import ComposeResult

from revector.core.database import Connection
from revector.core.encoders import runs_here
from revector.core.errors import UsageError
from revector.core.registry import Version
from revector.core.shadow.judging import DEFAULT_SET
from revector.core.shadow.runs import ShadowRun, check_settings, start
from revector.screens.services import Services
from revector.screens.widgets.form import Form, wrong
from revector.screens.wording.facts import facts
from revector.screens.wording.text import printable
from revector.screens.wording.theme import CAUTION


class StartShadow(Form[Callable[[Connection], ShadowRun] | None]):
    """Returns what starts the shadow, once the version key is typed, or None."""

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
            check_settings(**self._settings())
        except UsageError as error:
            return wrong(error.problem, error.remedy)
        if self.text("key") != self._version.version_key:
            return Text(f"Type {printable(self._version.version_key)} in the last box. Esc: close without changes")
        return Text()

    def _settings(self) -> dict[str, Any]:
        sample, days = self._number("sample"), self._number("retention")
        return {"sample": sample, "query_text": self.text("query-text"), "retention_days": days}

    def _number(self, name: str) -> float:
        try:
            return float(self.text(name))
        except ValueError:
            raise UsageError(f"{self.text(name)!r} is not a number.", f"Expected one for the {name}.") from None

    def go(self) -> None:
        key, reason, settings = self.text("key"), self.text("reason"), self._settings()
        self.dismiss(lambda connection: start(connection, key, reason=reason, **settings))


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
