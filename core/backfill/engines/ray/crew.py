"""The crew: starts as many actors as are wanted and replaces dead ones until the job is over.

It does not decide which chunks an actor works on: actors lease ranges in Postgres like any other worker.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import re
import secrets
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection as Channel
from typing import TYPE_CHECKING, Any

from psycopg import sql

from revector.core.backfill.engines.ray.engine import Deaths, FromDriver, Order, ToDriver
from revector.core.backfill.engines.ray.nodes import Nodes, last_line
from revector.core.backfill.engines.ray.worker import ENDING, BackfillWorker, Outcome, Place, in_short
from revector.core.backfill.job.job import ENGINE_LOCK, Job, find_job, notice_interruption, open_job, rejoin
from revector.core.backfill.job.status import require_status, status
from revector.core.database import Connection, fetch_one, readable_errors
from revector.core.errors import RefusedError, RevectorError, UnreachableError

if TYPE_CHECKING:
    from revector.core.backfill.job.status import JobStatus

log = logging.getLogger(__name__)

_TICK_S = 0.2
_LOOK_S = 1.0
_ROOM_S = 5.0
"""How long nothing may change before a message says that workers wait for room …"""
_PLACE_S = 60.0
"""… and how long when none is placed yet, or Ray reports room: a busy node starts actors slowly."""
_AWAY_S = 60.0
"""How long the server may be unreachable while no worker is waiting for it."""
_GRACE_S = 30.0
"""For the current batch, once the run is to end."""
_LONGEST_PAUSE_S = 30.0

_NEEDS = "Each of Ray's nodes needs revector and the encoder's packages, and memory for them"


class _Slot:
    """A place for one worker, and its current actor."""

    def __init__(self, number: int, limit: int) -> None:
        self.number = number
        self.deaths = Deaths(limit)
        """Since its last chunk; what other workers store counts for them."""
        self.actor: Any = None
        self.placing: Any = None
        """Ray's reference to the Place; None once it is known."""
        self.running: Any = None
        """Ray's reference to the Outcome."""
        self.place: Place | None = None
        self.since = 0.0
        self.not_before = 0.0
        self.leaving = False


