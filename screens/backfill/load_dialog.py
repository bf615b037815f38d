"""The dialog that loads a file of vectors made elsewhere into a version: the file, the progress, the result."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Button

from revector.core.database import Database
from revector.core.errors import RevectorError, UsageError
from revector.core.registry import Version
from revector.core.vectors.load import load
from revector.core.vectors.report import LoadReport
from revector.screens.widgets.background import Tell, in_background
from revector.screens.widgets.form import Form
from revector.screens.wording.job import bar
from revector.screens.wording.load import next_words, report_lines
from revector.screens.wording.text import printable, shorten
from revector.screens.wording.theme import BAD, CAUTION, FAINT, GOOD

_BAR_COLUMNS = 60
_LONGEST_NAME = 60


class _StoppedError(Exception):
    """The user stopped the load. Not an error for the log: the same load continues where it stopped."""


class LoadDialog(Form[bool | None]):
    """Returns whether anything may have been loaded. While it loads, Escape stops it after the current slice."""

    def __init__(self, database: Database, version: Version) -> None:
        super().__init__()
        self._database, self._version = database, version
        self._loading = False
        self._loaded = False
        self._stop = threading.Event()

    def compose(self) -> ComposeResult:
        with self.frame(f"Load vectors made elsewhere into {printable(self._version.version_key)}"):
            yield self.about(
                "Ids are chunk ids or semantic keys. A chunk that has a vector keeps it. Stopped at any moment, "
                "the same load continues where it stopped."
            )
            yield self.field("path", "file", hint=".npy (n, d), .safetensors, Parquet, Arrow …, or a folder")
            yield self.field("ids", "ids of a .npy", hint="beside it: NAME.ids.npy or NAME.ids.txt")
            yield self.field("id-column", "id column", hint="of a Parquet file: chunk_id or semantic_key")
            yield self.field("vector-column", "vector column", hint="of a Parquet file: embedding")
            yield self.choice("skip-bad", "bad vectors", "skip and count vectors that are zero or not finite")
            yield from self.end_of_form("Load")

    def on_unmount(self) -> None:
        """Do not wait for the whole file when the console ends."""
        self._stop.set()

    def objection(self) -> Text:
        return Text() if self.text("path") else Text("Tab to the box and type a file. Esc: close without changes")

    def check(self) -> None:
        """Nothing to check while it loads and afterwards: the line below the boxes shows the load."""
        if not self._loading:
            super().check()

    # -- loading ------------------------------------------------------------------------------------------

    def go(self) -> None:
        names = ("path", "ids", "id-column", "vector-column")
        path, ids, id_column, vector_column = (self.text(name) for name in names)
        skip_bad = self.chosen("skip-bad")
        self._stop = stop = threading.Event()
        self._set_loading(True)
        self.say(Text("Opening the file …", FAINT))

        def run(tell: Tell) -> LoadReport | None:
            from revector.core.cutover.policy import read_policy
            from revector.core.encoders.again import Limits
            from revector.core.vectors.files import find_files, open_vectors

            def heed(step: str, done: int, total: int) -> None:
                if stop.is_set():
                    raise _StoppedError
                tell(lambda: self._progress(step, done, total))

            files = [
                open_vectors(
                    one,
                    ids=_file(ids) if ids else None,
                    id_column=id_column or None,
                    vector_column=vector_column or None,
                )
                for one in find_files([_file(path)])
            ]
            with self._database.session("load") as connection:
                policy = read_policy(connection)
            limits = Limits(policy.encoder_cosine, policy.encoder_timeout_s, policy.encoder_usd)
            try:
                heed("loading", 0, sum(file.rows for file in files))
                return load(
                    self._database, self._version, files, skip_bad=skip_bad, limits=limits, on_progress=heed
                )
            except _StoppedError:
                return None

        in_background(self, "load", run, self._ended, self._failed)

    def _progress(self, step: str, done: int, total: int) -> None:
        if self._stop.is_set():
            return
        line = Text(f"{printable(step)}: {done:,} of {total:,} rows\n")
        line.append_text(bar(done, total, min(_BAR_COLUMNS, self.app.size.width - 14)))
        self.say(line)

    def _ended(self, report: LoadReport | None) -> None:
        self._set_loading(False)
        if report is None:
            self.say(Text("Stopped. Nothing is lost; load it again to continue.", CAUTION))
            return
        # The box above shows the whole path.
        rows, *more, state = report_lines(replace(report, source=shorten(Path(report.source).name, _LONGEST_NAME)))
        text = Text(f"✓ {printable(rows)}", GOOD)
        if report.resumed_at:
            text.append(f" Resumed at row {report.resumed_at:,}.", FAINT)
        for line in (*more, state):
            text.append(f"\n{printable(line)}", "default")
        if self._version.encoder_spec:
            text.append(f" {next_words(report)} r", "default")
        self.say(text)

    def _failed(self, error: RevectorError) -> None:
        self._set_loading(False)
        self.say(
            Text(f"✗ {printable(error.problem, lines=True)}\n{printable(error.remedy, lines=True)}".strip(), BAD)
        )

    def _set_loading(self, loading: bool) -> None:
        """While it loads, the only button stops it. Afterwards the first button closes the dialog."""
        self._loading, self._loaded = loading, True
        cancel = self.query_one("#cancel", Button)
        cancel.label = "Stop" if loading else "Close"
        for box in self.query("Input, Checkbox, #go"):
            box.disabled = loading
        cancel.focus()

    def action_cancel(self) -> None:
        """Stop the load; then close."""
        if not self._loading:
            self.dismiss(self._loaded)
        elif not self._stop.is_set():
            self._stop.set()
            self.say(Text("Stopping after the current slice …", CAUTION))


def _file(text: str) -> Path:
    """The typed path, with `~` expanded."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"There is no home folder of {text.partition('/')[0]!r}.") from None
