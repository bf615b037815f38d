"""Shadow traffic: a sample of users' queries goes to a candidate too, off the users' path.

`start` and `stop` write one row, which every process with a `Mirror` follows. `report` shows the results, and
`send_to_judging` queues the worst disagreements for people to judge.
"""

from revector.core.shadow.judging import send_to_judging
from revector.core.shadow.mirror import Mirror
from revector.core.shadow.report import Latency, ShadowCounts, ShadowReport, report
from revector.core.shadow.runs import ShadowRun, latest, running, start, stop

__all__ = [
    "Latency",
    "Mirror",
    "ShadowCounts",
    "ShadowReport",
    "ShadowRun",
    "latest",
    "report",
    "running",
    "send_to_judging",
    "start",
    "stop",
]
