"""`AsyncWorker`: calls in the main loop, one after another, by a clock that only moves when told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from asynqueue import AsyncWorker, CallSpec, Task
from asynqueue.core.records import Interrupted, Iterating, Raised, Recalled, Returned
from asynqueue.interfaces import Worker
from tests.support.deferreds import nothing, outcomes


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def worker(clock: Clock) -> AsyncWorker:
    return AsyncWorker(reactor=clock)


def task(f: Any, /, *args: Any, raw: bool | None = None, **kw: Any) -> Task:
    return Task(1, CallSpec(f, args, kw), raw=raw)


def exit_() -> None:
    raise SystemExit(3)


class TestRunning:
    def test_it_is_a_worker_for_async_and_local_and_the_series_named(self) -> None:
        worker: Worker = AsyncWorker(["mine"], reactor=Clock())
        assert set(worker.qualifications) == {"async", "local", "mine"}

    def test_a_call_starts_in_the_next_turn(self, clock: Clock, worker: AsyncWorker) -> None:
        calls: list[int] = []
        run = outcomes(worker.run(task(calls.append, 1)))
        assert calls == []
        clock.advance(0)
        assert (calls, run) == ([1], [Returned(None)])

    def test_a_deferred_is_waited_for_and_timed(self, clock: Clock, worker: AsyncWorker) -> None:
        inner: Deferred[int] = Deferred()
        run = outcomes(worker.run(task(lambda: inner)))
        clock.advance(0)
        clock.advance(2.5)
        assert run == []
        inner.callback(7)
        assert run == [Returned(7, 2.5)]

    def test_a_coroutine_is_waited_for(self, clock: Clock, worker: AsyncWorker) -> None:
        inner: Deferred[int] = Deferred()

        async def double(factor: int) -> int:
            return factor * await inner

        run = outcomes(worker.run(task(double, factor=3)))
        clock.advance(0)
        assert run == []
        inner.callback(7)
        assert run == [Returned(21)]

    def test_what_raises_at_once_or_later_has_raised(self, clock: Clock, worker: AsyncWorker) -> None:
        inner: Deferred[int] = Deferred()
        for f in (lambda: 1 / 0, lambda: inner, exit_):
            run = outcomes(worker.run(task(f)))
            clock.advance(0)
            if f not in (exit_,) and not run:
                inner.errback(ZeroDivisionError())
            assert isinstance(run[0], Raised)
            assert isinstance(run[0].error, SystemExit if f is exit_ else ZeroDivisionError)

    def test_an_iterator_is_a_source_of_items(self, clock: Clock, worker: AsyncWorker) -> None:
        inner: Deferred[Iterator[int]] = Deferred()
        for f in (lambda: iter([1]), lambda: inner):
            run = outcomes(worker.run(task(f)))
            clock.advance(0)
            if not run:
                inner.callback(iter([1]))
            assert isinstance(run[0], Iterating)

    @pytest.mark.parametrize(("own", "call", "raw"), [(False, True, True), (True, None, True), (True, False, False)])
    def test_raw_is_the_workers_unless_the_call_says(
        self, clock: Clock, own: bool, call: bool | None, raw: bool
    ) -> None:
        items = iter([1])
        run = outcomes(AsyncWorker(raw=own, reactor=clock).run(task(lambda: items, raw=call)))
        clock.advance(0)
        assert isinstance(run[0], Returned) is raw


class TestInterrupting:
    def test_before_it_starts_it_never_does(self, clock: Clock, worker: AsyncWorker) -> None:
        calls: list[int] = []
        run = worker.run(task(calls.append, 1))
        got = outcomes(run)
        run.cancel()
        assert got == [Recalled()]
        assert clock.getDelayedCalls() == []

    def test_a_recall_brings_back_what_has_not_started_and_nothing_else(
        self, clock: Clock, worker: AsyncWorker
    ) -> None:
        inner: Deferred[int] = Deferred()
        worker.recall()
        waiting = outcomes(worker.run(task(lambda: inner)))
        worker.recall()
        assert waiting == [Recalled()]
        assert clock.getDelayedCalls() == []
        running = outcomes(worker.run(task(lambda: inner)))
        clock.advance(0)
        worker.recall()
        assert running == []
        inner.callback(5)
        worker.recall()
        assert len(running) == 1

    def test_while_it_waits_what_it_waits_for_is_cancelled(self, clock: Clock, worker: AsyncWorker) -> None:
        inner: Deferred[int] = Deferred()
        run = worker.run(task(lambda: inner))
        got = outcomes(run)
        clock.advance(0)
        run.cancel()
        assert got == [Interrupted()]
        assert inner.called

    def test_a_coroutine_is_told(self, clock: Clock, worker: AsyncWorker) -> None:
        seen: list[str] = []

        async def waits() -> None:
            try:
                await Deferred[None]()
            except CancelledError:
                seen.append("cancelled")
                raise
            finally:
                seen.append("finally")

        run = worker.run(task(waits))
        clock.advance(0)
        run.cancel()
        assert seen == ["cancelled", "finally"]

    def test_from_inside_the_call_itself(self, clock: Clock, worker: AsyncWorker) -> None:
        inner: Deferred[None] = Deferred()

        def cancels() -> Deferred[None]:
            run.cancel()
            return inner

        run = worker.run(task(cancels))
        got = outcomes(run)
        clock.advance(0)
        assert got == [Interrupted()]
        assert inner.called

    def test_one_that_will_not_be_cancelled_is_let_go_all_the_same(self, clock: Clock, worker: AsyncWorker) -> None:
        def refuse(_: Deferred[None]) -> None:
            raise OSError("I will not")

        run = worker.run(task(lambda: Deferred(refuse)))
        got = outcomes(run)
        clock.advance(0)
        with pytest.raises(OSError, match="I will not"):
            run.cancel()
        assert got == [Interrupted()]
        again = outcomes(worker.run(task(abs, -1)))
        clock.advance(0)
        assert again == [Returned(1)]


class TestLeaving:
    def test_an_idle_one_stops_at_once_and_again(self, clock: Clock, worker: AsyncWorker) -> None:
        assert outcomes(worker.stop()) == [None]
        worker.run(task(nothing))
        clock.advance(0)
        assert outcomes(worker.stop()) == [None]

    def test_it_stops_after_it_has_answered(self, clock: Clock, worker: AsyncWorker) -> None:
        said: list[object] = []
        worker.run(task(nothing)).addCallback(said.append)
        worker.stop().addCallback(said.append)
        clock.advance(0)
        assert said == [Returned(None), None]

    def test_a_busy_one_stops_when_its_call_has_ended(self, clock: Clock, worker: AsyncWorker) -> None:
        inner: Deferred[int] = Deferred()
        worker.run(task(lambda: inner))
        clock.advance(0)
        stops = [outcomes(worker.stop()), outcomes(worker.stop())]
        assert stops == [[], []]
        inner.callback(1)
        assert stops == [[None], [None]]

    def test_a_crash_lets_go_and_reports_nothing(self, clock: Clock, worker: AsyncWorker) -> None:
        inner: Deferred[int] = Deferred()
        running = task(lambda: inner)
        got = outcomes(worker.run(running))
        clock.advance(0)
        assert worker.crash() == [running]
        assert inner.called
        assert got == []
        assert worker.crash() == []
        assert outcomes(worker.stop()) == [None]

    def test_a_crash_before_the_start_leaves_no_delayed_call(self, clock: Clock, worker: AsyncWorker) -> None:
        waiting = task(nothing)
        got = outcomes(worker.run(waiting))
        assert worker.crash() == [waiting]
        assert (got, clock.getDelayedCalls()) == ([], [])

    def test_what_it_ran_is_not_kept(self, clock: Clock, worker: AsyncWorker) -> None:
        worker.run(task(nothing))
        clock.advance(0)
        assert worker.crash() == []
