"""Cutover and rollback: the guards before a flip, its approval, the flip, and the watch after it."""

from __future__ import annotations

from revector.core.cutover.flip import (
    FLIP,
    DryRun,
    Flip,
    done_before,
    missing_chunks,
    plan,
    rollback,
    rollback_target,
    run,
)
from revector.core.cutover.guard import Check, Guard
from revector.core.cutover.guards import GUARDS, check
from revector.core.cutover.history import CutoverEntry, history
from revector.core.cutover.policy import Policy, change_policy, read_policy
from revector.core.cutover.request_store import Request, open_request, requests
from revector.core.cutover.requests import approve, request, withdraw
from revector.core.cutover.watch import Watch, observe, roll_back_broken

__all__ = [
    "FLIP",
    "GUARDS",
    "Check",
    "CutoverEntry",
    "DryRun",
    "Flip",
    "Guard",
    "Policy",
    "Request",
    "Watch",
    "approve",
    "change_policy",
    "check",
    "done_before",
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
