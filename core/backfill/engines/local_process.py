"""A worker process: the local engine starts it, and starts another when it dies.

Its task is one line of JSON on standard input, not an argument: the connection string may hold a password, and a
list of processes shows arguments. When the input ends, or says so, the worker finishes its current batches and
exits, so no worker outlives its engine. Its last line of output says how it ended.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from revector.core import logs
from revector.core.database import Database
from revector.core.errors import RevectorError

if TYPE_CHECKING:
    from revector.core.backfill.worker.worker import Worker


def main() -> None:
    """Run the worker described by the line on standard input."""
    logs.start_worker()
    # The terminal sends Ctrl-C to the engine and to us. The engine then stops us through standard input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    task = json.loads(sys.stdin.readline())
    try:
        end: dict[str, Any] = {"state": work(task)}
    except RevectorError as error:
        end = {"error": type(error).__name__, "problem": error.problem, "remedy": error.remedy}
    except Exception as error:  # noqa: BLE001  (a bug, or a library's: the engine starts another process)
        sys.stderr.write(f"{logs.crashed(error)}\n")
        sys.exit(1)
    sys.stdout.write(json.dumps(end) + "\n")
    sys.stdout.flush()


def work(task: dict[str, Any]) -> str:
    """Join the job named in the task; returns the job's state at the end."""
    from revector.core.backfill.worker.worker import Worker
    from revector.core.registry import get_version
    from revector.core.retrieval import open_version_encoder

    database = Database(**task["database"])
    with database.session("backfill", own_session=True) as connection:
        version = get_version(connection, task["version_key"])
    with contextlib.closing(open_version_encoder(version)) as encoder:
        worker = Worker(
            database, version, encoder, engine=task["engine"], check=True, prove_every_s=task["prove_every_s"]
        )
        threading.Thread(target=_obey, args=[worker], daemon=True).start()
        return worker.join().state


def _obey(worker: Worker) -> None:
    reason = "the process that started this worker is gone"
    for line in sys.stdin:
        reason = json.loads(line)["leave"]
        break
    worker.leave(reason)
