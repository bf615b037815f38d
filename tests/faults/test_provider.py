"""A provider that fails in every way that providers do, from one request to the next."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest

from revector.core.backfill.job.dead_letters import failures
from revector.core.database import Database
from tests.faults.conftest import MakeProcesses, Prepare
from tests.faults.numbers import NUMBERS
from tests.faults.truth import assert_right, assert_whole
from tests.faults.watch import Watch
from tests.protocol_server import Failure, ProtocolServer, Spoilt

LIMITED = Failure(429, "Rate limit reached for requests per minute.", {"Retry-After": "0.05"})
BROKEN = Failure(500, "The server had an error.", {"Retry-After": "0.02"})
THROTTLING: list[Failure | Spoilt] = [LIMITED, BROKEN, "truncated", "cut off", "close"]
WRONG: list[Failure | Spoilt] = ["one short", "nan", "zero", "other dimensions"]


class MoodyProvider(ProtocolServer):
    """Answers two requests of five with one of its faults, each of which has its turn."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.faults: list[Failure | Spoilt] = []
        self.had: list[Failure | Spoilt] = []
        self._chance = chance
        self._five: list[bool] = []
        self._turns: list[Failure | Spoilt] = []
        self._lock = threading.Lock()

    def next_answer(self) -> Failure | Spoilt | None:
        with self._lock:
            self._five = self._five or self._chance.sample([True, True, False, False, False], 5)
            if not (self._five.pop() and self.faults):
                return super().next_answer()
            self._turns = self._turns or self._chance.sample(self.faults, len(self.faults))
            self.had.append(self._turns.pop())
            return self.had[-1]

    @property
    def spec(self) -> str:
        return f"openai:text-embedding-3-small?dimensions=64&base_url={self.base_url}"


@pytest.fixture
def provider(chance: random.Random) -> Iterator[MoodyProvider]:
    with MoodyProvider(chance) as provider:
        yield provider


@pytest.mark.parametrize("faults", [THROTTLING, [*THROTTLING, *WRONG]], ids=["throttling", "everything"])
def test_chunks_are_embedded_or_dead_letters_whatever_the_provider_answers(
    target: Database,
    prepare: Prepare,
    watch: Watch,
    make_processes: MakeProcesses,
    provider: MoodyProvider,
    faults: list[Failure | Spoilt],
) -> None:
    processes = make_processes(batch_size=8, max_failed_share=0.9)
    prepare(NUMBERS.provider_chunks, provider.spec)
    provider.faults = faults
    for worker in processes.workers(2):
        worker.finish()
    assert all(fault in provider.had for fault in faults)
    provider.faults = []
    with target.session("test") as connection:
        assert_right(connection, watch.version())
        letters = watch.number("SELECT count(*) FROM dead_letters")
        status = watch.status()
        assert status is not None
        assert (status.state, status.failed) == ("failed" if letters else "done", letters)
        assert status.done + letters == NUMBERS.provider_chunks
    if letters:
        processes.revector("backfill", "failures", "v1", "--retry").finish()
        processes.run().finish()
        assert failures(watch.connection, watch.version()) == []
    assert_whole(target, written=bool(letters))
