"""Tab 1 over a real collection."""

from __future__ import annotations

from dataclasses import replace

import pytest

from revector.console.app import RevectorApp
from revector.core.database import Database
from revector.core.index import IndexState
from revector.core.registry import Version, VersionStatus
from revector.core.settings import Settings
from revector.screens.versions.pane import index_word
from revector.screens.widgets.table import Table
from revector.screens.wording.next_step import next_step
from tests.screens.frozen import NOWHERE, OVERVIEW, FrozenReader, job, situation, version
from tests.screens.support import LARGE, SMALL, TEXTS, add_candidate, cells_of, console, shown, until, until_shown
from tests.versions import add_chunks


@pytest.mark.parametrize("size", [LARGE, SMALL])
async def test_versions_as_the_database_has_them(library: Database, size: tuple[int, int]) -> None:
    app = console(library)
    async with app.run_test(size=size) as pilot:
        await until_shown(pilot, "demo-64", "demo-256")
        lines = shown(app).split("\n")
        active = next(line for line in lines if line.startswith(" ▶"))
        assert active.split()[:3] == ["▶", "demo-64", "static:wordllama-64" if size == LARGE else "64"]
        assert "active demo-64 ─ READ/WRITE" in lines[0]
        assert lines[0].rstrip().endswith("●")
        candidate = next(line for line in lines if " demo-256 " in line)
        assert candidate.split()[-5:-2] == ["ready", str(len(TEXTS)), "0"]


async def test_the_detail_follows_the_cursor(library: Database) -> None:
    app = console(library)
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "Active and complete. Nothing to do.")
        await pilot.press("down")
        await until_shown(pilot, "press 3. Then cut over: press 6.", "static:wordllama-256")
        assert app.selection == "demo-256"
        await pilot.press("enter")
        await until_shown(pilot, "version demo-256", "index settings", "chunk_embeddings_2_hnsw")
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1, "the details are closed")


async def test_a_snapshot_that_comes_with_a_key_does_not_take_it_back() -> None:
    app = RevectorApp(NOWHERE, Settings(), reader=FrozenReader())
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(pilot, "embed-v2026-04")
        app.panes["1"].query_one(Table).move_cursor(row=2)
        app.draw()
        await until(pilot, lambda: app.selection == "embed-v2026-04", "selected")


async def test_what_others_do_appears_by_itself(own_library: Database) -> None:
    app = console(own_library)
    async with app.run_test(size=LARGE) as pilot:
        await until_shown(pilot, "demo-256")
        await pilot.press("down")
        with own_library.session("test") as connection:
            add_candidate(connection, "demo-new")
            add_chunks(connection, ["came later"])
        await until_shown(pilot, "demo-new", "registered", "1 chunk added since the backfill")
        cells = cells_of(app.panes["1"].query_one(Table))
        assert [(key, row["state"], row["missing"]) for key, row in cells.items()] == [
            ("demo-64", "active", "1"),
            ("demo-256", "ready", "1"),
            ("demo-new", "registered", str(len(TEXTS) + 1)),
        ]
        assert app.selection == "demo-256", "the cursor stays where it was"


async def test_an_empty_collection_says_what_to_do(database: Database) -> None:
    app = console(database)
    async with app.run_test(size=SMALL) as pilot:
        await until_shown(
            pilot,
            "revector ingest PATH…",
            "revector versions add KEY --encoder static:wordllama-256",
            "revector backfill run KEY",
            "no active version",
        )
        for tab in "2368":
            await pilot.press(tab)
            await until(pilot, lambda tab=tab: app.tab == tab, "the tab")  # type: ignore[misc]
            await pilot.pause()
        await pilot.press("escape")


@pytest.mark.parametrize(
    ("state", "build", "expected"),
    [
        (IndexState("i", False, False, 0), None, "none"),
        (IndexState("i", True, True, 6_600_000), None, "6.6 MB"),
        (IndexState("i", True, False, 6_600_000), None, "invalid"),
        (IndexState("i", True, False, 0), ("loading tuples", 50, 200), "build 25 %"),
        (IndexState("i", True, False, 0), ("initializing", 0, 0), "building"),
    ],
)
def test_the_index_in_one_word(state: IndexState, build: tuple[str, int, int] | None, expected: str) -> None:
    status = OVERVIEW.versions[1]
    overview = replace(
        OVERVIEW,
        indexes={status.version.version_key: state},
        builds={status.version.version_key: build} if build else {},
    )
    assert index_word(situation(overview), status) == expected


@pytest.mark.parametrize(
    ("status", "extra", "expected"),
    [
        (version(2, "k", 64, "registered"), {}, "Backfill it: press 2, then r."),
        (version(2, "k", 64, "registered"), {"job": "running"}, "The backfill is running. Press 2 to watch."),
        (
            version(2, "k", 64, "registered"),
            {"job": "paused"},
            "The backfill is paused. To resume it, press 2, then r.",
        ),
        (version(2, "k", 64, "loaded"), {"failed": 3}, "3 chunks could not be embedded: press 2, then f."),
        (version(2, "k", 64, "loaded"), {}, "The index is missing."),
        (version(2, "k", 64, "loaded"), {"build": True}, "The index is being built."),
        (version(2, "k", 64, "ready"), {"index": True}, "Compare it: press 3"),
        (version(2, "k", 64, "ready"), {"index": True, "missing": 5}, "5 chunks added since the backfill."),
        (version(2, "k", 64, "previous"), {"index": True, "rollback": True}, "Press 6, then R to roll back"),
        (version(2, "k", 64, "retired"), {}, "Retired."),
        (version(2, "k", 64, "registered"), {"read_only": True}, "not in this read-only console"),
        (version(2, "k", 64, "registered"), {"no_encoder": True}, "revector versions adopt k --encoder SPEC"),
    ],
)
def test_the_next_step(status: Version, extra: dict[str, object], expected: str) -> None:
    if "no_encoder" in extra:
        status = replace(status, encoder_spec="")
    found = VersionStatus(status, 10, int(str(extra.get("missing", 0))), int(str(extra.get("failed", 0))))
    overview = replace(
        OVERVIEW,
        versions=(found,),
        jobs={"k": job("k", str(extra["job"]), 1, 10)} if "job" in extra else {},
        indexes={"k": IndexState("i", True, True, 1)} if "index" in extra else {},
        builds={"k": ("loading", 1, 2)} if "build" in extra else {},
        rollback_to="k" if "rollback" in extra else None,
    )
    assert expected in next_step(situation(overview, read_only="read_only" in extra), found)


@pytest.mark.parametrize("width", [80, 99, 100, 111, 112, 119, 140])
async def test_no_width_cuts_the_version_keys(width: int) -> None:
    app = RevectorApp(NOWHERE, Settings(), reader=FrozenReader())
    async with app.run_test(size=(width, 30)) as pilot:
        await until_shown(pilot, *(f" {s.version.version_key} " for s in OVERVIEW.versions))
