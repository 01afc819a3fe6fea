"""Staying awake: for how long, and until when."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from asynqueue.lookout import LOOKOUT, Lookout


class Watch:
    """Each time that somebody looks, a quarter of a lookout has gone by."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return 100 + self.looks * LOOKOUT / 4


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def lookout(clock: Clock, watch: Watch) -> Lookout:
    return Lookout(clock, watch)


def test_there_is_no_sleep_until_its_time_is_up(lookout: Lookout, clock: Clock, watch: Watch) -> None:
    lookout.begin()
    assert [call.getTime() for call in clock.getDelayedCalls()] == [clock.seconds()]
    clock.advance(0)  # a clock's turns go on for as long as there is one at once
    assert watch.looks == 1 + 4
    assert not clock.getDelayedCalls()


def test_what_begins_again_goes_on_for_as_long_from_then(lookout: Lookout, clock: Clock, watch: Watch) -> None:
    lookout.begin()
    lookout.begin()
    assert len(clock.getDelayedCalls()) == 1, "one turn at a time is enough"
    clock.advance(0)
    assert watch.looks == 2 + 4
    lookout.begin()
    clock.advance(0)
    assert watch.looks == 2 * (2 + 4) - 1


def test_ended_it_leaves_nothing(lookout: Lookout, clock: Clock, watch: Watch) -> None:
    lookout.end()
    lookout.begin()
    lookout.end()
    lookout.end()
    assert not clock.getDelayedCalls()
    lookout.begin()
    clock.advance(0)
    assert watch.looks == 2 + 4
