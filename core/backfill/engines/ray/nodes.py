"""Which nodes of a cluster get workers: those that have this release of revector, and are not left alone.

Each node is asked once, when it joins, by a task that needs nothing of ours there: an actor on a node without the
package dies before it can say where it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from revector.core.backfill.worker.agreement import release

if TYPE_CHECKING:
    from collections.abc import Mapping

_NODE_LABEL = "ray.io/node-id"
"""Ray sets it on every node."""


class Nodes:
    """The nodes of one cluster, by Ray's id. `say` gets messages for people."""

    def __init__(self, ray: Any, say: Callable[[str], None]) -> None:
        self._ray, self._say = ray, say
        self._names: dict[str, str] = {}
        self._asked: dict[str, Any] = {}
        self._alone: dict[str, str] = {}
        self._alive: frozenset[str] = frozenset()

    @property
    def fit(self) -> frozenset[str]:
        """Those that workers may be placed on."""
        return self._alive - self._asked.keys() - self._alone.keys()

    @property
    def waiting(self) -> bool:
        """Whether some have not answered yet."""
        return bool(self._asked)

    @property
    def causes(self) -> str:
        """Those that are left alone, and why."""
        return "; ".join(f"{self._names[node]}: {why}" for node, why in sorted(self._alone.items()))

    def name(self, node: str) -> str:
        """A node's name for a person."""
        return self._names.get(node, node)

    def selector(self) -> Mapping[str, str]:
        """Ray's condition for the placement of a worker."""
        return {_NODE_LABEL: f"in({','.join(sorted(self.fit))})"}

    def look(self) -> None:
        """Ask the nodes that joined since the last look, and hear those that were asked."""
        alive = {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"]}
        self._alive = frozenset(alive)
        for node, about in alive.items():
            if node not in self._names:
                self._names[node] = f"{about['NodeManagerHostname']} ({about['NodeManagerAddress']})"
                self._asked[node] = self._ask(node)
        for node, promise in list(self._asked.items()):
            if node not in alive:
                del self._asked[node]
            elif self._ray.wait([promise], timeout=0)[0]:
                del self._asked[node]
                self._hear(node, promise)

    def leave_alone(self, node: str, why: str) -> None:
        """Place no more workers on a node."""
        self._alone[node] = why
        self._say(f"Node {self.name(node)} is left alone: {why}")

    def _ask(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        def which_release() -> tuple[str | None, str]:
            # Sent as it is, and not by its name: nothing of ours need be there.
            try:
                from revector.core.backfill.engines.ray import worker  # noqa: F401
                from revector.core.backfill.worker.agreement import release

                return release(), ""
            except Exception as error:  # noqa: BLE001  (said where it is heard)
                return None, f"{type(error).__name__}: {error}"

        strategy = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        return self._ray.remote(which_release).options(
            num_cpus=0, max_retries=0, scheduling_strategy=strategy, name="revector: which release"
        ).remote()  # fmt: skip

    def _hear(self, node: str, promise: Any) -> None:
        try:
            found, cause = self._ray.get(promise)
        except self._ray.exceptions.RayError as error:
            self.leave_alone(node, f"a task on it failed: {last_line(str(error))}")
            return
        if found is None:
            self.leave_alone(node, f"revector cannot be imported there: {last_line(cause)}")
        elif found != release():
            self.leave_alone(node, f"it has revector {found}, and this run is of revector {release()}")


def last_line(text: str) -> str:
    """The last line of a cause, without the colours that Ray puts in."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    lines = [" ".join(line.split()) for line in plain.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason is given"
