from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from revector.core.encoders.pacing import LONGEST_HOLD_S, Pacer
from tests.protocol_limits import Clock


class Hooks:
    """What an encoder lends to its pacer; notes what it is told, and lets a clock pass instead of waiting."""

    def __init__(self, clock):
        self.heard = []
        self.wait = clock.wait
        self.on_throttle = lambda seconds, reason: self.heard.append((round(seconds, 3), reason))
        self.on_resume = lambda: self.heard.append("resumed")


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("revector.core.encoders.pacing.clock", clock)
    return clock


@pytest.fixture
def hooks(clock):
    return Hooks(clock)


def refuse(pacer, seconds=7.0, reason="429: slow down", asked=True):
    with pacer.request(10) as ticket:
        pacer.hold(ticket, seconds, reason, asked=asked)


def succeed(pacer, estimate=10, billed=None):
    with pacer.request(estimate) as ticket:
        pacer.succeeded(ticket, billed)


def test_a_hold_is_told_once_and_its_end_too(hooks, clock):
    pacer = Pacer(hooks, 4)
    begin = clock()
    refuse(pacer)
    assert hooks.heard == []  # no request has to wait yet
    succeed(pacer)
    assert clock() == begin + 7
    succeed(pacer)
    assert hooks.heard == [(7, "429: slow down"), "resumed"]


def test_requests_refused_together_are_one_hold_and_cut_once(hooks, clock):
    pacer = Pacer(hooks, 8)
    with pacer.request(1) as first, pacer.request(1) as second, pacer.request(1) as third:
        for ticket in (first, second, third):
            pacer.hold(ticket, 7, "429", asked=True)
            clock.wait(0.2)
    assert pacer.allowed == 4
    succeed(pacer)
    assert [heard for heard in hooks.heard if heard != "resumed"] == [(6.8, "429")]
    assert hooks.heard[-1] == "resumed"


def test_a_longer_hold_is_told_anew(hooks):
    pacer = Pacer(hooks, 2)
    with pacer.request(1) as first, pacer.request(1) as second:
        pacer.hold(first, 5, "429", asked=True)

        def wait(seconds):
            hooks.wait = waited
            pacer.hold(second, 60, "503", asked=True)
            waited(seconds)

        waited, hooks.wait = hooks.wait, wait
    succeed(pacer)
    assert hooks.heard == [(5, "429"), (55, "503"), "resumed"]


def test_refusals_halve_what_goes_at_once_and_answers_raise_it_again(hooks):
    pacer = Pacer(hooks, 8)
    seen = []
    for _ in range(4):
        refuse(pacer)
        seen.append(pacer.allowed)
    assert seen == [4, 2, 1, 1]
    rounds = 0
    while pacer.allowed < 8:
        succeed(pacer)
        rounds += 1
    assert 4 * 25 <= rounds <= 4 * 35  # 4 × (1 + 2 + … + 7): one more after four whole rounds
    for _ in range(200):
        succeed(pacer)
    assert pacer.allowed == 8


def test_no_more_than_allowed_are_under_way(hooks):
    pacer = Pacer(hooks, 2)
    asked = []
    hooks.wait = asked.append
    with ThreadPoolExecutor(1) as pool, pacer.request(1):
        with pacer.request(1):
            third = pool.submit(succeed, pacer)
            # One-sided: were it let through, it would be by now.
            with pytest.raises(TimeoutError):
                third.result(0.2)
        third.result(60)
    assert asked == [0]  # whether to go on, after it had queued


def test_a_request_that_queued_can_be_ended(hooks):
    class StopError(Exception):
        pass

    def stop(seconds):
        raise StopError

    pacer = Pacer(hooks, 1)
    with ThreadPoolExecutor(1) as pool:
        with pacer.request(1):
            queued = pool.submit(succeed, pacer)
            hooks.wait = stop
        with pytest.raises(StopError):
            queued.result(60)
    hooks.wait = [].append
    succeed(pacer)  # nothing of the ended one is left behind


def test_after_a_hold_the_others_follow_at_intervals_until_one_is_answered(hooks, clock):
    pacer = Pacer(hooks, 8)
    with pacer.request(1) as ticket:
        pacer.hold(ticket, 7, "429", asked=True)
    starts = []
    with pacer.request(1) as first:
        starts.append(clock())
        with pacer.request(1):
            starts.append(clock())
            with pacer.request(1):
                starts.append(clock())
                pacer.succeeded(first, None)
                with pacer.request(1):
                    starts.append(clock())
    assert starts[0] == 1007
    assert starts[0] < starts[1] < starts[2] == starts[3] < 1007.6
    assert hooks.heard == [(7, "429"), "resumed"]  # the intervals are not worth a word


