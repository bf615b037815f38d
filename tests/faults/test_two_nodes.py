"""A backfill on two machines of which one is odd: it is left alone by name, and the other does the work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from revector.core.backfill.job.status import job_detail
from revector.core.database import Connection, Database
from tests.faults.two_nodes import TwoNodes
from tests.versions import add, add_chunks

# At 60 a second: the work must not be over before the second node's worker has begun.
TEXTS = [f"text number {n}" for n in range(2_000)]

PROGRAM = """
import json, sys
from revector.core.backfill.engines.ray.engine import RaySettings, run_on_ray
from revector.core.backfill.job.settings import JobSettings
from revector.core.database import Database
from revector.core.registry import get_version

dsn, schema, address = sys.argv[1:]
database = Database(dsn, schema)
with database.session("test") as connection:
    version = get_version(connection, "v1")
notes = []
status = run_on_ray(
    database, version, settings=RaySettings(address), job_settings=JobSettings(batch_size=16, workers=2, max_rate=60),
    wanted=lambda: 2, on_note=notes.append,
)
print(json.dumps({"state": status.state, "done": status.done, "notes": notes}))
"""

ODD = {
    "no package": ("revector/__init__.py", 'raise ImportError("no module of ours\\non this node")\n'),
    "another release": (
        "sitecustomize.py",
        "import importlib.metadata as m\nreal = m.version\n"
        "m.version = lambda name: '0.0.9' if name == 'revector' else real(name)\n",
    ),
    "another model": (
        "sitecustomize.py",
        "from revector.core.encoders import static\n"
        "real = static.StaticEncoder._encode\n"
        "def other(self, *given):\n    vectors = real(self, *given)\n    vectors[:, ::2] *= -1\n    return vectors\n"
        "static.StaticEncoder._encode = other\n",
    ),
}
SAID = {
    "no package": "revector cannot be imported there: on this node",
    "another release": "it has revector 0.0.9, and this run is of revector ",
    "another model": "its encoder makes another vector of the same text than that on ",
}


@pytest.fixture
def nodes() -> Iterator[TwoNodes]:
    with TwoNodes() as found:
        yield found


@pytest.mark.parametrize("kind", list(ODD))
def test_an_odd_node_is_left_alone_and_the_other_does_the_work(
    database: Database, connection: Connection, tmp_path: Path, nodes: TwoNodes, kind: str
) -> None:
    add_chunks(connection, TEXTS)
    version = add(connection, "v1")
    name, text = ODD[kind]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    root = str(Path(__file__).resolve().parents[2])
    nodes.join({"PYTHONPATH": f"{tmp_path}:{root}"})
    ended = nodes.command("-c", PROGRAM, database.dsn, database.schema, nodes.address, variables={})
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert (found["state"], found["done"]) == ("done", len(TEXTS))
    assert [note for note in found["notes"] if "is left alone: " in note and SAID[kind] in note], found["notes"]
    assert not any("\x1b" in note for note in found["notes"])
    detail = job_detail(connection, version)
    assert detail is not None
    assert sum(worker.done for worker in detail.workers) == len(TEXTS)


def test_two_nodes_share_the_work(database: Database, connection: Connection, nodes: TwoNodes) -> None:
    add_chunks(connection, TEXTS)
    version = add(connection, "v1")
    nodes.join({})
    ended = nodes.command("-c", PROGRAM, database.dsn, database.schema, nodes.address, variables={})
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert (found["state"], found["done"], found["notes"]) == ("done", len(TEXTS), [])
    detail = job_detail(connection, version)
    assert detail is not None
    assert [worker.done > 0 for worker in detail.workers] == [True, True]
