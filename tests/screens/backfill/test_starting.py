"""Starting a backfill from tab 2: the plan and its probe, runs with options, on Ray, and vectors from a file."""

from __future__ import annotations

import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Checkbox, Input

from revector.core.backfill.engines.ray import engine
from revector.core.backfill.job.job import find_job
from revector.core.database import Database
from revector.core.encoders import PROBE_TEXT, open_encoder
from revector.core.registry import embedded_count, get_version
from revector.core.vectors import slices
from revector.screens.backfill.load_dialog import LoadDialog
from revector.screens.backfill.run_dialog import RunDialog
from tests.protocol_server import Gate, ProtocolServer
from tests.ray_cluster import RayCluster
from tests.screens.support import (
    LARGE,
    SMALL,
    TEXTS,
    console,
    go_to_candidate,
    settings_of,
    shown,
    state_of,
    type_text,
    until,
    until_gone,
    until_shown,
)
from tests.vector_files import write_npy
from tests.versions import add, add_chunks


async def until_said(pilot: Pilot[None], *texts: str) -> None:
    """Wait until every text stands in the dialog, where a sentence may go on in the next line."""
    app = pilot.app

    def said() -> str:
        boxes = app.screen.query("#box")
        if not boxes:
            return ""
        region = boxes.first().content_region
        rows = shown(app).split("\n")[region.y : region.bottom]  # type: ignore[arg-type]
        return " ".join(" ".join(row[region.x : region.right] for row in rows).split())

    await until(pilot, lambda: all(text in said() for text in texts), f"in the dialog: {texts}")


# -- plan --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_a_plan_says_what_it_will_take(candidate: Database, size: tuple[int, int]) -> None:
    app = console(candidate)
    async with app.run_test(size=size) as pilot:
        await go_to_candidate(pilot, app)
        await pilot.press("P")
        await until_shown(
            pilot, "plan of the backfill of demo-new", "16 of 16 to be embedded", "none: the encoder runs here"
        )
        await pilot.press("escape")
        await until_gone(pilot, "plan of the backfill")
    assert state_of(candidate) == "none"


async def test_a_backfill_that_costs_money_asks_before_it_spends(
    own_library: Database, provider: ProtocolServer
) -> None:
    with own_library.session("test") as connection:
        add(connection, "demo-new", f"openai:text-embedding-3-small?base_url={provider.base_url}")
    asked = len(provider.requests)
    app = console(own_library)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        await pilot.press("r")
        await until_shown(
            pilot, "Spend money on a backfill", "at $0.02 per million", "Type the version key to confirm: demo-new"
        )
        await pilot.press("escape")
        await until_gone(pilot, "Spend money")
        assert state_of(own_library) == "none"
        assert len(provider.requests) == asked
        await pilot.press("r")
        await until_shown(pilot, "Spend money on a backfill")
        await pilot.press("tab")
        await type_text(pilot, "demo-new")
        await pilot.press("enter")
        await until_shown(pilot, "16 of 16 done")
        await until(pilot, lambda: not app.services.backfills.working, "all is done")
    assert len(provider.requests) > asked


@pytest.fixture
def priced(own_library: Database, provider: ProtocolServer) -> Database:
    """`demo-new` has no vectors yet, and each token of its encoder costs money."""
    with own_library.session("test") as connection:
        add(connection, "demo-new", f"openai:text-embedding-3-small?base_url={provider.base_url}")
        add_chunks(connection, [f"Page {number} of a long book" for number in range(200)])
    return own_library


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_a_probe_that_costs_money_is_offered_before_it_is_sent(
    priced: Database, provider: ProtocolServer, size: tuple[int, int]
) -> None:
    asked = len(provider.requests)
    app = console(priced)
    async with app.run_test(size=size) as pilot:
        await go_to_candidate(pilot, app)
        await pilot.press("P")
        await until_said(pilot, "The probe sends 11 texts, about ", " tokens, to openai:text-embedding-3-small")
        await until_said(pilot, " for about $0.00000", "Plan without it", "Send the probe")
        assert len(provider.requests) == asked, "nothing is sent before the answer"
        await pilot.press("enter")
        await until_shown(pilot, "plan of the backfill of demo-new", "216 of 216", "unknown: not measured")
        assert len(provider.requests) == asked, "Enter alone spends nothing"
        await pilot.press("escape", "P")
        await until_said(pilot, "The probe sends")
        await pilot.press("tab", "enter")
        await until_shown(pilot, "plan of the backfill of demo-new", "chunks/s encoded in batches of")
        # Besides the one text that asks for the dimensions.
        sent = [request.inputs for request in provider.requests[asked:] if request.inputs != [PROBE_TEXT]]
        assert 0 < sum(map(len, sent)) <= 11
    assert state_of(priced) == "none"