class Crew:
    """The actors of one run."""

    def __init__(self, ray: Any, order: Order, channel: Channel) -> None:
        self._ray = ray
        self._order = order
        self._channel = channel
        self._wanted = order.wanted
        self._slots: list[_Slot] = []
        self._connection: Connection | None = None
        self._job: Job | None = None
        self._progress = 0
        self._looked = 0.0
        self._away_since: float | None = None
        self._over = False
        self._failure: RevectorError | None = None
        self._deadline = math.inf
        self._placed = 0.0
        self._room_told: int | None = None
        self._nodes = Nodes(ray, self._say)
        self._looked_at_nodes = -math.inf
        self._fit: frozenset[str] = frozenset()
        self._numbers = itertools.count(1)

    def run(self) -> JobStatus:
        """Open the job and run the crew until it is over. Raises the error that a worker ended with."""
        self._open()
        try:
            while not (self._over and not self._slots):
                self._read_orders()
                self._look()
                self._adjust()
                self._wait()
        finally:
            for slot in self._slots:
                self._free(slot)
            if self._connection is not None:
                self._connection.close()
        if self._failure is not None:
            raise self._failure
        with self._order.database.session("ray", own_session=True) as connection:
            job = find_job(connection, self._order.version)
            if job is not None:
                notice_interruption(connection, job)  # no worker may be left to report it
            return require_status(connection, self._order.version)

    def _say(self, note: str) -> None:
        with contextlib.suppress(OSError):  # the other end is closed; _read_orders notices
            self._channel.send(FromDriver(note=note))

    def _read_orders(self) -> None:
        if self._deadline < math.inf:
            return
        try:
            while self._channel.poll():
                order: ToDriver = self._channel.recv()
                self._wanted = order.wanted
                if order.stop:
                    self._end()
        except (EOFError, OSError):  # the process that started us is gone
            self._end()

    def _end(self) -> None:
        self._over = True
        self._deadline = min(self._deadline, time.monotonic() + _GRACE_S)

    def _open(self) -> None:
        with self._order.database.session("ray", own_session=True) as connection:
            found = find_job(connection, self._order.version)
            if self._order.again and found is not None:
                if not rejoin(connection, found):
                    self._over = True  # it was paused while there was no driver
                    return
                self._job = found
            else:
                self._job = open_job(connection, self._order.version, self._order.job_settings)
            # Before that session ends: without an engine or worker the job would count as interrupted.
            self._connection = self._connect()

    def _connect(self) -> Connection:
        """A connection whose lock shows that an engine starts workers for the job."""
        connection = self._order.database.connect("ray", own_session=True)
        if self._job is not None:
            connection.execute(sql.SQL("SELECT pg_advisory_lock_shared({})").format(ENGINE_LOCK), [self._job.id])
        return connection

    def _look(self, *, now: bool = False) -> bool:
        """Read the job, at most once a second unless `now`; False while the server is unreachable."""
        if time.monotonic() - self._looked < _LOOK_S and (self._away_since is not None or not now):
            return self._away_since is None
        self._looked = time.monotonic()
        try:
            with readable_errors(self._order.database):
                if self._connection is None:
                    self._connection = self._connect()
                job = find_job(self._connection, self._order.version)
                found = status(self._connection, self._order.version)
        except UnreachableError as error:
            self._report_loss(error)
            return False
        self._away_since = None
        if job is None or job.state in ENDING:
            self._over = True
        if found is not None:
            self._progress = found.done + found.failed
            with contextlib.suppress(OSError):
                self._channel.send(FromDriver(progress=self._progress))
        return True

    def _report_loss(self, error: UnreachableError) -> None:
        """The server is unreachable. Workers wait for it, or report that they gave up; without workers, we report
        it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._away_since = self._away_since or time.monotonic()
        if time.monotonic() - self._away_since > _AWAY_S and not any(slot.actor for slot in self._slots):
            self._failure = self._failure or error
            self._end()

    # -- actors -------------------------------------------------------------------------------------------

    def _adjust(self) -> None:
        """Add actors, or ask some to leave: first those not placed yet, then the newest."""
        now = time.monotonic()
        wanted = 0 if self._over else self._wanted
        staying = [slot for slot in self._slots if not slot.leaving]
        for slot in sorted(staying, key=lambda slot: (slot.place is None, slot.since), reverse=True)[
            : max(0, len(staying) - wanted)
        ]:
            slot.leaving = True
            if slot.place is None:
                self._free(slot)
            else:
                slot.actor.leave.remote()
        for _ in range(wanted - len(staying)):
            self._slots.append(_Slot(next(self._numbers), self._order.ray.max_restarts))
        self._look_at_nodes(now)
        ready = [
            slot for slot in self._slots if slot.actor is None and not slot.leaving and now >= slot.not_before
        ]
        # Not while the server is unreachable.
        if ready and self._nodes.fit and self._look(now=True) and not self._over:
            for slot in ready:
                self._start(slot)
        if now > self._deadline:
            for slot in self._slots:
                self._free(slot)
        self._slots = [slot for slot in self._slots if slot.actor is not None or not slot.leaving]
        if not self._over:
            self._report_room(now)

    def _look_at_nodes(self, now: float) -> None:
        """Place workers that wait for room again when a node joins; end the run when there is none for them."""
        if self._over or now - self._looked_at_nodes < _LOOK_S / 2:
            return
        self._looked_at_nodes = now
        self._nodes.look()
        if self._nodes.fit - self._fit:
            for slot in self._slots:
                if slot.placing is not None:
                    self._free(slot)
        self._fit = self._nodes.fit
        if not self._fit and not self._nodes.waiting and not any(slot.actor for slot in self._slots):
            self._failure = self._failure or UnreachableError(
                f"No node of the Ray cluster can run a worker. {self._nodes.causes}",
                f"{_NEEDS}; then resume: revector backfill run {self._order.version.version_key}",
            )
            self._end()

    def _start(self, slot: _Slot) -> None:
        settings = self._order.ray
        slot.actor = (
            self._ray.remote(BackfillWorker)
            .options(
                name=f"revector {self._order.version.version_key} {slot.number} {secrets.token_hex(4)}",
                num_cpus=settings.cpus_per_worker,
                num_gpus=settings.gpus_per_worker,
                label_selector=dict(self._nodes.selector()),
                # We replace dead actors ourselves: Ray cannot tell a single failure from a worker that can never
                # run.
                max_restarts=0,
                max_concurrency=3,
            )
            .remote()
        )
        slot.since, slot.place = time.monotonic(), None
        slot.placing = slot.actor.where.remote()
        slot.running = slot.actor.run.remote(self._order.database, self._order.version)

    def _free(self, slot: _Slot) -> None:
        if slot.actor is not None:
            with contextlib.suppress(Exception):  # the actor may be gone, and Ray with it
                self._ray.kill(slot.actor, no_restart=True)
        slot.actor = slot.placing = slot.running = slot.place = None

    def _wait(self) -> None:
        """Wait until something happens to an actor, or briefly."""
        promises = {
            promise: slot
            for slot in self._slots
            for promise in (slot.placing, slot.running)
            if promise is not None
        }
        if not promises:
            with contextlib.suppress(OSError):
                self._channel.poll(_TICK_S)
            return
        for promise in self._ray.wait(list(promises), num_returns=1, timeout=_TICK_S)[0]:
            slot = promises[promise]
            try:
                kept = self._ray.get(promise)
            except self._ray.exceptions.RayError as error:
                self._replace(slot, _reason(error))
                continue
            if isinstance(kept, Place):
                slot.place, slot.placing = kept, None
                self._placed = time.monotonic()
            else:
                self._ended(slot, kept)

    def _ended(self, slot: _Slot, outcome: Outcome) -> None:
        if outcome.trouble is not None:
            self._replace(slot, outcome.trouble)
            return
        node = slot.place.node if slot.place else ""
        self._free(slot)
        if outcome.misfit and outcome.error is not None and not self._over and self._nodes.fit - {node}:
            if node in self._nodes.fit:
                self._nodes.leave_alone(node, outcome.error.problem)
            return
        self._slots.remove(slot)
        if outcome.error is not None:
            # An actor that joins just as the job is paused is refused; that is no failure.
            self._look(now=True)
            if not (self._over and isinstance(outcome.error, RefusedError)):
                self._failure = self._failure or outcome.error
            self._end()

    def _replace(self, slot: _Slot, reason: str) -> None:
        """Replace a dead actor, unless too many died in a row."""
        log.warning("a worker of %s on Ray died", self._order.version.version_key)
        log.debug("a worker on Ray died: %s", reason)
        place = slot.place
        where = f" on {self._nodes.name(place.node)} (process {place.pid})" if place else ""
        self._free(slot)
        reached = self._look(now=True)
        if slot.leaving or self._over:
            self._slots.remove(slot)
            return
        if not reached or (place and self._has_stored(place)):
            slot.deaths = Deaths(self._order.ray.max_restarts)
        if slot.deaths.one_more(0):
            self._say(f"A worker{where} died and is replaced: {reason}")
            count = slot.deaths.count
            slot.not_before = time.monotonic() + (min(_LONGEST_PAUSE_S, 2.0 ** (count - 2)) if count > 1 else 0)
            return
        count = slot.deaths.count
        if place and self._nodes.fit - {place.node}:
            slot.deaths = Deaths(self._order.ray.max_restarts)
            if place.node in self._nodes.fit:
                self._nodes.leave_alone(
                    place.node, f"a worker died {count} times in a row without embedding a chunk. {reason}"
                )
            return
        self._slots.remove(slot)
        self._failure = UnreachableError(
            f"A worker{where} died {count} times in a row without embedding a chunk. The last time: {reason}",
            f"Nothing is lost. {_NEEDS}; then resume: revector backfill run {self._order.version.version_key}",
        )
        self._end()

    def _has_stored(self, place: Place) -> bool:
        """Whether the worker that was there stored a chunk."""
        if self._connection is None or self._job is None:
            return False
        try:
            with readable_errors(self._order.database):
                (found,) = fetch_one(
                    self._connection,
                    """
                    SELECT coalesce((SELECT done FROM backfill_workers
                                     WHERE job_id = %s AND engine = 'ray' AND pid = %s AND client LIKE '%%@' || %s
                                     ORDER BY id DESC LIMIT 1), 0) > 0
                    """,
                    [self._job.id, place.pid, place.host],
                )
        except UnreachableError:
            return False
        return bool(found)

    def _report_room(self, now: float) -> None:
        """Say once that fewer workers run than are wanted because the cluster is full."""
        waiting = [slot for slot in self._slots if slot.placing is not None]
        if not waiting:
            self._room_told = None
            return
        quiet = now - max(self._placed, *(slot.since for slot in waiting))
        if quiet < _ROOM_S or self._room_told == self._wanted:
            return
        running = sum(slot.place is not None and not slot.leaving for slot in self._slots)
        settings = self._order.ray
        needs = {"CPU": settings.cpus_per_worker, "GPU": settings.gpus_per_worker}
        if quiet < _PLACE_S and (running == 0 or fits(self._ray.available_resources(), needs)):
            return
        self._room_told = self._wanted
        free, every = self._ray.available_resources(), self._ray.cluster_resources()
        apart = ", but on no one node" if fits(free, needs) else ""
        self._say(
            f"{running} of {self._wanted} workers run: the cluster has no room for another, which needs "
            f"{amounts(needs)} (free: {amounts(free, needs)} of {amounts(every, needs)}{apart})"
        )


def fits(resources: Mapping[str, float], needs: Mapping[str, float]) -> bool:
    """Whether enough of each resource is available."""
    return all(resources.get(kind, 0) >= amount for kind, amount in needs.items())


def amounts(resources: Mapping[str, float], kinds: Mapping[str, float] | None = None) -> str:
    """`4 CPUs and 0.5 GPUs`, without the resources that are not asked for."""
    asked = [kind for kind, amount in (resources if kinds is None else kinds).items() if amount]
    found = [(resources.get(kind, 0), kind) for kind in asked]
    return " and ".join(f"{amount:g} {kind}{'' if amount == 1 else 's'}" for amount, kind in found) or "nothing"


def _reason(error: BaseException) -> str:
    """Why an actor died, extracted from Ray's message."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return in_short(cause)
    text = str(error)
    if "unexpected" in text and "End of file" in text:
        return "its process was killed (by a person, or out of memory) or it crashed"
    found = re.search(r"(?:exit detail|because): (.*?)(?: Some common causes|$)", " ".join(text.split()))
    return last_line(found[1] if found else text)
