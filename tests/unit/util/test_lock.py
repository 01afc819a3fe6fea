"""`DeferredLock`: Twisted's, VIPs first, and an end."""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, succeed
from twisted.internet.defer import DeferredLock as TwistedLock
from twisted.logger import capturedLogs

from asynqueue.errors import AsynQueueError
from asynqueue.util import DeferredLock


def results(d: Deferred[Any]) -> list[Any]:
    """The results that D has had, kept up to date."""
    got: list[Any] = []
    d.addBoth(got.append)
    return got


@pytest.fixture
def lock() -> DeferredLock:
    return DeferredLock()


class TestAcquiring:
    def test_it_is_twisteds(self, lock: DeferredLock) -> None:
        assert isinstance(lock, TwistedLock)

    def test_a_free_lock_is_had_at_once(self, lock: DeferredLock) -> None:
        assert results(lock.acquire()) == [lock]
        assert lock.locked
        lock.release()
        assert not lock.locked

    def test_vips_go_first_and_each_line_is_first_come_first_served(self, lock: DeferredLock) -> None:
        order: list[str] = []
        lock.acquire()
        for name in ("a", "B", "c", "D"):
            lock.acquire(vip=name.isupper()).addCallback(lambda _, name: order.append(name), name)
        for expected in (["B"], ["B", "D"], ["B", "D", "a"], ["B", "D", "a", "c"]):
            lock.release()
            assert order == expected
        assert lock.locked
        lock.release()
        assert not lock.locked

    def test_who_waits_can_be_seen(self, lock: DeferredLock) -> None:
        lock.acquire()
        ordinary, vip = lock.acquire(), lock.acquire(vip=True)
        assert lock.waiting == [vip, ordinary]

    def test_to_release_what_nobody_holds_is_an_error(self, lock: DeferredLock) -> None:
        with pytest.raises(AsynQueueError, match="released a lock that is not held"):
            lock.release()
        assert results(lock.acquire()) == [lock]

    def test_a_waiter_that_cancels_is_passed_over(self, lock: DeferredLock) -> None:
        lock.acquire()
        first, second = lock.acquire(), lock.acquire()
        gotFirst, gotSecond = results(first), results(second)
        first.cancel()
        assert gotFirst[0].check(CancelledError)
        lock.release()
        assert gotSecond == [lock]

    def test_one_that_cancels_as_it_is_about_to_get_the_lock_lets_it_pass(self, lock: DeferredLock) -> None:
        lock.acquire()
        second = lock.acquire()
        gotSecond = results(second)

        def releaseAndCancel(_: object) -> None:
            lock.release()
            second.cancel()

        first = lock.acquire(vip=True).addCallback(releaseAndCancel)
        third = results(lock.acquire())
        lock.release()
        assert results(first) == [None]
        assert gotSecond[0].check(CancelledError)
        assert third == [lock]

    def test_very_many_waiters_may_release_in_one_turn(self, lock: DeferredLock) -> None:
        served: list[int] = []
        lock.acquire()

        def serve(lock: DeferredLock, i: int) -> None:
            served.append(i)
            lock.release()

        for i in range(100_000):
            lock.acquire().addCallback(serve, i)
        lock.release()
        assert served == list(range(100_000))
        assert not lock.locked

    @pytest.mark.usefixtures("unhandled")
    def test_a_holders_unhandled_failure_is_reported_while_it_holds(self, lock: DeferredLock) -> None:
        with capturedLogs() as events:
            d = lock.acquire().addCallback(lambda _: 1 // 0)
            del d
            gc.collect()
        assert [e["log_failure"].type for e in events if e.get("log_failure")] == [ZeroDivisionError]


class TestRunning:
    @pytest.mark.parametrize("method", ["run", "acquireAndRelease"])
    def test_a_call_has_the_lock_until_its_deferred_fires(self, lock: DeferredLock, method: str) -> None:
        going: Deferred[int] = Deferred()
        seen: list[object] = []

        def f(*args: object, **kw: object) -> Deferred[int]:
            seen.extend([lock.locked, args, kw])
            return going

        got = results(getattr(lock, method)(f, 1, two=2))
        assert seen == [True, (1,), {"two": 2}]
        assert got == []
        assert lock.locked
        going.callback(3)
        assert got == [3]
        assert not lock.locked

    @pytest.mark.parametrize("method", ["run", "acquireAndRelease"])
    def test_a_call_that_raises_releases(self, lock: DeferredLock, method: str) -> None:
        got = results(getattr(lock, method)(lambda: 1 // 0))
        assert got[0].check(ZeroDivisionError)
        assert not lock.locked

    def test_a_vip_call_goes_first_and_does_not_get_to_see_it(self, lock: DeferredLock) -> None:
        order: list[str] = []
        lock.acquire()
        lock.acquireAndRelease(order.append, "ordinary")
        lock.acquireAndRelease(order.append, "vip", vip=True)
        lock.release()
        assert order == ["vip", "ordinary"]

    def test_a_coroutine_is_welcome(self, lock: DeferredLock) -> None:
        async def f(x: int) -> int:
            return await succeed(x)

        assert results(lock.acquireAndRelease(f, 4)) == [4]


class TestContext:
    def test_it_is_held_within_and_released_after(self, lock: DeferredLock) -> None:
        seen: list[bool] = []

        @inlineCallbacks
        def use() -> Generator[Deferred[Any], Any, None]:
            with lock.context() as d:
                yield d
                seen.append(lock.locked)

        assert results(use()) == [None]
        assert seen == [True]
        assert not lock.locked

    def test_it_is_released_after_an_exception(self, lock: DeferredLock) -> None:
        with pytest.raises(ZeroDivisionError), lock.context():
            print(1 // len(lock.waiting))
        assert not lock.locked

    def test_left_before_the_lock_came_it_is_withdrawn(self, lock: DeferredLock) -> None:
        lock.acquire()
        with lock.context() as d:
            got = results(d)
        assert got[0].check(CancelledError)
        lock.release()
        assert not lock.locked

    def test_that_it_never_came_is_no_unhandled_error(self, lock: DeferredLock) -> None:
        lock.acquire()
        with capturedLogs() as events:
            with lock.context():
                pass
            gc.collect()
        assert list(events) == []

    def test_released_within_it_takes_the_lock_from_nobody(self, lock: DeferredLock) -> None:
        with lock.context():
            other = results(lock.acquire())
            lock.release()
            assert other == [lock]
        assert lock.locked

    def test_it_has_a_vip_line(self, lock: DeferredLock) -> None:
        lock.acquire()
        ordinary = results(lock.acquire())
        with lock.context(vip=True) as d:
            got = results(d)
            lock.release()
            assert (got, ordinary) == ([lock], [])
        assert ordinary == [lock]

    def test_it_is_an_async_context_too(self, lock: DeferredLock) -> None:
        lock.acquire()
        seen: list[object] = []

        async def use() -> str:
            async with lock.context() as held:
                seen.append((held, lock.locked))
                return "done"

        got = results(Deferred.fromCoroutine(use()))
        assert (got, seen) == ([], [])
        lock.release()
        assert (got, seen) == (["done"], [(lock, True)])
        assert not lock.locked

    def test_cancelled_while_it_waits_it_is_withdrawn(self, lock: DeferredLock) -> None:
        lock.acquire()

        async def use() -> None:
            async with lock.context():
                raise AssertionError("never had")

        d = Deferred.fromCoroutine(use())
        got = results(d)
        d.cancel()
        assert got[0].check(CancelledError)
        lock.release()
        assert not lock.locked

    def test_it_is_for_one_use(self, lock: DeferredLock) -> None:
        context = lock.context()
        with context, pytest.raises(AsynQueueError, match="has been entered"):
            context.__enter__()
        assert not lock.locked

    def test_the_lock_itself_is_an_async_context(self, lock: DeferredLock) -> None:
        async def use() -> bool:
            async with lock:
                return lock.locked

        assert results(Deferred.fromCoroutine(use())) == [True]
        assert not lock.locked


class TestStopping:
    def test_it_goes_before_others_and_runs_the_stoppers_in_order(self, lock: DeferredLock) -> None:
        order: list[str] = []
        slow: Deferred[None] = Deferred()

        def stopper(name: str, *, wait: bool) -> Deferred[None] | None:
            order.append(name)
            return slow if wait else None

        lock.addStopper(stopper, "first", wait=True)
        lock.addStopper(stopper, "second", wait=False)
        lock.acquire()
        lock.acquire().addCallback(lambda _: order.append("waiter"))
        got = results(lock.stop())
        assert order == []
        lock.release()
        assert order == ["first"]
        assert lock.locked
        assert got == []
        slow.callback(None)
        assert order == ["first", "second", "waiter"]
        assert got == [None]

    def test_after_it_every_acquire_is_immediate_and_release_is_nothing(self, lock: DeferredLock) -> None:
        assert results(lock.stop()) == [None]
        for _ in range(3):
            assert results(lock.acquire()) == [lock]
        assert not lock.locked
        lock.release()
        assert results(lock.run(lambda: 5)) == [5]

    def test_an_acquire_while_stoppers_run_waits_for_them(self, lock: DeferredLock) -> None:
        slow: Deferred[None] = Deferred()
        lock.addStopper(lambda: slow)
        lock.stop()
        late = results(lock.acquire(vip=True))
        with pytest.raises(AsynQueueError, match="held to run its stoppers"):
            lock.release()
        assert late == []
        slow.callback(None)
        assert late == [lock]

    def test_to_stop_again_is_to_wait_for_the_same_end(self, lock: DeferredLock) -> None:
        calls: list[int] = []
        lock.addStopper(calls.append, 1)
        lock.acquire()
        first, second = results(lock.stop()), results(lock.stop())
        assert (first, second) == ([], [])
        lock.release()
        assert (first, second, calls) == ([None], [None], [1])
        assert results(lock.stop()) == [None]
        assert calls == [1]

    def test_to_cancel_it_stops_nothing(self, lock: DeferredLock) -> None:
        calls: list[int] = []
        lock.addStopper(calls.append, 1)
        lock.acquire()
        d = lock.stop()
        cancelled, other = results(d), results(lock.stop())
        d.cancel()
        lock.release()
        assert cancelled[0].check(CancelledError)
        assert (other, calls) == ([None], [1])

    def test_a_stopper_that_fails_is_logged_and_the_rest_run(self, lock: DeferredLock) -> None:
        calls: list[int] = []
        lock.addStopper(lambda: 1 // 0)
        lock.addStopper(sys.exit, 3)
        lock.addStopper(calls.append, 2)
        with capturedLogs() as events:
            assert results(lock.stop()) == [None]
        assert calls == [2]
        assert [e["log_failure"].type for e in events if "log_failure" in e] == [ZeroDivisionError, SystemExit]
        assert events[0]["log_namespace"] == "asynqueue"

    def test_a_stopper_added_to_a_stopped_lock_runs_at_once(self, lock: DeferredLock) -> None:
        calls: list[int] = []
        lock.stop()
        lock.addStopper(calls.append, 1)
        assert calls == [1]


class TestWithoutAFunction:
    @pytest.mark.parametrize("vip", [False, True])
    def test_it_waits_for_its_turn_and_releases(self, vip: bool) -> None:
        lock = DeferredLock(allowZombies=True)
        lock.acquire()
        order: list[str] = []
        lock.acquireAndRelease().addCallback(lambda _: order.append("first"))
        lock.acquireAndRelease(vip).addCallback(lambda _: order.append("second"))
        lock.acquireAndRelease(vip=vip).addCallback(lambda _: order.append("third"))
        assert order == []
        lock.release()
        assert order == (["second", "third", "first"] if vip else ["first", "second", "third"])
        assert not lock.locked

    def test_something_that_cannot_be_called_is_refused(self, lock: DeferredLock) -> None:
        with pytest.raises(TypeError, match="must be callable, got 5"):
            lock.acquireAndRelease(5)  # type: ignore[call-overload]  # that is the point
        assert not lock.locked