# -- a run with options ------------------------------------------------------------------------------------


async def test_a_run_that_stays_embeds_what_is_new_and_is_let_go(candidate: Database) -> None:
    app = console(candidate)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        await pilot.press("o")
        await until_said(pilot, "Starts a backfill")
        assert app.focused is app.screen.query_one("#cancel")
        await pilot.press("enter")
        await until(pilot, lambda: len(app.screen_stack) == 1, "Enter alone cancels")
        assert not app.services.backfills.working
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, RunDialog), "the dialog")
        app.screen.query_one("#stay").focus()
        await pilot.press("space", "enter", "enter")
        assert app.screen.query_one("#stay", Checkbox).value
        app.screen.query_one("#workers").focus()
        await pilot.press("backspace")
        await until_said(pilot, "✗ '' is not a number of workers.")
        await pilot.press("enter")
        assert isinstance(app.screen, RunDialog), "nothing runs with what cannot be"
        await pilot.press("2", "enter")
        await until_shown(pilot, "─  done in this console, which keeps running", "16 of 16 done")
        await until(pilot, lambda: "k stop working here" in shown(app), "the footer has the way out")
        await until(pilot, lambda: version_state(candidate) == "ready", "the index is built")
        with candidate.session("test") as connection:
            add_chunks(connection, ["one more", "and another"])
        await until_shown(pilot, "18 of 18 done")
        assert settings_of(candidate).workers == 2
        await pilot.press("k")
        await until(pilot, lambda: not app.services.backfills.working, "stop working here")
        await until_gone(pilot, "in this console")
        assert "✗" not in shown(app)
    with candidate.session("test") as connection:
        assert embedded_count(connection, get_version(connection, "demo-new")) == len(TEXTS) + 2


async def test_a_run_that_stays_waits_through_a_pause(served: Database, gate: Gate) -> None:
    app = console(served, batch_size=2)
    async with app.run_test(size=LARGE) as pilot:
        await go_to_candidate(pilot, app)
        await run_with(pilot, "stay")
        await until_shown(pilot, "─  running in this console, which keeps running")
        await until(pilot, gate.reached.is_set, "a batch is in hand")
        await pilot.press("p")
        await until(pilot, lambda: state_of(served) in ("pausing", "paused"), "asked to pause")
        gate.open()
        await until_shown(pilot, "─  paused in this console, which keeps running", "r run")
        assert "o options" not in shown(app)
        await pilot.press("r")
        await until_shown(pilot, "16 of 16 done")
        await until(pilot, lambda: state_of(served) == "done", "done")
        await pilot.press("q", "tab", "enter")
        await until(pilot, lambda: app._exit, "the console ends, and the run that stays with it")
        assert not app.services.backfills.working
    assert state_of(served) == "done"


async def test_leaving_pauses_a_run_that_stays(served: Database, gate: Gate) -> None:
    app = console(served, batch_size=2)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        await run_with(pilot, "stay")
        await until(pilot, gate.reached.is_set, "a batch is in hand")
        await pilot.press("q", "tab", "enter")
        await until(pilot, lambda: state_of(served) in ("pausing", "paused"), "asked to pause")
        gate.open()
        await until(pilot, lambda: app._exit, "the console ends")
        assert not app.services.backfills.working
    assert state_of(served) == "paused"


