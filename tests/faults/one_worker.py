"""One worker in a process of its own: python -m tests.faults.one_worker DSN SCHEMA KEY SETTINGS."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from core.backfill import worker
from core.database import Database
from core.encoders import open_encoder
from core.errors import RevectorError
from core.registry import get_version


def settings(given: dict[str, Any]) -> Any:
    """The settings of a worker, by whichever name this revision has for them."""
    try:
        from core.backfill.settings import JobSettings  # type: ignore[import-not-found]
    except ModuleNotFoundError:
        JobSettings = worker.WorkerSettings  # noqa: N806
    known = {field.name for field in dataclasses.fields(JobSettings)}
    return JobSettings(**{name: value for name, value in given.items() if name in known})


def main() -> None:
    dsn, schema, key, given = sys.argv[1:]
    database = Database(dsn, schema)
    with database.session("test") as connection:
        version = get_version(connection, key)
    encoder = open_encoder(version.encoder_spec)
    try:
        status = worker.Worker(database, version, encoder, settings(json.loads(given))).run()
    except RevectorError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(error.exit_status)
    sys.stdout.write(f"{status}\n")


if __name__ == "__main__":
    main()
