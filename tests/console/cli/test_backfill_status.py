"""The status of a backfill in words."""

from __future__ import annotations

import datetime

from revector.console.commands.backfill.status import status_lines
from tests.screens.frozen import YESTERDAY, job

MONTH = datetime.timedelta(days=30)


def test_what_a_run_took_and_did_is_not_what_all_runs_of_the_job_did() -> None:
    ended = YESTERDAY + datetime.timedelta(seconds=4)
    found = job("v2", "done", 1200, 1200, started_at=YESTERDAY - MONTH, finished_at=ended, run_done=40)
    assert list(status_lines(found)) == [
        "v2: done, took 4 s",
        "1,200 of 1,200 chunks done (40 in the last run), 0 failed, 0 pending",
    ]