async def test_a_run_without_its_index_and_one_that_is_let_go(served: Database, gate: Gate) -> None:
    app = console(served, batch_size=2)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        await run_with(pilot, "index")
        await until(pilot, gate.reached.is_set, "a batch is in hand")
        await pilot.press("k")
        await until_shown(pilot, "Finishing the current batch first")
        gate.open()
        await until(pilot, lambda: not app.services.backfills.working, "stop working here")
        await until_shown(pilot, "─  interrupted", "✓ This console has stopped working on it.")
        assert state_of(served) == "interrupted", "not paused: whoever comes goes on with it"
        await run_with(pilot, "index")
        await until_shown(pilot, "─  done", "16 of 16 done")
        await until(pilot, lambda: not app.services.backfills.working, "all is done")
    assert version_state(served) == "loaded", "and not ready: it has no index"


def version_state(database: Database) -> str:
    with database.session("test") as connection:
        return get_version(connection, "demo-new").state


async def run_with(pilot: Pilot[None], *choices: str) -> None:
    """Open the dialog once the job's settings are there, change these choices, and run."""
    app = pilot.app

    def opened() -> bool:
        return isinstance(app.screen, RunDialog)

    pane = app.panes["2"]  # type: ignore[attr-defined]
    await until(pilot, lambda: pane.job.detail is not None or not pane.control.has_job, "the job's settings")
    await pilot.press("o")
    await until(pilot, opened, "the dialog")
    for choice in choices:
        app.screen.query_one(f"#{choice}").focus()
        await pilot.press("space")
    app.screen.query_one("#workers").focus()
    await pilot.press("enter")
    await until(pilot, lambda: len(app.screen_stack) == 1, "closed")


async def test_ray_is_refused_with_the_reason_where_it_is_not_installed(
    candidate: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda _name: None)
    app = console(candidate)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        await pilot.press("o")
        await until_said(pilot, "pip install 'revector[ray]'")
        assert app.screen.query_one("#ray", Checkbox).disabled
        assert not app.screen.query("#address")


@pytest.mark.parametrize(
    ("box", "text", "said"),
    [
        ("stay", None, "✗ A run on Ray cannot keep running."),
        ("cpus", "many", "✗ 'many' is not a number of CPUs."),
        ("gpus", "1.5", "✗ gpus_per_worker is 1.5."),
        ("workers", "0", "✗ The setting workers cannot be '0'"),
    ],
)
async def test_what_ray_cannot_do_is_said_while_it_is_typed(
    candidate: Database, box: str, text: str | None, said: str
) -> None:
    assert find_spec("ray"), "the tests have Ray"
    app = console(candidate)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, RunDialog), "the dialog")
        app.screen.query_one("#ray", Checkbox).value = True
        widget = app.screen.query_one(f"#{box}")
        widget.focus()
        if isinstance(widget, Input):
            await pilot.press("ctrl+u")
            await type_text(pilot, text or "")
        else:
            await pilot.press("space")
        await until_said(pilot, said)
        assert app.screen.query_one("#go", Button).disabled
        app.screen.query_one("#workers").focus()
        await pilot.press("enter")
        assert isinstance(app.screen, RunDialog)
        assert not app.services.backfills.working


async def test_a_run_on_ray_and_leaving_it(served: Database, gate: Gate) -> None:
    app = console(served, batch_size=2)
    with RayCluster() as cluster:
        async with app.run_test(size=LARGE) as pilot:
            await go_to_candidate(pilot, app)
            await pilot.press("o")
            await until(pilot, lambda: isinstance(app.screen, RunDialog), "the dialog")
            app.screen.query_one("#ray", Checkbox).value = True
            app.screen.query_one("#cpus", Input).value = "0.5"
            app.screen.query_one("#address").focus()
            await type_text(pilot, cluster.address)
            await pilot.press("enter")
            await until_shown(pilot, "in this console, on Ray")
            await until(pilot, gate.reached.is_set, "a batch is in hand", seconds=120)
            await until_shown(pilot, "─  running in this console, on Ray")
            assert len(cluster.workers()) == 1
            await pilot.press("q", "tab", "enter")
            await until(pilot, lambda: state_of(served) in ("pausing", "paused"), "asked to pause")
            gate.open()
            await until(pilot, lambda: app._exit, "the console ends", seconds=60)
            assert not app.services.backfills.working
        assert cluster.workers() == []
    assert state_of(served) == "paused"
    assert "ray" not in sys.modules, "Ray's driver is a process of its own"


