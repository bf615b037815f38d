"""A real Ray of one node in a separate process: an existing cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]

# Holds the node, and answers for each line it reads with one line of JSON. The GPU is a number to Ray.
_NODE = """
import json, logging, sys
import ray
from ray._private import state

context = ray.init(
    address="local", num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False,
    object_store_memory=80 * 2**20, logging_level=logging.CRITICAL, _temp_dir=sys.argv[1],
)
print(json.dumps(ray.get_runtime_context().gcs_address), flush=True)
jobs = ray._private.worker.global_worker.gcs_client.get_all_job_info
def metadata():
    return [dict(job.config.metadata) for job in jobs().values()]
for line in sys.stdin:
    asked = {"nodes": ray.nodes, "actors": state.actors, "jobs": state.jobs, "metadata": metadata}[line.strip()]()
    print(json.dumps(list(asked.values()) if isinstance(asked, dict) else asked, default=str), flush=True)
"""


class RayCluster:
    """`with RayCluster() as cluster:` has a node with 4 CPUs and 1 GPU at `cluster.address` until the block ends."""

    def __enter__(self) -> Self:
        # Not in pytest's own folder: its name is too long for the Unix sockets that Ray puts there.
        self._folder = tempfile.TemporaryDirectory(prefix="revector-test-ray-", ignore_cleanup_errors=True)
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _NODE, self._folder.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment() | {"RAY_AUTH_MODE": "disabled"},
        )
        self.address: str = self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # ends the node
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()
        self._folder.cleanup()

    def ask(self, what: str) -> list[dict[str, Any]]:
        """What Ray knows of its `nodes`, `actors`, `jobs` and their `metadata`, those that have ended too."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        found: list[dict[str, Any]] = self._answer()
        return found

    def workers(self) -> list[int]:
        """The processes of the actors that are alive."""
        return [actor["Pid"] for actor in self.ask("actors") if actor["State"] == "ALIVE"]

    def files(self) -> list[Path]:
        """Everything that Ray has written: its logs above all."""
        return [path for path in Path(self._folder.name).rglob("*") if path.is_file()]

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise AssertionError(self._errors.read().decode())
        return json.loads(line)


def environment() -> dict[str, str]:
    """This process's variables, and our modules where every Python finds them."""
    return dict(os.environ) | {"PYTHONPATH": str(ROOT)}
