"""`TaskQueue.map` in virtual time: whatever the workers do, its results come in the order of its items."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from asynqueue import TaskQueue
from asynqueue.core.flow.iteration import AHEAD_LIMIT
from asynqueue.core.scheduling.window import Window
from asynqueue.testing import MemoryWorker

WORKERS = st.lists(st.tuples(st.sampled_from((0.0, 0.0003, 2.0)), st.integers(1, 3)), min_size=1, max_size=3)


@given(WORKERS, st.integers(0, 60), st.sets(st.integers(0, 40)))
def test_results_come_in_order_with_bounded_read_ahead(
    workers: list[tuple[float, int]], items: int, deaths: set[int]
) -> None:
    clock: Any = Clock()  # as good as a reactor, but for its type
    made = [MemoryWorker(clock, window=Window(running, running + 2), seconds=each) for each, running in workers]
    queue = TaskQueue(*made, reactor=clock)
    taken: list[int] = []
    got: list[int] = []

    def endless() -> Any:
        for n in range(1_000_000):
            taken.append(n)
            yield n

    results = queue.map(abs, endless(), retries=50)

    def ask() -> None:
        if len(got) < items:
            results.__anext__().addCallbacks(came, lambda _: None)  # it is stopped while it is waited for

    def came(item: int) -> None:
        got.append(item)
        ask()

    ask()
    for turn in range(1000):
        if len(got) == items:
            break
        if turn in deaths:
            made[turn % len(made)].die()
        calls = clock.getDelayedCalls()
        assert calls, "something is under way for as long as a result is wanted"
        clock.advance(max(0.0, min(call.getTime() for call in calls) - clock.seconds()))
        assert len(taken) <= len(got) + AHEAD_LIMIT + 1, "no more is taken than is fetched ahead"
    assert got == list(range(items)), "all that were asked for, in order, each once"
    results.stop()
    wanted = len(taken)
    for _ in range(20):
        clock.advance(1.0)
    assert (len(got), len(taken)) == (items, wanted), "nothing more is taken, nor given"
    stats = queue.stats()
    assert (stats.queued, stats.running) == (0, 0), "nothing is under way that nobody wants"


@given(st.integers(0, 30), st.integers(0, 5))
def test_the_first_error_ends_the_results_after_those_before_it(items: int, beyond: int) -> None:
    clock: Any = Clock()  # as above
    queue = TaskQueue(MemoryWorker(clock, window=Window(2, 4)), reactor=clock)
    numbers = [*range(1, items + 1), 0, *range(1, beyond + 1)]
    results = queue.map(lambda n: n // n * n, numbers)
    got: list[int] = []
    ends: list[Any] = []

    def came(item: int) -> None:
        got.append(item)
        results.__anext__().addCallbacks(came, ends.append)

    results.__anext__().addCallbacks(came, ends.append)
    for _ in range(10 + 4 * len(numbers)):
        clock.advance(0.01)
    assert got == numbers[:items]
    assert [end.type for end in ends] == [ZeroDivisionError]
