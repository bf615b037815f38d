"""Cutover and rollback: the guards before a flip, who has to approve it, the flip, and the watch after it."""

from __future__ import annotations

from core.cutover.flip import FLIP, Flip, missing_chunks, rollback, rollback_target, run
from core.cutover.guard import Check, Guard, GuardRule, Subject, Verdict
from core.cutover.guards import GUARDS, check, checked_waivers
from core.cutover.policy import Policy, change_policy, read_policy

__all__ = [
    "FLIP",
    "GUARDS",
    "Check",
    "Flip",
    "Guard",
    "GuardRule",
    "Policy",
    "Subject",
    "Verdict",
    "change_policy",
    "check",
    "checked_waivers",
    "missing_chunks",
    "read_policy",
    "rollback",
    "rollback_target",
    "run",
]
