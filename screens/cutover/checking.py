"""The facts and the guards of the Cutover screen, read off the screen's thread."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from textual.worker import get_current_worker

from revector.core import cutover
from revector.core.errors import RefusedError, RevectorError
from revector.screens.cutover.board import Board, minute_of, stamps_of
from revector.screens.cutover.facts import Facts, read_facts
from revector.screens.pane import Pane
from revector.screens.situation import Situation, key_of
from revector.screens.widgets.background import Tell, in_background
from revector.screens.wording.text import time_now

if TYPE_CHECKING:
    from revector.core.cutover import Check, Guard, Request
    from revector.core.retrieval import EncoderCache

_REPORT_EVERY_S = 5.0
"""A shadow's report reads thousands of rows, so not at every snapshot."""


class CandidateChecks:
    """Reads facts and runs guards for the pane's candidate, one of each at a time, and has the pane draw them."""

    def __init__(self, pane: Pane) -> None:
        self.facts: Facts | None = None
        self.facts_error: RevectorError | None = None
        self.board = Board()
        self.check: Check | None = None
        self.check_error: RevectorError | None = None
        self.flipping = False
        """A flip is running; it checks the guards itself."""
        self._pane, self._services = pane, pane.services
        self._given: dict[str, dict[str, str]] = {}
        """The waivers given here, by version."""
        self._read_of: object = None
        self._reading_since: float | None = None
        self._reported_at = 0.0
        self._checking = False
        self._asked_for = False
        self._encoders: EncoderCache | None = None

    # -- what is known ------------------------------------------------------------------------------------

    @property
    def situation(self) -> Situation:
        return self._pane.situation

    @property
    def request(self) -> Request | None:
        """The request for the candidate that has not ended."""
        return self.facts_now.request if self.facts_now else None

    @property
    def facts_now(self) -> Facts | None:
        """The facts, if they are of this candidate."""
        facts = self.facts
        return facts if facts and facts.candidate == key_of(self.situation.candidate) else None

    @property
    def approvals_needed(self) -> int:
        """How many approvals the policy requires."""
        return self.facts.policy.approvals if self.facts else 0

    @property
    def _settled(self) -> Request | None:
        """The request whose waivers are being approved, or are approved."""
        request = self.request if self.approvals_needed else None
        return request if request is not None and request.state in ("open", "approved") else None

    @property
    def waivers(self) -> Mapping[str, str]:
        """The waivers that count: where approvals are required, those of the open request.

        Without a request, those that it would be made with.
        """
        request = self._settled
        return request.waivers if request else self._given.get(key_of(self.situation.candidate) or "", {})

    @property
    def waivable(self) -> tuple[str, ...]:
        """Guards that can be waived now, or are; none once a request is being approved."""
        return () if self._settled else self.board.waivable

    def cleared(self, situation: Situation) -> str | None:
        """The candidate, if all its guards are clear for this snapshot."""
        check = self.check
        if check is None or not check.ready or check.version_key != key_of(situation.candidate):
            return None
        return check.version_key if not self.board.changed(stamps_of(situation, self.facts_now)) else None

    @property
    def blocked(self) -> str:
        """Why not all guards are clear, in a few words: `1 guard fails: recall`."""
        if self.check_error is not None:
            return "the guards could not be checked"
        if self.left_alone:
            return "guards not checked yet: press g"
        known = self.board if self.board.candidate == key_of(self.situation.candidate) else Board()
        return known.verdict or "the guards are being checked"

    @property
    def encoders(self) -> EncoderCache:
        """The encoders, opened once: a model may take seconds."""
        if self._encoders is None:
            from revector.core.retrieval import EncoderCache

            self._encoders = EncoderCache()
        return self._encoders

    # -- reading ------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Read the facts for a new snapshot, and run the guards that are due."""
        if not self.situation.state.live:
            # Results stay visible, but do not count once the database is back.
            self._read_of, self.board, self._checking = None, replace(self.board, stamps={}, pending=()), False
        else:
            self._read()
            self._consider()

    def _read(self) -> None:
        situation, now = self.situation, time.monotonic()
        active, candidate = situation.active, situation.candidate
        wanted = (situation.overview and situation.overview.taken_at, key_of(active), key_of(candidate))
        busy = self._reading_since is not None and now - self._reading_since < self._services.patience_s
        if wanted == self._read_of or (busy and self.facts_now is not None):
            return
        self._read_of, self._reading_since = wanted, now
        known = self.facts_now
        report = known.shadow if known and now - self._reported_at < _REPORT_EVERY_S else None
        if report is None:
            self._reported_at = now

        versions = (active.version if active else None, candidate.version if candidate else None)
        watch = self.facts.watch if self.facts else None

        self._pane.read(
            "facts",
            lambda connection: read_facts(connection, *versions, shadow=report, watch=watch),
            self.show_facts,
            self._no_facts,
        )

    def show_facts(self, facts: Facts) -> None:
        self._reading_since, self.facts_error = None, None
        different, self.facts = facts != self.facts, facts
        self._consider()
        if different:
            self._pane.changed()

    def _no_facts(self, error: RevectorError) -> None:
        self._reading_since, self.facts_error = None, error
        self._consider()
        self._pane.changed()

    # -- the guards ---------------------------------------------------------------------------------------

    @property
    def left_alone(self) -> bool:
        """Whether the candidate is the rollback target of a watch, which needs no guard."""
        watch = self.facts.watch if self.facts else None
        candidate = key_of(self.situation.candidate)
        return watch is not None and candidate == watch.previous and self.board.candidate != candidate

    def _consider(self) -> None:
        """Run the guards that are due, unless a check is running."""
        candidate = key_of(self.situation.candidate)
        if candidate is None or self.flipping or not self.situation.state.live:
            return
        if self.facts_now is None and self.facts_error is None:
            return  # the policy has not been read yet
        if self.left_alone and not self._asked_for:
            return
        if self.board.candidate != candidate:
            self.board, self.check, self.check_error, self._checking = Board(candidate), None, None, False
        if self._checking:
            return
        stamps, minute = stamps_of(self.situation, self.facts_now), minute_of(self.situation)
        due = self.board.due(stamps, minute)
        if due or self._asked_for:
            self._look(stamps, due, minute)

    def check_again(self) -> None:
        self.board, self.check = Board(key_of(self.situation.candidate)), None
        self._look_again()

    def waive(self, key: str, guard: str, reason: str) -> None:
        """Waive a guard for a version, with this reason; without a reason the waiver is removed."""
        others = {name: why for name, why in self._given.get(key, {}).items() if name != guard}
        self._given[key] = {**others, guard: reason} if reason else others
        self._look_again()

    def forget_waivers(self, key: str) -> None:
        """Clear the waivers: they were for the cutover that was made."""
        self._given.pop(key, None)

    def _look_again(self) -> None:
        self._asked_for, self._checking = True, False
        self._consider()
        self._pane.changed()

    def _look(self, stamps: Mapping[str, object], due: set[str], minute: int) -> None:
        candidate = self.situation.candidate
        if candidate is None:
            return
        key, waivers = candidate.version.version_key, dict(self.waivers)
        known = self.board.known(due)
        # A guard not run because an earlier one does not pass waits for that one.
        pending = tuple(name for name in stamps if name in self.board.changed(stamps) - self.board.unseen)
        self.board = replace(self.board, stamps=stamps, minute=minute, pending=pending)
        self._checking, self._asked_for, self.check_error = True, False, None

        def run(tell: Tell) -> Check:
            worker = get_current_worker()

            def on_guard(guard: Guard) -> None:
                if worker.is_cancelled:
                    raise RefusedError("The check was cancelled.")
                tell(lambda: self._tell(guard))

            with self._services.connections.reading() as connection:
                return cutover.check(
                    connection, key, waivers=waivers, encoders=self.encoders, on_guard=on_guard, known=known
                )

        in_background(self._pane, "guards", run, lambda check: self._checked(check, known), self._not_checked)

    def _tell(self, guard: Guard) -> None:
        self.board = self.board.told(guard)
        self._pane.draw()

    def _checked(self, check: Check, known: Mapping[str, Guard]) -> None:
        self._checking, self.check, self.check_error = False, check, None
        self.board = self.board.ended(check, known, time_now())
        self._consider()
        self._pane.changed()

    def show_check(self, check: Check) -> None:
        """Apply a finished check of the current candidate, replacing one that may be running."""
        if check.version_key != key_of(self.situation.candidate):
            return
        self._pane.workers.cancel_group(self._pane, "guards")
        stamps = stamps_of(self.situation, self.facts_now)
        self.board = Board(check.version_key, stamps=stamps, minute=minute_of(self.situation))
        self._checked(check, {})

    def _not_checked(self, error: RevectorError) -> None:
        self._checking, self.check, self.check_error = False, None, error
        self.board = replace(self.board, pending=())
        self._pane.changed()
