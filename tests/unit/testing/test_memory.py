"""`MemoryWorker`: calls in virtual time, and deaths when the test wants them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

from asynqueue import TaskQueue
from asynqueue.core.scheduling.window import Window
from asynqueue.errors import WorkerLost
from asynqueue.interfaces import Worker
from asynqueue.testing import MemoryWorker
from tests.support.deferreds import errorOf, outcomes, resultOf


@pytest.fixture
def clock() -> Clock:
    return Clock()


def queueOf(clock: Clock, *workers: Worker) -> TaskQueue:
    reactor: object = clock  # a Clock is as good as a reactor, but for its type
    return TaskQueue(*workers, reactor=reactor)  # type: ignore[arg-type]  # as said


def test_a_call_takes_its_time(clock: Clock) -> None:
    queue = queueOf(clock, MemoryWorker(clock, seconds=2.0))
    got = outcomes(queue.call(max, 3, 5))
    clock.advance(0)
    clock.advance(1.9)
    assert got == []
    clock.advance(0.1)
    assert got == [5]


def test_it_runs_as_many_at_once_as_its_window_says(clock: Clock) -> None:
    queue = queueOf(clock, MemoryWorker(clock, window=Window(2, 2), seconds=2.0))
    got = [outcomes(queue.call(abs, n)) for n in range(3)]
    clock.pump([0, 2.0, 0])
    assert got == [[0], [1], []]
    clock.advance(2.0)
    assert got == [[0], [1], [2]]


def test_what_ran_when_it_died_is_started_once_more_and_then_lost(clock: Clock) -> None:
    worker = MemoryWorker(clock, seconds=2.0)
    queue = queueOf(clock, worker)
    started: list[int] = []
    d = queue.call(started.append, 1)
    for _ in range(2):
        clock.advance(0)
        worker.die(reason="it was told to")
    assert "it was told to" in str(errorOf(d, WorkerLost))
    assert started == [1, 1]
    assert len(queue) == 1


def test_one_that_does_not_return_is_gone(clock: Clock) -> None:
    worker = MemoryWorker(clock)
    queue = queueOf(clock, worker)
    d = queue.call(abs, -1)
    clock.advance(0)
    worker.die(returning=False)
    assert len(queue) == 0
    queue.attachWorker(MemoryWorker(clock))
    clock.advance(0)
    clock.advance(0)
    assert resultOf(d) == 1


def test_an_iteration_ends_with_its_worker(clock: Clock) -> None:
    closed: list[bool] = []

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    worker = MemoryWorker(clock)
    d = queueOf(clock, worker).call(items)
    clock.pump([0] * 4)
    iteration = resultOf(d)
    assert resultOf(iteration.__anext__()) == 1
    worker.die()
    assert "the worker died" in str(errorOf(iteration.__anext__(), WorkerLost))
    assert closed == [True]
