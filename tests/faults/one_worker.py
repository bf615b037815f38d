"""One worker process: python -m tests.faults.one_worker DSN SCHEMA KEY SETTINGS."""

from __future__ import annotations

import json
import sys

from revector.core.backfill.job.settings import JobSettings
from revector.core.database import Database
from revector.core.encoders import open_encoder
from revector.core.errors import RevectorError
from revector.core.registry import get_version
from tests.versions import worker_on


def main() -> None:
    dsn, schema, key, given = sys.argv[1:]
    database = Database(dsn, schema)
    with database.session("test") as connection:
        version = get_version(connection, key)
    encoder = open_encoder(version.encoder_spec)
    try:
        status = worker_on(database, version, encoder, JobSettings(**json.loads(given))).join()
    except RevectorError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(error.exit_status)
    sys.stdout.write(f"{status}\n")


if __name__ == "__main__":
    main()
