"""What the Cutover screen shows besides the guards: policy, request, evidence, watch, processes, history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from revector.core.cutover import CutoverEntry, Policy, Request, Watch, history, observe, open_request, read_policy
from revector.core.database import Connection
from revector.core.registry import Version
from revector.core.serving import Process, serving

if TYPE_CHECKING:
    from revector.core.evaluation.document import EvaluationSummary
    from revector.core.shadow import ShadowReport

_ENTRIES = 100
_EVALUATIONS = 50


@dataclass(frozen=True)
class Facts:
    """Facts of one candidate (or None) against the version `active`. `shadow` is only of this candidate."""

    active: str | None
    candidate: str | None
    policy: Policy
    request: Request | None = None
    evaluation: EvaluationSummary | None = None
    shadow: ShadowReport | None = None
    watch: Watch | None = None
    processes: tuple[Process, ...] = ()
    history: tuple[CutoverEntry, ...] = ()

    @property
    def late(self) -> tuple[Process, ...]:
        """Processes that have not followed the last flip in time."""
        return tuple(process for process in self.processes if process.late)


def read_facts(
    connection: Connection,
    active: Version | None,
    candidate: Version | None,
    *,
    shadow: ShadowReport | None = None,
    watch: Watch | None = None,
) -> Facts:
    """Read the facts. `shadow` is a recent report, if any; `watch` is the watch as last read."""
    from revector.core.evaluation.document import evaluations

    request = evaluation = None
    if candidate is not None:
        request = open_request(connection, candidate)
        mine = evaluations(connection, candidate=candidate.version_key, limit=_EVALUATIONS)
        evaluation = next((one for one in mine if active is not None and one.primary == active.version_key), None)
        shadow = shadow or _shadow(connection, candidate)
    return Facts(
        active.version_key if active else None,
        candidate.version_key if candidate else None,
        read_policy(connection),
        request,
        evaluation,
        shadow,
        observe(connection, watch),
        tuple(serving(connection)),
        tuple(history(connection, limit=_ENTRIES)),
    )


def _shadow(connection: Connection, candidate: Version) -> ShadowReport | None:
    """The report of the newest shadow, if it is this candidate's."""
    from revector.core import shadow

    run = shadow.latest(connection)
    if run is None or run.version_id != candidate.id:
        return None
    return shadow.report(connection, shadow_id=run.id, limit=1)
