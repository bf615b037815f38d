"""A backfill worker process, with an encoder that costs nothing: a child of backfill_workers.py.

    python -m tests.benchmarks.free_worker DSN SCHEMA VERSION MATRIX.npy BATCH

Says "ready" when all is loaded, begins on a line of input, and ends with the moment of its last stored batch
(perf_counter, which all processes of a machine share on Linux) and how many chunks it stored.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np

from revector.core.backfill.job.settings import JobSettings
from revector.core.database import Database
from revector.core.registry import get_version
from tests.benchmarks.corpus import FreeEncoder
from tests.versions import worker_on


def main() -> None:
    dsn, schema, key, matrix, batch = sys.argv[1:]
    database = Database(dsn, schema, embedded=True)
    with database.session("bench") as connection:
        version = get_version(connection, key)
    stored = {"chunks": 0, "last": 0.0}

    def on_batch(number: int) -> None:
        stored["chunks"] += number
        if number:
            stored["last"] = time.perf_counter()

    encoder = FreeEncoder(np.load(matrix, mmap_mode="r"))
    worker = worker_on(database, version, encoder, JobSettings(int(batch)), on_batch=on_batch)
    _say("ready")
    sys.stdin.readline()
    worker.join()
    _say(json.dumps(stored))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
