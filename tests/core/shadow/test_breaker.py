"""The circuit breaker, with a clock that the test turns."""

from __future__ import annotations

from revector.core.shadow.breaker import Breaker


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def opened() -> tuple[Breaker, Clock]:
    clock = Clock()
    breaker = Breaker(3, pause_s=10, longest_s=30, clock=clock)
    for _ in range(3):
        assert breaker.admits()
        breaker.failed("down")
    return breaker, clock


def test_failures_in_a_row_open_it_and_one_success_between_does_not() -> None:
    breaker = Breaker(3)
    for _ in range(5):
        breaker.failed("a")
        breaker.failed("b")
        breaker.succeeded()
    assert (breaker.state, breaker.open) == ("closed", None)
    breaker, _ = opened()
    assert breaker.state == "open"
    assert breaker.open is not None
    assert breaker.open[1] == "down"
    assert not breaker.admits()


def test_past_the_pause_one_trial_is_let_through_and_closes_it(logged: list[str]) -> None:
    breaker, clock = opened()
    clock.now = 9.9
    assert not breaker.admits()
    clock.now = 10
    assert [breaker.admits() for _ in range(3)] == [True, False, False]
    assert logged == ["WARNING shadow: the candidate is left alone after 3 failures"]
    assert breaker.open is not None  # not closed before the trial's outcome
    breaker.succeeded()
    assert logged[1:] == ["INFO shadow: the candidate answers again"]
    assert breaker.open is None
    assert breaker.admits()
    assert breaker.admits()


def test_a_failed_trial_doubles_the_pause_up_to_a_limit() -> None:
    breaker, clock = opened()
    assert breaker.open is not None
    since = breaker.open[0]
    for pause in (10, 20, 30, 30):
        clock.now += pause - 0.1
        assert not breaker.admits()
        clock.now += 0.1
        assert breaker.admits()
        breaker.failed("still down")
    assert breaker.open == (since, "still down")


def test_a_trial_that_was_not_made_is_owed_again() -> None:
    breaker, clock = opened()
    clock.now = 10
    assert breaker.admits()
    breaker.withdraw()
    assert breaker.admits()
