"""A subscriber sees the number of unfinished calls."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from asynqueue import AsyncWorker, TaskQueue
from asynqueue.errors import QueueRunError
from tests.support.deferreds import logged, resultOf


class Display:
    """A consumer that keeps what it was shown, and may pause or stop at one of the numbers."""

    def __init__(self, pauseAt: int | None = None, stopAt: int | None = None) -> None:
        self.shown: list[int] = []
        self.producer: Any = None  # whatever registers itself
        self._pauseAt = pauseAt
        self._stopAt = stopAt

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: int) -> None:
        self.shown.append(data)
        if data == self._pauseAt:
            self.producer.pauseProducing()
        if data == self._stopAt:
            self.producer.stopProducing()


def busy(display: Display) -> tuple[Clock, TaskQueue]:
    """A queue that DISPLAY subscribes to, with three calls in it."""
    clock = Clock()
    queue = TaskQueue(AsyncWorker(reactor=clock), reactor=clock)
    queue.subscribe(display)
    for n in range(3):
        queue.call(abs, n)
    return clock, queue


def test_it_is_shown_the_number_at_first_and_at_each_change() -> None:
    display = Display()
    clock, queue = busy(display)
    assert display.shown == [0, 1, 2, 3]
    clock.pump([0] * 5)
    assert display.shown == [0, 1, 2, 3, 2, 1, 0]
    done = queue.shutdown()
    assert done.called
    assert display.producer is None


def test_one_that_pauses_is_shown_the_latest_when_it_resumes() -> None:
    display = Display(pauseAt=1)
    clock, _ = busy(display)
    assert display.shown == [0, 1]
    display.producer.resumeProducing()
    assert display.shown == [0, 1, 3]
    clock.advance(0)
    assert display.shown == [0, 1, 3, 2, 1]  # where it pauses again


def test_one_that_stops_is_shown_nothing_more() -> None:
    display = Display(stopAt=2)
    clock, queue = busy(display)
    clock.pump([0] * 5)
    assert display.shown == [0, 1, 2]
    assert display.producer is None
    assert queue.shutdown().called


def test_one_may_call_the_queue_from_within_a_write() -> None:
    display = Display()
    clock = Clock()
    queue = TaskQueue(AsyncWorker(reactor=clock), reactor=clock)
    inner = display.write

    def write(data: int) -> None:
        inner(data)
        if data == 1 and len(display.shown) < 4:
            queue.call(abs, -1)

    display.write = write  # type: ignore[method-assign]  # this one display does more than show
    queue.subscribe(display)
    queue.call(abs, -1)
    clock.pump([0] * 5)
    assert display.shown == [0, 1, 2, 1, 0]


def test_it_is_shown_the_last_change_though_the_queue_shuts_down_in_that_turn() -> None:
    display = Display()
    clock = Clock()
    queue = TaskQueue(AsyncWorker(reactor=clock), reactor=clock)
    queue.subscribe(display)
    queue.call(abs, -1)
    done = queue.shutdown()
    assert display.producer is not None
    clock.advance(0)
    resultOf(done)
    assert display.shown == [0, 1, 0]
    assert display.producer is None


def test_it_is_shown_the_last_change_though_it_shuts_the_queue_down_itself() -> None:
    display = Display()
    clock = Clock()
    queue = TaskQueue(reactor=clock)
    inner = display.write

    def write(data: int) -> None:
        inner(data)
        if data == 1:
            queue.call(abs, -1).addErrback(lambda _: None)
            queue.shutdown()

    display.write = write  # type: ignore[method-assign]  # this one display does more than show
    queue.subscribe(display)
    queue.call(abs, -1).addErrback(lambda _: None)
    assert display.shown == [0, 1, 0]
    assert display.producer is None


def test_it_may_begin_while_the_queue_shuts_down_and_not_later() -> None:
    clock, queue = busy(Display())
    done = queue.shutdown()
    display = Display()
    queue.subscribe(display)
    clock.pump([0] * 5)
    assert display.shown == [3, 2, 1, 0]
    resultOf(done)
    with pytest.raises(QueueRunError, match="the queue is not running"):
        queue.subscribe(display)


def test_one_that_raises_is_shown_nothing_more_and_nobody_else_is_disturbed() -> None:
    class Broken(Display):
        def write(self, data: int) -> None:
            super().write(data)
            if data:
                raise SystemExit("broken")

    broken, other = Broken(), Display()
    clock = Clock()
    queue = TaskQueue(AsyncWorker(reactor=clock), reactor=clock)
    for display in broken, other:
        queue.subscribe(display)
    with logged() as events:
        d = queue.call(abs, -1)
        clock.advance(0)
    assert resultOf(d) == 1
    assert (broken.shown, broken.producer) == ([0, 1], None)
    assert other.shown == [0, 1, 0]
    assert [event["log_failure"].type for event in events] == [SystemExit]


def test_what_is_no_consumer_is_refused() -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match="consumer must provide IConsumer, got 5"):
        TaskQueue(reactor=Clock()).subscribe(wrong)


def test_a_consumer_that_registers_itself_is_shown_the_numbers() -> None:
    class Register09(Display):
        def registerProducer(self, producer: Any, streaming: bool) -> None:
            super().registerProducer(producer, streaming)
            producer.registerConsumer(self)

    display = Register09()
    clock, _ = busy(display)
    clock.pump([0] * 6)
    assert display.shown[-1] == 0