def test_a_limit_that_sets_the_pace_is_told_once(hooks, clock):
    pacer = Pacer(hooks, 4, requests_per_minute=60)
    for _ in range(20):
        succeed(pacer)
    assert len(hooks.heard) == 1
    seconds, reason = hooks.heard[0]
    assert 0 < seconds <= 1.1
    assert reason == "the encoder's limit of 60 requests a minute"
    clock.wait(30)
    succeed(pacer)
    assert hooks.heard[1:] == ["resumed"]


def test_a_share_set_while_waiting_counts_from_the_next_look_on(hooks, clock):
    pacer = Pacer(hooks, 4, tokens_per_minute=1000)
    pacer.share = 0.01
    succeed(pacer, 10)
    waits = []

    def wait(seconds):
        waits.append(seconds)
        pacer.share = 1.0
        clock.wait(seconds)

    hooks.wait = wait
    begin = clock()
    succeed(pacer, 10)
    assert hooks.heard[0][0] > 55  # what it looked like
    assert clock() - begin <= 5


def test_headers_are_kept_to_before_the_provider_has_to_refuse(hooks, clock):
    pacer = Pacer(hooks, 4)
    left = {"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "30s"}
    with pacer.request(10) as ticket:
        pacer.heed(ticket, left)
    succeed(pacer)
    assert clock() == 1000
    succeed(pacer)
    assert clock() == 1030
    assert hooks.heard[0] == (30, "the provider has too few requests left until its limit resets")


def test_tokens_left_that_are_too_few_for_this_request(hooks, clock):
    pacer = Pacer(hooks, 4)
    with pacer.request(10) as ticket:
        pacer.heed(ticket, {"x-ratelimit-remaining-tokens": "99", "x-ratelimit-reset-tokens": "6m0s"})
    succeed(pacer, 99)
    assert clock() == 1000
    succeed(pacer, 1)
    assert clock() == 1000 + LONGEST_HOLD_S


def test_what_is_left_is_for_all_who_share_it(hooks, clock):
    pacer = Pacer(hooks, 4)
    pacer.share = 0.25
    with pacer.request(10) as ticket:
        pacer.heed(ticket, {"x-ratelimit-remaining-requests": "4", "x-ratelimit-reset-requests": "30s"})
    succeed(pacer)
    assert clock() == 1000
    succeed(pacer)
    assert clock() == 1030


def test_a_wish_of_the_provider_is_plainer_than_what_it_said_was_left(hooks, clock):
    pacer = Pacer(hooks, 4)
    with pacer.request(10) as ticket:
        pacer.heed(ticket, {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "90s"})
        pacer.hold(ticket, 7, "429", asked=True)
    succeed(pacer)
    assert clock() == 1007


def test_estimates_that_are_too_low_are_corrected(hooks):
    pacer = Pacer(hooks, 4)
    succeed(pacer, 100, billed=50)
    assert pacer.correction == 1
    succeed(pacer, 100, billed=550)
    assert pacer.correction == 3
    succeed(pacer, 100, billed=10**9)
    assert pacer.correction == pytest.approx(1400 / 300)


def test_estimates_that_are_too_high_take_nothing_from_the_limit(hooks, clock):
    pacer = Pacer(hooks, 4, tokens_per_minute=100)
    begin = clock()
    for _ in range(3):
        succeed(pacer, 60, billed=10)
    assert clock() - begin < 15


def test_a_stop_ends_every_thread_that_waits(hooks):
    class StopError(Exception):
        pass

    pacer = Pacer(hooks, 4)
    refuse(pacer, 60)
    stopped, waiting, waits = threading.Event(), threading.Event(), []

    def wait(seconds):
        waits.append(seconds)
        waiting.set()
        assert stopped.wait(60)
        raise StopError

    hooks.wait = wait
    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(succeed, pacer) for _ in range(4)]
        assert waiting.wait(60)
        stopped.set()
        for thread in threads:
            with pytest.raises(StopError):
                thread.result(60)
    assert len(waits) == 4
    assert len(hooks.heard) == 1
