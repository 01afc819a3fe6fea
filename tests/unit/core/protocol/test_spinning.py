"""For how long to stay awake, and when not to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from asynqueue.core.protocol.spinning import EASE, LATE, REST_LEAST, REST_MOST, SPIN, SpinPolicy

SOON = SPIN / 3.5
HARDLY = 1e-9


class Timed:
    """A watch, and the time as the test has it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.watch = SpinPolicy()

    def begin(self, after: float = 0.0) -> bool:
        """Begin so long AFTER what was last."""
        self.now += after
        return self.watch.begin(self.now)

    def again(self, after: float) -> bool:
        """Look again so long AFTER what was last."""
        self.now += after
        return self.watch.again(self.now)

    def rests(self) -> Iterator[float]:
        """How long it rests, each time that a look is late."""
        while True:
            assert self.begin()
            self.again(LATE + HARDLY)
            began = self.now
            while not self.begin():
                self.now += REST_LEAST / 10
            yield self.now - began


@pytest.fixture
def timed() -> Timed:
    return Timed()


def test_it_goes_on_until_its_time_is_up(timed: Timed) -> None:
    assert timed.begin()
    assert [timed.again(SOON) for _ in range(4)] == [True, True, True, False]


def test_it_begins_anew(timed: Timed) -> None:
    timed.begin()
    assert timed.begin(SPIN / 2)
    assert [timed.again(SOON) for _ in range(4)] == [True, True, True, False]
    assert timed.begin(2 * LATE), "between two of them there may be any time"


def test_it_rests_when_a_look_was_late(timed: Timed) -> None:
    timed.begin()
    assert not timed.again(LATE + HARDLY)
    assert not timed.begin(REST_LEAST - HARDLY)
    assert not timed.again(0)
    assert timed.begin(2 * HARDLY)


def test_it_rests_when_what_it_looked_for_came_late(timed: Timed) -> None:
    timed.begin()
    assert not timed.begin(LATE + HARDLY)
    assert timed.begin(REST_LEAST)


def test_it_does_not_rest_for_what_was_as_late_as_may_be(timed: Timed) -> None:
    timed.begin()
    assert not timed.again(LATE - HARDLY), "it was in vain"
    assert timed.begin()


def test_times_are_from_any_beginning_and_exact() -> None:
    watch = SpinPolicy()
    assert watch.begin(0.0)
    assert not watch.again(SPIN)
    assert watch.begin(SPIN)
    watch = SpinPolicy()
    watch.begin(0.0)
    assert watch.begin(LATE), "as late as it may be"


def test_a_late_look_is_the_last() -> None:
    assert LATE > SPIN


def test_it_rests_ever_longer_up_to_a_limit(timed: Timed) -> None:
    rests = timed.rests()
    assert next(rests) == pytest.approx(REST_LEAST, rel=0.2)
    assert next(rests) == pytest.approx(2 * REST_LEAST, rel=0.2)
    assert [next(rests) for _ in range(10)][-1] == pytest.approx(REST_MOST, rel=0.02)


def test_it_rests_less_when_looks_are_not_late_any_more(timed: Timed) -> None:
    rests = timed.rests()
    for _ in range(12):
        next(rests)
    half = next(number for number in count() if EASE**number <= 0.5)
    for _ in range(half):
        timed.begin()
    assert next(rests) == pytest.approx(REST_MOST / 2, rel=0.05)
    for _ in range(10 * half):
        timed.begin()
    assert next(rests) == pytest.approx(REST_LEAST, rel=0.2)
