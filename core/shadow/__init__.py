"""Shadow traffic: a sample of users' queries goes to a candidate too, off the users' path.

`start` and `stop` write one row, which every process with a `Mirror` follows. `report` shows the results, and
`send_to_judging` queues the worst disagreements for people to judge.
"""

from revector.core.shadow.async_mirror import AsyncMirror as AsyncMirror
from revector.core.shadow.judging import send_to_judging as send_to_judging
from revector.core.shadow.mirror import Mirror as Mirror
from revector.core.shadow.report import Latency as Latency
from revector.core.shadow.report import ShadowCounts as ShadowCounts
from revector.core.shadow.report import ShadowReport as ShadowReport
from revector.core.shadow.report import report as report
from revector.core.shadow.runs import ShadowRun as ShadowRun
from revector.core.shadow.runs import latest as latest
from revector.core.shadow.runs import running as running
from revector.core.shadow.runs import start as start
from revector.core.shadow.runs import stop as stop
