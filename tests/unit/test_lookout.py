"""Staying awake: for how long, and when not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import pytest
from twisted.internet.task import Clock

from asynqueue.lookout import EASE, LATE, LOOKOUT, LOOKS, REST_LEAST, REST_MOST, Lookout, Watch

SOON = LOOKOUT / 3.5
HARDLY = 1e-9


class Time:
    """The time, as the test has it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def watch(time: Time) -> Watch:
    return Watch(time)


def looks(time: Time, watch: Watch, after: float = SOON) -> int:
    """For how often WATCH says that one is to look again, AFTER so long each time."""
    for number in count():
        time.now += after
        if not watch.again():
            return number
    raise AssertionError


class TestAWatch:
    def test_goes_on_until_its_time_is_up(self, time: Time, watch: Watch) -> None:
        assert watch.begin()
        assert looks(time, watch) == 3

    def test_begins_anew(self, time: Time, watch: Watch) -> None:
        watch.begin()
        time.now += LOOKOUT / 2
        assert watch.begin()
        assert looks(time, watch) == 3
        time.now += 2 * LATE
        assert watch.begin(), "between two of them there may be any time"

    def test_rests_when_a_look_was_late(self, time: Time, watch: Watch) -> None:
        watch.begin()
        time.now += LATE + HARDLY
        assert not watch.again()
        time.now += REST_LEAST - HARDLY
        assert not watch.begin()
        assert not watch.again()
        time.now += 2 * HARDLY
        assert watch.begin()

    def test_rests_when_what_it_looked_for_came_late(self, time: Time, watch: Watch) -> None:
        watch.begin()
        time.now += LATE + HARDLY
        assert not watch.begin()
        time.now += REST_LEAST
        assert watch.begin()

    def test_does_not_rest_for_what_was_as_late_as_may_be(self, time: Time, watch: Watch) -> None:
        watch.begin()
        time.now += LATE - HARDLY
        assert not watch.again(), "it was in vain"
        assert watch.begin()

    def rests(self, time: Time, watch: Watch) -> Iterator[float]:
        """How long WATCH rests, each time that a look is late."""
        while True:
            assert watch.begin()
            time.now += LATE + HARDLY
            watch.again()
            began = time.now
            while not watch.begin():
                time.now += REST_LEAST / 10
            yield time.now - began

    def test_rests_ever_longer_up_to_a_limit(self, time: Time, watch: Watch) -> None:
        rests = self.rests(time, watch)
        first, second = next(rests), next(rests)
        assert first == pytest.approx(REST_LEAST, rel=0.2)
        assert second == pytest.approx(2 * REST_LEAST, rel=0.2)
        assert [next(rests) for _ in range(10)][-1] == pytest.approx(REST_MOST, rel=0.02)

    def test_rests_less_when_looks_are_not_late_any_more(self, time: Time, watch: Watch) -> None:
        rests = self.rests(time, watch)
        for _ in range(12):
            next(rests)
        half = next(number for number in count() if EASE**number <= 0.5)
        for _ in range(half):
            watch.begin()
        assert next(rests) == pytest.approx(REST_MOST / 2, rel=0.05)
        for _ in range(10 * half):
            watch.begin()
        assert next(rests) == pytest.approx(REST_LEAST, rel=0.2)


class TestALookout:
    """One that looks at what the test has for it, and for which time passes as it looks."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def there(self) -> list[str]:
        return []

    @pytest.fixture
    def lookout(self, clock: Clock, time: Time, there: list[str]) -> Lookout:
        def look() -> bool:
            time.now += SOON
            return bool(there and there.pop())

        return Lookout(clock, look, time)

    def turns(self, clock: Clock) -> int:
        """How many turns CLOCK is to make at once, before any that begin with those."""
        calls = clock.getDelayedCalls()
        assert all(call.getTime() == clock.seconds() for call in calls)
        return len(calls)

    def test_keeps_the_reactor_turning(self, lookout: Lookout, clock: Clock, time: Time) -> None:
        lookout.begin()
        lookout.begin()
        assert self.turns(clock) == 1, "one turn at a time is enough"
        began = time.now
        clock.advance(0)
        assert LOOKOUT <= time.now - began <= LOOKOUT + SOON
        assert self.turns(clock) == 0

    def test_looks_several_times_a_turn(self, time: Time) -> None:
        made: list[float] = []

        def look() -> bool:
            time.now += LOOKOUT / 20.5
            made.append(time.now)
            return False

        due: list[Callable[[], None]] = []

        class OneByOne:
            """A reactor that takes its turns when the test wants it."""

            def callLater(self, seconds: float, turn: Callable[[], None]) -> None:
                due.append(turn)

        Lookout(OneByOne(), look, time).begin()
        due.pop()()
        assert len(made) == LOOKS
        while due:
            due.pop()()
        assert len(made) == 21

    def test_is_over_when_there_was_something(
        self, lookout: Lookout, clock: Clock, time: Time, there: list[str]
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

        lookout = Lookout(clock, look, time)
        lookout.begin()
        clock.advance(0)
        assert len(looked) == 4 + 4
        assert self.turns(clock) == 0

    def test_does_not_when_there_is_no_use(self, lookout: Lookout, clock: Clock, time: Time) -> None:
        lookout.begin()
        time.now += LATE
        clock.advance(0)
        lookout.begin()
        assert self.turns(clock) == 0
        time.now += REST_LEAST
        lookout.begin()
        assert self.turns(clock) == 1

    def test_ended_leaves_nothing(self, lookout: Lookout, clock: Clock) -> None:
        lookout.end()
        lookout.begin()
        lookout.end()
        lookout.end()
        assert self.turns(clock) == 0
        lookout.begin()
        assert self.turns(clock) == 1
