"""Shadow traffic: a sample of users' queries goes to a candidate too, off the users' path.

`start` and `stop` write one row, which every process with a `Mirror` follows. `report` shows the results, and
`send_to_judging` queues the worst disagreements for people to judge.
"""

from revector.core.shadow.judging import DEFAULT_SET, SentToJudging, send_to_judging
from revector.core.shadow.mirror import Mirror
from revector.core.shadow.report import (
    Disagreement,
    Latency,
    OpenBreaker,
    SegmentFigures,
    ShadowCounts,
    ShadowReport,
    report,
)
from revector.core.shadow.runs import QUERY_TEXTS, QueryText, ShadowRun, get_run, latest, running, start, stop

__all__ = [
    "DEFAULT_SET",
    "QUERY_TEXTS",
    "Disagreement",
    "Latency",
    "Mirror",
    "OpenBreaker",
    "QueryText",
    "SegmentFigures",
    "SentToJudging",
    "ShadowCounts",
    "ShadowReport",
    "ShadowRun",
    "get_run",
    "latest",
    "report",
    "running",
    "send_to_judging",
    "start",
    "stop",
]