def test_the_console_imports_no_ray_and_no_load_before_they_are_used() -> None:
    code = (
        "import sys, revector.console.app, revector.screens.backfill.pane, revector.screens.backfill.run_dialog; "
        "heavy = ('ray', 'revector.core.vectors.load', 'revector.core.backfill.engines.ray.worker'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


# -- load --------------------------------------------------------------------------------------------------


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "_SLICE_ROWS", 4)


def chunk_ids(database: Database) -> np.ndarray:
    with database.session("test") as connection:
        rows = connection.execute("SELECT id FROM document_chunks ORDER BY id").fetchall()
    return np.array([row[0] for row in rows], dtype=np.int64)


def vectors_for(database: Database, ids: np.ndarray) -> np.ndarray:
    """What the candidate's encoder makes of these chunks; of one that is not there, of its number."""
    with database.session("test") as connection:
        texts = dict(connection.execute("SELECT id, content FROM document_chunks").fetchall())
        encoder = open_encoder(get_version(connection, "demo-new").encoder_spec)
    return encoder.encode_documents([texts.get(one, str(one)) for one in ids.tolist()])


def stored_of(database: Database) -> int:
    with database.session("test") as connection:
        return embedded_count(connection, get_version(connection, "demo-new"))


async def open_load(pilot: Pilot[None], path: Path | str) -> LoadDialog:
    """Open the dialog and type the file's path."""
    app = pilot.app
    await pilot.press("L")
    await until(pilot, lambda: isinstance(app.screen, LoadDialog), "the dialog")
    await until_said(pilot, "Tab to the box and type a file")
    assert app.focused is app.screen.query_one("#cancel")
    await pilot.press("tab")
    await type_text(pilot, str(path))
    return app.screen  # type: ignore[return-value]


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_a_file_is_loaded_and_its_rows_accounted_for(
    candidate: Database, tmp_path: Path, size: tuple[int, int]
) -> None:
    ids = chunk_ids(candidate)
    rows = np.concatenate([ids[:10], ids[:1], [987_654_321]])
    vectors = vectors_for(candidate, rows)
    vectors[2] = np.nan
    path = write_npy(tmp_path, vectors, rows)
    app = console(candidate)
    async with app.run_test(size=size) as pilot:
        await go_to_candidate(pilot, app)
        dialog = await open_load(pilot, path)
        await pilot.press("enter")
        await until_said(pilot, "✗", "has nan at position 0", "--skip-bad")
        assert stored_of(candidate) == 0
        dialog.query_one("#skip-bad").focus()
        await pilot.press("space")
        dialog.query_one("#path").focus()
        await pilot.press("enter")
        await until_said(
            pilot,
            "✓ demo-new: 12 rows of vectors.npy: 9 stored, 0 had a vector already, 1 for unknown chunks, 1 duplicate, "
            "1 bad.",
            "demo-new is backfilling, 7 chunks missing.",
        )
        buttons = dialog.query_one("#buttons").region
        assert buttons.bottom <= size[1]
        assert buttons.height == 1
        assert stored_of(candidate) == 9
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1, "closed")
        await pilot.press("r")
        await until_shown(pilot, "─  done")
        await until(pilot, lambda: not app.services.backfills.working, "all is done")
    assert stored_of(candidate) == len(TEXTS)


async def test_a_parquet_file_with_columns_of_other_names(candidate: Database, tmp_path: Path) -> None:
    ids = chunk_ids(candidate)
    path = tmp_path / "vectors.parquet"
    vectors = pa.array(list(vectors_for(candidate, ids)), pa.list_(pa.float32()))
    pq.write_table(pa.table({"chunk": ids, "v": vectors}), path)
    app = console(candidate)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        dialog = await open_load(pilot, path)
        await pilot.press("enter")
        await until_said(pilot, "✗", "vectors.parquet")
        dialog.query_one("#id-column", Input).value = "chunk"
        dialog.query_one("#vector-column", Input).value = "v"
        dialog.query_one("#path").focus()
        await pilot.press("enter")
        await until_said(pilot, "16 stored", "0 chunks missing")
    assert stored_of(candidate) == len(TEXTS)


