"""Cutover and rollback: the guards before a flip, its approval, the flip, and the watch after it."""

from __future__ import annotations

from revector.core.cutover.flip import FLIP, DryRun, Flip, missing_chunks, plan, rollback, rollback_target, run
from revector.core.cutover.guard import Check, Guard, GuardRule, Subject
from revector.core.cutover.guards import GUARDS, check, checked_waivers
from revector.core.cutover.history import CutoverEntry, history
from revector.core.cutover.policy import Policy, change_policy, read_policy
from revector.core.cutover.request_store import Approval, Request, open_request, requests
from revector.core.cutover.requests import approve, request, withdraw
from revector.core.cutover.watch import Breach, Watch, observe, roll_back_broken

__all__ = [
    "FLIP",
    "GUARDS",
    "Approval",
    "Breach",
    "Check",
    "CutoverEntry",
    "DryRun",
    "Flip",
    "Guard",
    "GuardRule",
    "Policy",
    "Request",
    "Subject",
    "Watch",
    "approve",
    "change_policy",
    "check",
    "checked_waivers",
    "history",
    "missing_chunks",
    "observe",
    "open_request",
    "plan",
    "read_policy",
    "request",
    "requests",
    "roll_back_broken",
    "rollback",
    "rollback_target",
    "run",
    "withdraw",
]
