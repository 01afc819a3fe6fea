"""`TaskQueue.map`: results in order, and no more calls ahead than the results are taken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from asynqueue import AsyncWorker, Deferator, NullQueue, QueueRunError, TaskQueue
from tests.support.deferreds import errorOf, resultOf


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> TaskQueue:
    return NullQueue(reactor=clock)


def taken(results: Deferator[int], clock: Clock, limit: int = 10_000) -> tuple[list[int], Deferred[int] | None]:
    """The first results, at most LIMIT, and the Deferred of the one that did not come."""
    items: list[int] = []
    while len(items) < limit:
        d = results.__anext__()
        for _ in range(50):
            if d.called:
                break
            clock.advance(0)
        kept: list[int] = []
        d.addCallback(kept.append)
        if not kept:
            return items, d
        items += kept
    return items, None


def test_it_gives_the_results_in_order(queue: TaskQueue, clock: Clock) -> None:
    items, end = taken(queue.map(pow, [2, 3, 4], [5, 4, 3]), clock)
    assert items == [32, 81, 64]
    assert end is not None
    errorOf(end, StopAsyncIteration)


def test_it_ends_with_the_shortest_iterable(queue: TaskQueue, clock: Clock) -> None:
    for results, wanted in ((queue.map(pow, [1, 2, 3], count()), [1, 2, 9]), (queue.map(abs, []), [])):
        items, end = taken(results, clock)
        assert items == wanted
        assert end is not None
        errorOf(end, StopAsyncIteration)


def test_an_endless_iterable_is_taken_only_as_far_as_its_results_are(queue: TaskQueue, clock: Clock) -> None:
    begun = 0

    def numbers() -> Iterator[int]:
        nonlocal begun
        while True:
            begun += 1
            yield begun

    results = queue.map(abs, numbers())
    clock.pump([0] * 100)
    assert begun == 1
    assert taken(results, clock, 500)[0] == list(range(1, 501))
    assert begun <= 500 + 256
    results.stop()
    clock.pump([0] * 100)
    assert queue.stats().queued == 0


def test_results_that_come_in_another_order_are_put_in_order(clock: Clock) -> None:
    waiting: list[Deferred[int]] = [Deferred() for _ in range(3)]
    queue = TaskQueue(*(AsyncWorker(reactor=clock) for _ in range(3)), reactor=clock)

    def waitFor(n: int) -> Any:  # a Deferred, which the worker waits for
        return waiting[n]

    results = queue.map(waitFor, range(3))
    first = results.__anext__()
    clock.pump([0] * 3)
    waiting[0].callback(10)
    assert resultOf(first) == 10
    second = results.__anext__()
    clock.pump([0] * 3)
    waiting[2].callback(12)
    assert not second.called
    waiting[1].callback(11)
    assert resultOf(second) == 11
    assert resultOf(results.__anext__()) == 12


def test_a_call_that_fails_ends_the_results_after_those_before_it(queue: TaskQueue, clock: Clock) -> None:
    items, end = taken(queue.map(sixthOf, [6, 3, 0, 2, 1] + [1] * 50), clock)
    assert items == [1, 2]
    assert end is not None
    errorOf(end, ZeroDivisionError)
    clock.pump([0] * 100)
    assert queue.stats().done + queue.stats().cancelled + queue.stats().failed < 55


def test_an_iterable_that_raises_ends_the_results_after_those_before_it(queue: TaskQueue, clock: Clock) -> None:
    def two() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("no third")

    items, end = taken(queue.map(abs, two()), clock)
    assert items == [1, 2]
    assert end is not None
    errorOf(end, KeyError)


def test_options_are_those_of_call(queue: TaskQueue, clock: Clock) -> None:
    assert taken(queue.map(abs, [-1], series="local"), clock, 1)[0] == [1]
    assert "local" in queue.stats().bySeries


def test_on_a_queue_that_is_shut_down_it_fails(queue: TaskQueue, clock: Clock) -> None:
    queue.shutdown()
    with pytest.raises(QueueRunError, match=r"abs\(\) was not mapped"):
        queue.map(abs, [1])


def test_on_a_queue_that_is_shut_down_meanwhile_it_fails(queue: TaskQueue, clock: Clock) -> None:
    results = queue.map(abs, count())
    queue.shutdown()
    _, end = taken(results, clock)
    assert end is not None
    errorOf(end, QueueRunError)


def test_what_cannot_be_is_refused_at_once(queue: TaskQueue) -> None:
    wrong: Any = queue
    refused: list[tuple[type[Exception], Any, list[Any], dict[str, Any]]] = [
        (TypeError, None, [[1]], {}),
        (TypeError, abs, [], {}),
        (TypeError, abs, [5], {}),
        (ValueError, abs, [[1]], {"niceness": 50}),
        (TypeError, abs, [[1]], {"series": []}),
        (ValueError, abs, [[1]], {"timeout": -1}),
        (TypeError, abs, [[1]], {"raw": 2}),
        (ValueError, abs, [[1]], {"consumer": object()}),
    ]
    for error, f, iterables, options in refused:
        with pytest.raises(error):
            wrong.map(f, *iterables, **options)


def test_to_stop_cancels_the_calls_ahead(clock: Clock) -> None:
    cancelled: list[int] = []
    queue = TaskQueue(*(AsyncWorker(reactor=clock) for _ in range(4)), reactor=clock)
    hanging: list[Deferred[int]] = []

    def hang(n: int) -> Any:  # a Deferred, which the worker waits for
        d: Deferred[int] = Deferred(lambda _: cancelled.append(n))
        hanging.append(d)
        if n == 0:
            d.callback(0)
        return d

    results = queue.map(hang, count())
    assert resultOf(wait(results, clock)) == 0
    waiting = results.__anext__()
    clock.pump([0] * 5)
    results.stop()
    errorOf(waiting, StopAsyncIteration)
    assert cancelled
    assert len(cancelled) == len(hanging) - 1


def wait(results: Deferator[int], clock: Clock) -> Deferred[int]:
    d = results.__anext__()
    clock.pump([0] * 5)
    return d


def sixthOf(n: int) -> int:
    return 6 // n


async def three() -> AsyncIterator[int]:
    try:
        for n in (1, 2, 3):
            yield n
    finally:
        ended.append("three")


ended: list[str] = []


def test_an_asynchronous_iterable_is_read_as_its_results_are_taken(queue: TaskQueue, clock: Clock) -> None:
    ended.clear()
    items, end = taken(queue.map(pow, three(), count(2)), clock)
    assert items == [1, 8, 81]
    assert end is not None
    errorOf(end, StopAsyncIteration)
    assert ended == ["three"]


def test_the_items_of_one_call_are_mapped_by_others(queue: TaskQueue, clock: Clock) -> None:
    d = queue.call(lambda: iter([3, -4]))
    clock.pump([0] * 5)
    items, end = taken(queue.map(abs, resultOf(d)), clock)
    assert items == [3, 4]
    assert end is not None
    errorOf(end, StopAsyncIteration)


def test_an_asynchronous_iterable_ends_when_the_results_are_not_wanted(queue: TaskQueue, clock: Clock) -> None:
    ended.clear()
    results = queue.map(abs, three())
    assert taken(results, clock, limit=1)[0] == [1]
    results.stop()
    clock.advance(0)
    assert ended == ["three"]


@pytest.mark.parametrize("error", [ValueError("no more"), SystemExit(3)])
def test_an_error_of_an_iterable_takes_the_place_of_a_result(
    queue: TaskQueue, clock: Clock, error: BaseException
) -> None:
    async def later() -> AsyncIterator[int]:
        yield 1
        raise error

    def now() -> Iterator[int]:
        yield 1
        raise error

    for iterable in (later(), now()):
        items, end = taken(queue.map(abs, iterable), clock)
        assert items == [1]
        assert end is not None
        errorOf(end, type(error))
