"""Ray's driver, a process of its own (see core.backfill.engines.ray.engine): runs one order on a cluster."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection as Channel
from pathlib import Path
from typing import TYPE_CHECKING, Any

from revector.core import logs
from revector.core.backfill.engines.ray.crew import Crew, amounts, fits
from revector.core.backfill.engines.ray.engine import CONNECT_S, FromDriver, Order, RaySettings
from revector.core.backfill.engines.ray.worker import in_short, portable
from revector.core.connection_strings import parts_of
from revector.core.errors import RefusedError, RevectorError, UnreachableError
from revector.core.secrets import hide

if TYPE_CHECKING:
    from revector.core.backfill.job.status import JobStatus

_KNOCK_S = 5.0
_OBJECT_STORE_BYTES = 80 * 1024 * 1024
"""Near Ray's minimum: vectors go to Postgres, and we put nothing into the object store."""


@contextlib.contextmanager
def _connected(settings: RaySettings, wanted: int, name: str) -> Iterator[Any]:
    """Ray, started here or reached at the address; `name` is what it calls this job.

    A Ray that was started here is stopped; a cluster is left alone.
    """
    # The ports of a Ray started here are open to the network, so a token protects them. It is made for this run,
    # since Ray would store one in the home folder. Ray reads both variables when it is imported.
    if settings.address is None and os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        hide(os.environ["RAY_AUTH_TOKEN"])
    import ray
    from ray.job_config import JobConfig

    job_config = JobConfig(metadata={"job_name": name})
    # Ray puts the driver's working directory first on the workers' path, where a folder `core` would shadow ours.
    job_config._py_driver_sys_path = _NoPaths()
    options: dict[str, Any] = {
        "namespace": settings.namespace,
        "log_to_driver": False,
        "logging_level": "CRITICAL",
        "job_config": job_config,
    }
    with contextlib.ExitStack() as cleanup:
        if settings.address is None:
            # Ray makes its folder readable by everybody, so it goes inside a private one. The name is short
            # because Unix socket paths are limited, and Ray puts sockets deep inside.
            folder = tempfile.mkdtemp(prefix="revector-ray-", dir="/tmp" if Path("/tmp").is_dir() else None)  # noqa: S108
            cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
            options |= {
                "address": "local",
                # CPUs are only numbers to Ray, and this Ray is ours alone: declare as many as the workers want at
                # the start.
                "num_cpus": max(os.cpu_count() or 1, math.ceil(wanted * settings.cpus_per_worker)),
                "include_dashboard": False,
                "object_store_memory": _OBJECT_STORE_BYTES,
                "_temp_dir": str(Path(folder, "r")),
            }
        else:
            options["address"] = settings.address
            _require_reachable(settings.address)
        try:
            cleanup.callback(ray.shutdown)
            # While Ray waits forever for its head node, no Python runs, so nothing gentler can end it.
            signal.alarm(CONNECT_S)
            ray.init(**options)
            signal.alarm(0)
        except Exception as error:  # noqa: BLE001  (Ray raises many kinds)
            at = "Ray cannot be started" if settings.address is None else f"No Ray cluster at {settings.address}"
            raise UnreachableError(
                f"{at}: {in_short(error)}",
                "Check the address, and that Ray and Python have the same versions there.",
            ) from None
        yield ray


def _require_reachable(address: str) -> None:
    """Raise UnreachableError when nothing listens at the address; Ray itself would wait forever."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise UnreachableError(
            f"No Ray cluster at {address}: {error}", "Check --ray-address, and that the cluster is running."
        ) from None


class _NoPaths(list[str]):
    def extend(self, _paths: object) -> None:
        """Take no arguments."""


def check_nodes(nodes: Sequence[Mapping[str, Any]], order: Order, here: str) -> list[str]:
    """Notes on running the order's workers on these nodes (as listed by `ray.nodes()`).

    `here` is this machine's host name. Raises RefusedError when no node can hold a worker, or when other machines
    could not reach the database.
    """
    alive = [node for node in nodes if node["Alive"]]
    needs = {"CPU": order.ray.cpus_per_worker, "GPU": order.ray.gpus_per_worker}
    if needs["GPU"] and not any(node["Resources"].get("GPU") for node in alive):
        raise RefusedError(
            f"No node of the Ray cluster has a GPU, but each worker needs {needs['GPU']:g}.",
            "Run without --gpus-per-worker, or add a node with GPUs.",
        )
    if not any(fits(node["Resources"], needs) for node in alive):
        largest = max((node["Resources"] for node in alive), key=lambda r: (r.get("GPU", 0), r.get("CPU", 0)))
        raise RefusedError(
            f"No node of the Ray cluster can run a worker: each needs {amounts(needs)}; the largest node "
            f"has {amounts(largest, needs)}.",
            "Lower it with --cpus-per-worker and --gpus-per-worker.",
        )
    others = sorted({node["NodeManagerHostname"] for node in alive} - {here})
    if not others:
        return []
    host = str(parts_of(order.database.dsn).get("host") or "")
    if order.database.embedded or host.startswith(("/", "@")):
        raise RefusedError(
            f"The database {order.database.name} is on a Unix socket of this machine, and the Ray cluster has other "
            f"machines: {', '.join(others[:5])}.",
            "Use a database that they can reach over the network (--dsn), or leave out --ray-address.",
        )
    if host in ("localhost", "127.0.0.1", "::1"):
        return [f"The database is at {host}: each of the {len(others) + 1} machines would look for it on itself."]
    return []


def main(arguments: Sequence[str]) -> None:
    """Run the one order received on the channel with that file number, and report there how it ended."""
    logs.start_worker()
    channel = Channel(int(arguments[0]))
    os.set_inheritable(channel.fileno(), False)  # Ray's processes briefly outlive us when we are killed
    order: Order = channel.recv()
    result: JobStatus | RevectorError
    try:
        with _connected(order.ray, order.wanted, f"revector backfill {order.version.version_key}") as ray:
            for note in check_nodes(ray.nodes(), order, socket.gethostname()):
                channel.send(FromDriver(note=note))
            result = Crew(ray, order, channel).run()
    except RevectorError as error:
        result = portable(error)
    except Exception as error:  # noqa: BLE001  (a bug, or Ray's: who started this starts another)
        sys.exit(str(logs.crashed(error)))
    with contextlib.suppress(OSError):
        channel.send(FromDriver(result=result))


if __name__ == "__main__":
    # Imported under its own name, so that pickled objects do not refer to `__main__`.
    from revector.core.backfill.engines.ray import driver

    driver.main(sys.argv[1:])
