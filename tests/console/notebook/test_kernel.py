"""The Console in a real Jupyter kernel: what a cell shows while it works, when it is interrupted, and when it fails."""

from __future__ import annotations

import threading

from revector.core.backfill.engines.local import LocalEngine
from revector.core.backfill.job.job import change_settings
from revector.core.backfill.job.settings import JobSettings
from revector.core.backfill.job.status import JobStatus, status
from revector.core.database import Database
from revector.core.registry import get_version
from tests.console.notebook.conftest import Kernel
from tests.versions import NUMBERS, add, add_chunks

START = "from revector.console.notebook import Console\nconsole = Console({dsn!r}, {schema!r})"


def slow_collection(database: Database) -> str:
    """256 chunks and the version `slow`; returns the cell that opens it."""
    with database.session("test") as connection:
        add_chunks(connection, [f"{a} {b}" for a in NUMBERS for b in NUMBERS])
        add(connection, "slow")
    return START.format(dsn=database.dsn, schema=database.schema)


def job(database: Database) -> JobStatus:
    with database.session("test") as connection:
        found = status(connection, get_version(connection, "slow"))
        assert found is not None
        return found


def test_a_backfill_is_live_can_be_interrupted_and_goes_on(kernel: Kernel, database: Database) -> None:
    assert kernel.run(slow_collection(database)).error is None
    seen: list[str] = []

    def interrupt_when_running(html: str) -> None:
        if "Backfill of slow: running" in html and job(database).done and not seen:
            seen.append(html)
            kernel.manager.interrupt_kernel()

    ran = kernel.run('console.backfill("slow", max_rate=20, batch_size=4)', interrupt_when_running)
    assert ran.error is not None, ran
    assert ran.error["ename"] == "CellInterruptedError"
    assert ran.error["traceback"] == ['Interrupted; nothing is lost. Resume: console.backfill("slow")']
    assert "Backfill of slow: interrupted" in ran.live[-1], "what the saved notebook keeps"
    assert "Interrupted; nothing is lost." in ran.live[-1]
    stopped = job(database)
    assert (stopped.state, stopped.workers) == ("interrupted", 0)
    assert 0 < stopped.done < 256
    assert f"{stopped.done:,} of 256 chunks" in ran.live[-1]

    again = kernel.run('job = console.backfill("slow", max_rate=None)\njob')
    assert again.error is None, again.error
    assert again.result is None, "shown once, in the place of the progress"
    assert "Backfill of slow: done" in again.live[-1]
    assert "256 of 256 chunks" in again.live[-1]
    assert job(database).state == "done"
    later = kernel.run("job")
    assert later.result is not None
    assert later.result["text/html"] == again.live[-1]
    assert not later.displays


def test_a_backfill_that_runs_elsewhere_is_followed(kernel: Kernel, database: Database) -> None:
    cell = slow_collection(database)
    with database.session("test") as connection:
        version = get_version(connection, "slow")
    at_work = threading.Event()
    engine = LocalEngine(
        database, version, JobSettings(batch_size=4, max_rate=20),
        on_status=lambda found: at_work.set() if found.state == "running" and found.workers else None,
    )  # fmt: skip
    elsewhere = threading.Thread(target=engine.run)
    elsewhere.start()
    try:
        assert at_work.wait(60)
        assert kernel.run(cell).error is None
        interrupted: list[str] = []

        def stop_following(_html: str) -> None:
            if not interrupted:
                interrupted.append("once")
                kernel.manager.interrupt_kernel()

        ran = kernel.run('console.backfill("slow")', stop_following)
        assert ran.error is not None
        assert ran.error["traceback"] == ["No longer following. The backfill keeps running elsewhere."]
        assert "It is running elsewhere; this cell follows it." in ran.live[0]
        assert "Backfill of slow: running" in ran.live[-1]
        assert job(database).state == "running"

        with database.session("test") as connection:
            change_settings(connection, version, {"max_rate": None})
        ran = kernel.run('console.backfill("slow")')
        assert ran.error is None
        assert "Backfill of slow: done" in (ran.live[-1] if ran.displays else (ran.result or {})["text/html"])
    finally:
        engine.leave("the test ends")
        elsewhere.join()


def test_an_error_is_what_it_says_and_no_wall(kernel: Kernel, database: Database) -> None:
    assert kernel.run(slow_collection(database)).error is None
    ran = kernel.run('console.search("x", version="slwo")')
    assert ran.error is not None
    assert ran.error["ename"] == "NotFoundError"
    assert ran.error["traceback"] == [
        "\x1b[31mNotFoundError\x1b[0m: There is no embedding version 'slwo'.",
        "Did you mean slow?",
    ]
    caught = kernel.run(
        "from revector.core.errors import RefusedError\n"
        'try: console.cutover("slow", confirm="slow")\n'
        'except RefusedError as error: print("caught", error.problem)'
    )
    assert caught.streams == "caught Version slow is not ready; nothing was changed.\n"


def test_nothing_but_the_answer_is_shown(kernel: Kernel, own_library: Database) -> None:
    """Rich shows by itself, in a kernel, whatever is printed to one of its consoles."""
    assert kernel.run(START.format(dsn=own_library.dsn, schema=own_library.schema)).error is None
    for cell in ("console.versions()", 'console.compare("Rate limits")', 'console.snapshot("log")'):
        ran = kernel.run(cell)
        assert ran.result is not None, ran
        assert (ran.displays, ran.streams) == ({}, "")
    ran = kernel.run('evaluation = console.evaluate("titles")\nprint(evaluation.data.id)\nevaluation')
    assert ran.result is None
    assert "No gates: demo-256 against demo-64" in ran.live[-1]
    assert ran.streams == "1\n"
