"""An application that writes: python -m tests.faults.one_writer DSN SCHEMA NUMBER OF LAST SEED.

It is number NUMBER of OF writers, and ends when its stdin does. It inserts and deletes chunks, one to a few a
transaction, by SQL of its own: those it inserted, and its share of those up to id LAST. So no two writers ever want to
delete the same chunk, and whatever error one meets is not of its own making.
"""

from __future__ import annotations

import json
import random
import select
import sys

from revector.core.database import Connection, Database
from tests.faults.corpus import INSERT, texts


class Writer:
    def __init__(
        self, connection: Connection, number: int, writers: int, last: int, chance: random.Random
    ) -> None:
        self._connection, self._chance = connection, chance
        self._number, self._writers, self._last = number, writers, last
        self._own: list[int] = []
        self._serial = 0
        self.inserted = self.deleted = 0

    def write(self) -> None:
        dice = self._chance.random()
        with self._connection.transaction():
            if dice < 0.6:
                self._insert()
            if dice > 0.5:
                self._delete()

    def _insert(self) -> None:
        new = []
        for text in texts(self._chance, self._chance.randrange(1, 8), repeated=0.3):
            self._serial += 1
            new.append(text if text.startswith("boilerplate") else f"{text} {self._number} {self._serial}")
        rows = self._connection.execute(INSERT, [[None] * len(new), new]).fetchall()
        self._own += [row[0] for row in rows]
        self.inserted += len(rows)

    def _delete(self) -> None:
        if self._own and self._chance.random() < 0.5:
            wanted = [self._own.pop(self._chance.randrange(len(self._own)))]
        else:  # a few neighbours of the corpus that are this writer's to delete
            start = self._chance.randrange(self._last + 1)
            wanted = [
                row[0]
                for row in self._connection.execute(
                    "SELECT id FROM document_chunks WHERE id BETWEEN %s AND %s AND id / 20 %% %s = %s LIMIT 3",
                    [start, min(start + 1_000, self._last), self._writers, self._number],
                ).fetchall()
            ]
        gone = self._connection.execute("DELETE FROM document_chunks WHERE id = ANY(%s)", [wanted])
        self.deleted += gone.rowcount


def main() -> None:
    dsn, schema, number, writers, last, seed = sys.argv[1:]
    with Database(dsn, schema).session("writer") as connection:
        chance = random.Random(f"{seed} {number}")  # noqa: S311
        writer = Writer(connection, int(number), int(writers), int(last), chance)
        while not select.select([sys.stdin], [], [], 0.005)[0]:  # the pace of the application
            writer.write()
    sys.stdout.write(json.dumps({"inserted": writer.inserted, "deleted": writer.deleted}))


if __name__ == "__main__":
    main()
