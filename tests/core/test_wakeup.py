"""A ring ends a wait, also one that begins later; so does what a connection receives, whatever its file's number."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Iterator

import pytest

from revector.core.wakeup import WakeUp

FOR_EVER = 10_000.0


@pytest.fixture
def bell() -> Iterator[WakeUp]:
    wakeup = WakeUp()
    yield wakeup
    wakeup.close()


def waiting(bell: WakeUp) -> threading.Thread:
    thread = threading.Thread(target=bell.wait, args=[FOR_EVER], daemon=True)
    thread.start()
    return thread


def ends(thread: threading.Thread) -> bool:
    thread.join(60)
    return not thread.is_alive()


def test_a_ring_ends_the_wait_that_is_under_way(bell: WakeUp) -> None:
    thread = waiting(bell)
    bell.ring()
    assert ends(thread)


def test_more_rings_than_anybody_hears_hold_nobody_up(bell: WakeUp) -> None:
    for _ in range(100_000):  # a buffer's worth, and more
        bell.ring()
    assert ends(waiting(bell))


def test_what_a_connection_receives_ends_the_wait_also_past_the_1024th_file(bell: WakeUp) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 4_096), max(before[1], 4_096)))
    held: list[socket.socket] = []
    try:
        while not held or held[-1].fileno() < 1_100:
            held += socket.socketpair()
        sender, receiver = held[-2:]
        sender.send(b"1")
        bell.wait(FOR_EVER, receiver)
        assert receiver.recv(1) == b"1"
    finally:
        for one in held:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_after_its_end_a_ring_does_nothing() -> None:
    wakeup = WakeUp()
    wakeup.close()
    wakeup.ring()
    with pytest.raises(ValueError, match="Invalid file"):
        wakeup.wait(0.0)