@pytest.mark.usefixtures("small_slices")
async def test_a_load_that_is_stopped_goes_on_where_it_was(
    candidate: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Escape while the second slice waits for a lock: that one is finished, and nothing comes after it."""
    from revector.core.vectors.load import _Load

    ids = chunk_ids(candidate)
    path = write_npy(tmp_path, vectors_for(candidate, ids), ids)
    second, go_on = threading.Event(), threading.Event()
    store = _Load._store

    def slow(self: _Load, part: object) -> None:
        if part.first == 4:  # type: ignore[attr-defined]
            second.set()
            go_on.wait(30)
        store(self, part)  # type: ignore[arg-type]

    monkeypatch.setattr(_Load, "_store", slow)
    app = console(candidate)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        dialog = await open_load(pilot, path)
        await pilot.press("enter")
        await until(pilot, second.is_set, "the second slice")
        await until_said(pilot, "loading demo-new: 4 of 16 rows", "25.0 %", "Stop")
        assert dialog.query_one("#path").disabled
        await pilot.press("escape")
        await until_said(pilot, "Stopping after the current slice")
        go_on.set()
        await until_said(pilot, "Stopped. Nothing is lost;")
        assert stored_of(candidate) == 8
        await pilot.press("tab")
        dialog.query_one("#path").focus()
        await pilot.press("enter")
        await until_said(pilot, "16 stored, 0 had a vector already", "Resumed at row 8.")
    assert stored_of(candidate) == len(TEXTS)


@pytest.mark.usefixtures("small_slices")
async def test_a_console_that_ends_stops_its_load(
    candidate: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from revector.core.vectors.load import _Load

    ids = chunk_ids(candidate)
    path = write_npy(tmp_path, vectors_for(candidate, ids), ids)
    first, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    store, finish = _Load._store, _Load.finish

    def slow(self: _Load, part: object) -> None:
        first.set()
        go_on.wait(30)
        store(self, part)  # type: ignore[arg-type]

    def finished(self: _Load) -> object:
        try:
            return finish(self)
        finally:
            ended.set()

    monkeypatch.setattr(_Load, "_store", slow)
    monkeypatch.setattr(_Load, "finish", finished)
    app = console(candidate)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        await open_load(pilot, path)
        await pilot.press("enter")
        await until(pilot, first.is_set, "the first slice")
        app.exit()
    go_on.set()
    assert ended.wait(30)
    assert stored_of(candidate) == 4


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.npy", "There is no file"),
        ("~nobody-of-that-name/x.npy", "There is no home folder of '~nobody-of-that-name'"),
        ("[red]x[/red].npy", "[red]x[/red].npy"),
        ("text.npy", "is no file of vectors"),
        ("pickled.npy", "pickled.npy"),
    ],
)
async def test_files_that_are_none_are_said_in_the_dialog(
    candidate: Database, tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / "text.npy").write_text("\x1b[31mnot vectors")
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    app = console(candidate)
    async with app.run_test(size=SMALL) as pilot:
        await go_to_candidate(pilot, app)
        await open_load(pilot, name if name.startswith("~") else tmp_path / name)
        await pilot.press("enter")
        await until_said(pilot, "✗", said)
        assert isinstance(app.screen, LoadDialog)
        assert app.screen.query_one("#go", Button).disabled is False
    with candidate.session("test") as connection:
        assert find_job(connection, get_version(connection, "demo-new")) is None
    assert stored_of(candidate) == 0


async def test_a_read_only_console_starts_nothing(candidate: Database) -> None:
    app = console(Database(candidate.dsn, candidate.schema, read_only=True))
    async with app.run_test(size=LARGE) as pilot:
        await go_to_candidate(pilot, app)
        for words in ("o options", "L load", "k stop working here"):
            assert words not in shown(app)
        await pilot.press("o", "L", "k")
        assert len(app.screen_stack) == 1
