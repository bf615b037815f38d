"""Cutover and rollback: the guards before a flip, who has to approve it, the flip, and the watch after it."""

from __future__ import annotations

from core.cutover.flip import FLIP, Flip, missing_chunks, rollback, rollback_target, run
from core.cutover.guard import Check, Guard, Verdict
from core.cutover.guards import GUARDS, check

__all__ = [
    "FLIP",
    "GUARDS",
    "Check",
    "Flip",
    "Guard",
    "Verdict",
    "check",
    "missing_chunks",
    "rollback",
    "rollback_target",
    "run",
]
