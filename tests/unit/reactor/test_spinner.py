"""Staying awake in a reactor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.task import Clock

from asynqueue.core.protocol.spinning import LATE, REST_LEAST, SPIN
from asynqueue.reactor.spinner import POLLS, Spinner

SOON = SPIN / 3.5


class Time:
    """The time, as the test has it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


class TestALookout:
    """One that looks at what the test has for it, and for which time passes as it looks."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def there(self) -> list[str]:
        return []

    @pytest.fixture
    def lookout(self, clock: Clock, time: Time, there: list[str]) -> Spinner:
        def look() -> bool:
            time.now += SOON
            return bool(there and there.pop())

        return Spinner(clock, look, time)

    def turns(self, clock: Clock) -> int:
        """How many turns CLOCK is to make at once, before any that begin with those."""
        calls = clock.getDelayedCalls()
        assert all(call.getTime() == clock.seconds() for call in calls)
        return len(calls)

    def test_keeps_the_reactor_turning(self, lookout: Spinner, clock: Clock, time: Time) -> None:
        lookout.begin()
        lookout.begin()
        assert self.turns(clock) == 1, "one turn at a time is enough"
        began = time.now
        clock.advance(0)
        assert SPIN <= time.now - began <= SPIN + SOON
        assert self.turns(clock) == 0

    def test_looks_several_times_a_turn(self, time: Time) -> None:
        made: list[float] = []

        def look() -> bool:
            time.now += SPIN / 20.5
            made.append(time.now)
            return False

        due: list[Callable[[], None]] = []

        class OneByOne:
            """A reactor that takes its turns when the test wants it."""

            def callLater(self, seconds: float, turn: Callable[[], None]) -> None:
                due.append(turn)

        Spinner(OneByOne(), look, time).begin()
        due.pop()()
        assert len(made) == POLLS
        while due:
            due.pop()()
        assert len(made) == 21

    def test_is_over_when_there_was_something(
        self, lookout: Spinner, clock: Clock, time: Time, there: list[str]
    ) -> None:
        there.append("answer")
        lookout.begin()
        began = time.now
        clock.advance(0)
        assert time.now == began + SOON
        assert self.turns(clock) == 0

    def test_goes_on_for_what_was_begun_meanwhile(self, clock: Clock, time: Time) -> None:
        looked: list[float] = []

        def look() -> bool:
            time.now += SOON
            looked.append(time.now)
            if len(looked) < 5:
                lookout.begin()
                return True
            return False

        lookout = Spinner(clock, look, time)
        lookout.begin()
        clock.advance(0)
        assert len(looked) == 4 + 4
        assert self.turns(clock) == 0

    def test_does_not_when_there_is_no_use(self, lookout: Spinner, clock: Clock, time: Time) -> None:
        lookout.begin()
        time.now += LATE
        clock.advance(0)
        lookout.begin()
        assert self.turns(clock) == 0
        time.now += REST_LEAST
        lookout.begin()
        assert self.turns(clock) == 1

    def test_ended_leaves_nothing(self, lookout: Spinner, clock: Clock) -> None:
        lookout.end()
        lookout.begin()
        lookout.end()
        lookout.end()
        assert self.turns(clock) == 0
        lookout.begin()
        assert self.turns(clock) == 1
