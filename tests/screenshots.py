"""The README's pictures: the real screens over the demo on a server of their own, as SVG. Run by `make screens`."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from revector.console.app import RevectorApp
from revector.console.context import Context
from revector.console.demo.story import FIRST, GATES, QUERY_SET, SECOND, mirror_queries, prepare
from revector.core import cutover, embedded
from revector.core.backfill.job.job import change_settings
from revector.core.backfill.job.status import JobDetail, JobStatus, job_detail
from revector.core.evaluation.evaluate import Asked, evaluate
from revector.core.evaluation.gates.gate_file import read_gates
from revector.core.evaluation.judged_sets.query_sets import get_query_set
from revector.core.registry import get_version
from revector.screens.compare.actions import CompareState
from revector.screens.cutover.actions import CutoverState
from revector.screens.evaluate.actions import EvaluateState
from revector.screens.pane import Pane
from revector.screens.shadow.actions import ShadowState

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "screens"
SIZE = (120, 36)
_SOMEBODY = "ada@ops"


def main() -> None:
    """Take every picture again."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        try:
            # Names of people and machines do not belong into pictures.
            with (
                mock.patch("revector.core.database.client_name", return_value=_SOMEBODY),
                mock.patch("revector.screens.wording.job.client_name", return_value=_SOMEBODY),
                mock.patch("revector.screens.backfill.reader.job_detail", _of_somebody),
            ):
                own = Context(flags={"home": home, "label": "search-eu"})
                prepare(own)
                asyncio.run(take(own))
        finally:
            embedded.stop(home)


def _of_somebody(*arguments: Any, **more: Any) -> JobDetail | None:
    """The detail of a job; its workers are processes of their own, which say who really runs them."""
    detail = job_detail(*arguments, **more)
    if detail is None:
        return None
    return replace(
        detail,
        workers=tuple(replace(worker, client=_SOMEBODY) for worker in detail.workers),
        transitions=tuple(replace(change, client=_SOMEBODY) for change in detail.transitions),
    )


def job(app: RevectorApp) -> JobStatus | None:
    """The backfill of the demo's candidate."""
    overview = app.situation.overview
    return overview.jobs.get("demo-256") if overview else None


def judged(own: Context) -> None:
    """The demo's judged queries, with its gates."""
    with own.session() as connection:
        evaluate(
            own.database,
            get_query_set(connection, QUERY_SET),
            get_version(connection, FIRST),
            get_version(connection, SECOND),
            Asked(gates=read_gates(GATES)),
        )


def mirrored(own: Context) -> None:
    """The demo's queries as shadow traffic."""
    with own.session() as connection:
        mirror_queries(own.database, connection)


async def take(own: Context) -> None:
    """The demo's story, with a picture at each stop."""
    app = RevectorApp(own.database, own.settings)
    async with app.run_test(size=SIZE) as pilot:

        async def until(condition: Callable[[], object]) -> None:
            while not condition():
                await pilot.pause(0.05)
            await pilot.pause(1.2)  # a picture may wait for the next tick of clock and snapshot

        def picture(name: str) -> None:
            (FOLDER / f"{name}.svg").write_text(app.export_screenshot(title=f"revector: {name}"), encoding="utf-8")
            sys.stdout.write(f"{name}\n")

        await until(lambda: app.reader.latest.overview)
        await pilot.press("down")
        await until(lambda: app.selection == "demo-256")
        picture("versions")
        await pilot.press("b")
        # As slow, and in as many ranges, as a large collection.
        app.services.backfills.prepare(
            "demo-256", {"workers": "2", "batch_size": "32", "max_rate": "60", "max_spend_usd": "50"}
        )
        with mock.patch("revector.core.backfill.job.job._RANGE_CHUNKS", 32):
            await pilot.press("r")
            await until(lambda: (found := job(app)) and found.done > 0.45 * found.total and found.eta_low_s)
        picture("backfill")
        with own.session() as connection:
            change_settings(connection, get_version(connection, "demo-256"), {"max_rate": "none"})
        await until(lambda: (found := job(app)) and found.state == "done" and not app.services.backfills.working)
        await pilot.press("3")
        await until(lambda: app.tab == "3")
        await pilot.press("slash", *"run a command and get its output", "enter")
        await until(lambda: app.situation.of(CompareState).compared)
        picture("compare")
        await asyncio.to_thread(judged, own)
        await pilot.press("escape", "4")
        await until(lambda: app.situation.of(EvaluateState).evaluated)
        picture("evaluate")
        await asyncio.to_thread(mirrored, own)
        await pilot.press("escape", "5")
        await until(lambda: app.tab == "5" and app.situation.of(ShadowState).shadowing is not None)
        picture("shadow")
        await pilot.press("escape", "6")
        await until(lambda: app.situation.of(CutoverState).cleared)
        picture("cutover")
        with own.session() as connection:
            cutover.run(connection, "demo-256", confirm="demo-256", reason="better on how-to queries")
            cutover.rollback(connection, confirm="demo-64", reason="practice")
        await pilot.press("8")
        await until(lambda: isinstance(app.panes.get("8"), Pane))
        picture("log")


if __name__ == "__main__":
    main()
