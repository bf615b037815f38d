"""Whether a worker makes the vectors that the job's other workers make: asked before it may store any.

A machine with another release, or another model file under the same name, makes vectors of the right size that
belong to no other.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import numpy as np

from revector.core.backfill.job.job import Job
from revector.core.database import Connection, fetch_one
from revector.core.encoders.again import Limits, compare
from revector.core.errors import MisfitError
from revector.core.logs import versions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from revector.core.registry import Version

_LEAST = Limits().cosine


def release() -> str:
    """The release of revector in this process."""
    return versions().get("revector", "unknown")


def require_agreement(connection: Connection, version: Version, job: Job, probe: NDArray[np.float32]) -> None:
    """Compare this worker's release with the run's, and its vector (1, d) of the probe text with the job's.

    The first worker's are the run's and the job's. Raises MisfitError naming both machines and what differs.
    """
    own, here = release(), socket.gethostname()
    runs, of_job, there = fetch_one(
        connection,
        """
        UPDATE backfill_jobs
        SET run_release = coalesce(run_release, %(release)s),
            probe_by = CASE WHEN probe_vector IS NULL THEN %(here)s ELSE probe_by END,
            probe_vector = coalesce(probe_vector, %(probe)s)
        WHERE id = %(job)s
        RETURNING run_release, probe_vector, probe_by
        """,
        {"release": own, "here": here, "probe": probe[0].tolist(), "job": job.id},
    )
    refused = f"The worker on {here} stored nothing in {version.version_key}:"
    if runs != own:
        raise MisfitError(
            f"{refused} it has revector {own}, and the run was begun by revector {runs}.",
            "Install one release on all machines. After an upgrade, end the run's other workers and start it again.",
        )
    if (d := probe.shape[1]) != len(of_job):
        raise MisfitError(
            f"{refused} its encoder returns {d} dimensions, and that on {there} {len(of_job)}.",
            "Install the same model on both.",
        )
    found = compare(np.array([of_job], dtype=np.float64), probe, _LEAST)
    longer = bool(found.longer[0]) and version.distance_metric != "cosine"
    if found.differing[0] or longer:
        what = (
            f"lengths differ by {found.ratios[0]:.3g}"
            if longer
            else f"their cosine is {found.cosines[0]:.4f}, at least {_LEAST:g} is required"
        )
        raise MisfitError(
            f"{refused} its encoder makes another vector of the same text than that on {there}: {what}. Both have "
            f"revector {own}.",
            "Another model file, or another release of its package, has the same name there. Install the same on "
            "both; if the first one's is wrong, drop the version.",
        )
