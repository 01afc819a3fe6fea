"""`DeferredTracker`: it waits in the very turn, and leaves what it tracks as it was."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any
from weakref import ref

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from asynqueue.errors import AsynQueueError
from asynqueue.util import DeferredTracker


def results(d: Deferred[Any]) -> list[Any]:
    """The results that D has had, kept up to date."""
    got: list[Any] = []
    d.addBoth(got.append)
    return got


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tracker(clock: Clock) -> DeferredTracker:
    return DeferredTracker(reactor=clock)


def put(tracker: DeferredTracker, n: int) -> list[Deferred[int]]:
    return [tracker.put(Deferred[int]()) for _ in range(n)]


class TestWaiting:
    def test_with_nothing_outstanding_every_wait_is_over_at_once(self, tracker: DeferredTracker) -> None:
        for d in tracker.deferToAll(), tracker.deferToAny(), tracker.deferUntilFewer(1):
            assert results(d) == [True]
        assert tracker.notWaiting()

    def test_all_waits_for_the_last(self, tracker: DeferredTracker) -> None:
        first, second = put(tracker, 2)
        got = results(tracker.deferToAll())
        second.callback(2)
        assert got == []
        assert not tracker.notWaiting()
        first.callback(1)
        assert got == [True]
        assert tracker.notWaiting()

    def test_any_waits_for_the_next(self, tracker: DeferredTracker) -> None:
        first, second, third = put(tracker, 3)
        third.callback(3)
        got = results(tracker.deferToAny())
        assert got == []
        second.callback(2)
        assert got == [True]
        assert not first.called

    def test_fewer_counts_what_is_outstanding(self, tracker: DeferredTracker) -> None:
        ds = put(tracker, 4)
        got = results(tracker.deferUntilFewer(2))
        for d, expected in zip(ds, ([], [], [True], [True]), strict=True):
            d.callback(0)
            assert got == expected

    def test_what_is_put_during_a_wait_counts(self, tracker: DeferredTracker) -> None:
        (first,) = put(tracker, 1)
        got = results(tracker.deferToAll())
        (second,) = put(tracker, 1)
        first.callback(1)
        assert got == []
        second.callback(2)
        assert got == [True]

    @pytest.mark.parametrize("n", [0, -1])
    def test_a_limit_below_one_is_refused(self, tracker: DeferredTracker, n: int) -> None:
        with pytest.raises(ValueError, match=f"N must be 1 or more, got {n}"):
            tracker.deferUntilFewer(n)

    def test_quitting_ends_every_wait_with_false(self, tracker: DeferredTracker) -> None:
        (d,) = put(tracker, 1)
        got = [results(w) for w in (tracker.deferToAll(), tracker.deferToAny(), tracker.deferUntilFewer(1))]
        tracker.quitWaiting()
        assert got == [[False]] * 3
        assert tracker.notWaiting()
        assert results(tracker.deferToAll()) == []
        d.callback(0)

    def test_what_has_no_deferred_counts_too(self, tracker: DeferredTracker) -> None:
        tracker.addWait()
        every, anything = results(tracker.deferToAll()), results(tracker.deferToAny())
        tracker.addWait()
        tracker.removeWait()
        assert (every, anything) == ([], [True])
        tracker.removeWait()
        assert every == [True]

    def test_removing_what_was_never_added_is_an_error(self, tracker: DeferredTracker) -> None:
        put(tracker, 1)
        with pytest.raises(AsynQueueError, match="removeWait without an addWait"):
            tracker.removeWait()

    def test_it_takes_the_arguments_of_0_9(self) -> None:
        assert DeferredTracker(0.1, 1.05).notWaiting()
        assert DeferredTracker(interval=0.1, backoff=1.05).notWaiting()


class TestTimeouts:
    def test_a_wait_times_out_with_false(self, tracker: DeferredTracker, clock: Clock) -> None:
        put(tracker, 1)
        got = [results(w) for w in (tracker.deferToAll(3), tracker.deferToAny(3), tracker.deferUntilFewer(1, 3))]
        clock.advance(2.9)
        assert got == [[]] * 3
        clock.advance(0.1)
        assert got == [[False]] * 3
        assert tracker.notWaiting()

    def test_no_delayed_call_outlives_its_wait(self, tracker: DeferredTracker, clock: Clock) -> None:
        (d,) = put(tracker, 1)
        tracker.deferToAny(3)
        tracker.deferToAll(3)
        d.callback(0)
        assert clock.getDelayedCalls() == []
        assert results(tracker.deferToAll(3)) == [True]
        assert clock.getDelayedCalls() == []
        put(tracker, 1)
        tracker.deferToAll(3)
        tracker.quitWaiting()
        assert clock.getDelayedCalls() == []

    def test_without_a_timeout_no_reactor_is_asked(self) -> None:
        tracker = DeferredTracker(reactor=None)
        (d,) = put(tracker, 1)
        got = results(tracker.deferToAll())
        d.callback(0)
        assert got == [True]

    def test_a_negative_timeout_is_refused(self, tracker: DeferredTracker) -> None:
        with pytest.raises(ValueError, match="timeout must be 0 seconds or more"):
            tracker.deferToAll(-1)
        assert tracker.notWaiting()

    def test_cancelling_a_wait_removes_it_and_its_timer(self, tracker: DeferredTracker, clock: Clock) -> None:
        (d,) = put(tracker, 1)
        wait = tracker.deferToAll(3)
        got = results(wait)
        wait.cancel()
        assert got[0].check(CancelledError)
        assert tracker.notWaiting()
        assert clock.getDelayedCalls() == []
        d.callback(0)


class TestWhatIsTrackedStaysAsItWas:
    def test_put_returns_it(self, tracker: DeferredTracker) -> None:
        d: Deferred[int] = Deferred()
        assert tracker.put(d) is d

    @pytest.mark.parametrize("thing", [None, 1, "d", object])
    def test_what_is_no_deferred_is_refused(self, tracker: DeferredTracker, thing: Any) -> None:
        with pytest.raises(TypeError, match="a tracker tracks Deferreds, got"):
            tracker.put(thing)
        assert results(tracker.deferToAll()) == [True]

    def test_results_and_failures_pass(self, tracker: DeferredTracker) -> None:
        good, bad = put(tracker, 2)
        error = ValueError("bad")
        gotGood, gotBad = results(good), results(bad)
        good.callback(1)
        bad.errback(error)
        assert gotGood == [1]
        assert gotBad[0].value is error

    def test_one_that_has_fired_is_not_outstanding(self, tracker: DeferredTracker) -> None:
        d = tracker.put(succeed(1))
        assert results(tracker.deferToAll()) == [True]
        assert results(d) == [1]
        e = tracker.put(fail(KeyError()))
        assert results(tracker.deferToAll()) == [True]
        assert results(e)[0].check(KeyError)

    def test_a_paused_one_is_outstanding_until_it_goes_on(self, tracker: DeferredTracker) -> None:
        d = succeed(1)
        d.pause()
        tracker.put(d)
        got = results(tracker.deferToAll())
        assert got == []
        d.unpause()
        assert got == [True]
        assert results(d) == [1]

    def test_one_that_waits_for_another_is_outstanding_until_that_fires(self, tracker: DeferredTracker) -> None:
        inner: Deferred[int] = Deferred()
        outer = succeed(None).addCallback(lambda _: inner)
        tracker.put(outer)
        got = results(tracker.deferToAll())
        assert got == []
        inner.callback(5)
        assert got == [True]
        assert results(outer) == [5]

    def test_it_may_be_returned_from_a_callback(self, tracker: DeferredTracker) -> None:
        (inner,) = put(tracker, 1)
        outer = succeed(None).addCallback(lambda _: inner)
        got = results(outer)
        inner.callback(5)
        assert got == [5]

    def test_a_cancelled_one_is_over(self, tracker: DeferredTracker) -> None:
        (d,) = put(tracker, 1)
        got, every = results(d), results(tracker.deferToAll())
        d.cancel()
        assert every == [True]
        assert got[0].check(CancelledError)

    def test_put_twice_it_counts_once_until_the_later_place(self, tracker: DeferredTracker) -> None:
        inner: Deferred[int] = Deferred()
        (d,) = put(tracker, 1)
        d.addCallback(lambda _: inner)
        tracker.put(d)
        put(tracker, 1)
        two, one = results(tracker.deferUntilFewer(3)), results(tracker.deferUntilFewer(2))
        assert two == [True]
        d.callback(1)
        assert one == []
        inner.callback(2)
        assert one == [True]

    def test_an_unhandled_failure_is_reported(self, tracker: DeferredTracker, unhandled: Sequence[LogEvent]) -> None:
        (d,) = put(tracker, 1)
        tracker.deferToAll()
        d.errback(ValueError("nobody looks"))
        assert list(unhandled) == []
        del d
        gc.collect()
        assert [event["log_failure"].type for event in unhandled if event.get("log_failure")] == [ValueError]

    def test_one_that_is_dropped_is_gone_at_once(self, tracker: DeferredTracker) -> None:
        gc.disable()
        try:
            (d,) = put(tracker, 1)
            dropped = ref(d)
            del d
            assert dropped() is None
        finally:
            gc.enable()

    def test_a_waiter_that_awaits_it_gets_its_failure_and_settles_it(
        self, tracker: DeferredTracker, unhandled: Sequence[LogEvent]
    ) -> None:
        ds = put(tracker, 1)

        async def waiter() -> str:
            await tracker.deferToAny()
            try:
                await ds[0]
            except ValueError as error:
                return str(error)
            return "no failure"

        got = results(Deferred.fromCoroutine(waiter()))
        ds[0].errback(ValueError("seen"))
        assert got == ["seen"]
        ds.clear()
        gc.collect()
        assert list(unhandled) == []

    def test_a_waiter_that_chains_to_it_takes_its_failure_over(
        self, tracker: DeferredTracker, unhandled: Sequence[LogEvent]
    ) -> None:
        ds = put(tracker, 1)
        got = results(tracker.deferToAny().addCallback(lambda _: ds[0]))
        ds[0].errback(ValueError("taken over"))
        assert got[0].check(ValueError)
        ds.clear()
        got.clear()
        gc.collect()
        assert list(unhandled) == []


class TestReentrancy:
    N = 100_000

    def test_very_many_may_fire_in_one_turn(self, tracker: DeferredTracker) -> None:
        ds = put(tracker, self.N)
        got = results(tracker.deferToAll())
        for d in ds:
            d.callback(0)
        assert got == [True]

    def test_a_waiter_may_fire_the_next_and_wait_again_for_ever(self, tracker: DeferredTracker) -> None:
        ds = put(tracker, self.N)
        order: list[int] = []

        def fireNext(_: object) -> None:
            order.append(len(ds))
            if ds:
                tracker.deferToAny().addCallback(fireNext)
                ds.pop().callback(0)

        fireNext(None)
        assert order == list(range(self.N, -1, -1))

    def test_a_waiter_may_put_more(self, tracker: DeferredTracker) -> None:
        (d,) = put(tracker, 1)
        tracker.deferToAll().addCallback(lambda _: put(tracker, 1))
        second = results(tracker.deferToAll())
        d.callback(0)
        assert second == [True]
        assert results(tracker.deferToAll()) == []

    def test_a_waiter_may_cancel_one_that_is_about_to_fire(self, tracker: DeferredTracker) -> None:
        (d,) = put(tracker, 1)
        first = tracker.deferToAll()
        second = tracker.deferToAll()
        got = results(second)
        first.addCallback(lambda _: second.cancel())
        d.callback(0)
        assert got[0].check(CancelledError)
        assert tracker.notWaiting()
        assert results(d) == [0]

    def test_a_waiter_that_raises_harms_nobody_else(
        self, tracker: DeferredTracker, unhandled: Sequence[LogEvent]
    ) -> None:
        (d,) = put(tracker, 1)
        bad = results(tracker.deferToAll().addCallback(lambda _: 1 // 0))
        good, result = results(tracker.deferToAll()), results(d)
        d.callback(7)
        assert bad[0].check(ZeroDivisionError)
        assert (good, result) == ([True], [7])
