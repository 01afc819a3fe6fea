"""A thread without a queue's order: `ThreadLooper`, `deferToThread`, and the queue's own `deferToThread`."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, gatherResults, succeed
from twisted.internet.threads import blockingCallFromThread

from asynqueue import Deferator, QueueRunError, ThreadError, ThreadLooper, ThreadQueue, WorkerLost, deferToThread
from asynqueue.reactor.lookup import installedReactor
from asynqueue.threads import PoolUser
from asynqueue.threads import worker as threads
from tests.support import calls as kit
from tests.support.calls import failureOf, inLoop, until
from tests.support.deferreds import logged, outcomes
from tests.unit.threads.test_worker import Gate, Steps, ours, threadName


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A gate that is open in the end, so that no thread waits for ever."""
    gate = Gate()
    yield gate
    gate.open()


class TestALooper:
    @inLoop
    async def test_makes_one_call_after_another_in_one_thread_which_stop_ends(self) -> None:
        looper = ThreadLooper()
        assert ours() == []
        names = await gatherResults([looper.call(threadName) for _ in range(100)])
        assert set(names) == set(ours())
        assert len(ours()) == 1
        await looper.stop()
        assert ours() == []

    @inLoop
    async def test_passes_on_arguments_and_errors(self) -> None:
        looper = ThreadLooper()
        assert await looper.call(int, "ff", base=16) == 255
        assert await looper.deferToThread(dict, f=1, self=2) == {"f": 1, "self": 2}
        error = LookupError("the very one")
        assert await failureOf(looper.call(kit.raiseThis, error)) is error
        assert isinstance(await failureOf(looper.call(sys.exit, 3)), SystemExit)
        assert await looper.call(kit.echo, 5) == 5
        await looper.stop()

    @inLoop
    async def test_what_is_to_be_next_is_done_before_what_waits_first_come_first_served(self, gate: Gate) -> None:
        looper, ran = ThreadLooper(), list[str]()
        looper.call(gate.passThrough)
        calls = [looper.call(ran.append, each, doNext=each.isupper()) for each in "aBcDEf"]
        gate.open()
        await gatherResults(calls)
        assert "".join(ran) == "BDEacf"
        await looper.stop()

    @inLoop
    async def test_an_iterator_comes_as_a_deferator_and_is_closed_in_the_thread(self) -> None:
        looper, steps = ThreadLooper(), Steps(1000)
        iteration = await looper.call(steps.items)
        assert isinstance(iteration, Deferator)
        assert len(set(await kit.drained(iteration))) == 1
        assert steps.closedIn == ours()
        assert list(await looper.call(steps.items, raw=True)) == [threadName()] * 1000
        assert await kit.drained(await looper.deferToThread(Steps(3).items)) == ours() * 3
        await looper.stop()

    @inLoop
    async def test_a_raw_one_gives_iterators_unless_told_otherwise(self) -> None:
        looper, steps = ThreadLooper(raw=True), Steps(3)
        assert not isinstance(await looper.deferToThread(steps.items), Deferator)
        assert isinstance(await looper.call(steps.items, raw=False), Deferator)
        await looper.stop()

    @inLoop
    async def test_an_iterator_that_was_empty_is_known_to_be(self) -> None:
        looper = ThreadLooper()
        assert list(await looper.call(Steps(0).items)) == []
        await looper.stop()

    @inLoop
    async def test_a_call_that_waits_and_is_cancelled_never_runs(self, gate: Gate) -> None:
        looper, ran = ThreadLooper(), list[int]()
        first = looper.call(gate.passThrough)
        calls = [looper.call(ran.append, n) for n in range(10)]
        for n in range(0, 10, 2):
            calls[n].cancel()
            assert str(await failureOf(calls[n])).endswith("was cancelled")
        gate.open()
        await first
        await gatherResults(calls[1::2])
        assert ran == [1, 3, 5, 7, 9]
        assert await looper.call(threadName) == gate.name
        await looper.stop()

    @inLoop
    async def test_a_running_call_that_is_cancelled_leaves_its_thread_to_it_and_a_fresh_one_goes_on(
        self, gate: Gate
    ) -> None:
        looper, ran = ThreadLooper(), list[int]()
        running = looper.call(gate.passThrough)
        calls = [looper.call(ran.append, n) for n in range(100)]
        await until(gate.reached.is_set)
        running.cancel()
        assert isinstance(await failureOf(running), CancelledError)
        await gatherResults(calls)
        assert ran == list(range(100))
        fresh = await looper.call(threadName)
        assert ours() == sorted([f"{gate.name} (abandoned in Gate.passThrough())", fresh])
        gate.open()
        await until(lambda: ours() == [fresh])
        await looper.stop()

    @inLoop
    async def test_a_call_that_is_cancelled_as_it_ends_is_cancelled_all_the_same(self, gate: Gate) -> None:
        looper = ThreadLooper()
        first, second = looper.call(gate.passThrough), looper.call(Steps(3).items)
        gate.open()
        thread: Any = looper._slot._thread  # we look into it
        while len(thread._posted) < 2:  # the reactor has no turn
            assert not first.called
        second.cancel()
        assert isinstance(await failureOf(second), CancelledError)
        assert await first == gate.name
        assert await looper.call(threadName) == gate.name, "nothing ran, so nothing was abandoned"
        await looper.stop()

    @inLoop
    async def test_an_iteration_that_is_cancelled_before_it_is_known_to_have_items_is_closed(self, gate: Gate) -> None:
        looper, closed = ThreadLooper(), list[str]()

        def items() -> Iterator[str]:
            try:
                yield gate.passThrough()
            finally:
                closed.append(threadName())

        opening = looper.call(items)
        await until(gate.reached.is_set)
        opening.cancel()
        assert isinstance(await failureOf(opening), CancelledError)
        gate.open()
        await until(lambda: closed)
        await looper.stop()

    @inLoop
    async def test_stopping_runs_what_was_asked_for_and_takes_nothing_more(self, gate: Gate) -> None:
        looper, ran = ThreadLooper(), list[int]()
        looper.call(gate.passThrough)
        calls = [looper.call(ran.append, n) for n in range(10)]
        first, second = looper.stop(), looper.stop()
        with pytest.raises(ThreadError, match=r"the ThreadLooper is stopped: abs\(-1\) was not run"):
            looper.call(abs, -1)
        assert not first.called
        gate.open()
        await first
        await second
        await gatherResults(calls)
        assert ran == list(range(10))
        await looper.stop()

    @inLoop
    async def test_a_call_may_be_cancelled_while_it_stops(self, gate: Gate) -> None:
        looper, ran = ThreadLooper(), list[int]()
        running = looper.call(gate.passThrough)
        calls = [looper.call(ran.append, n) for n in range(10)]
        await until(gate.reached.is_set)
        stopped = looper.stop()
        running.cancel()
        await failureOf(running)
        await stopped
        await gatherResults(calls)
        assert ran == list(range(10))
        assert ours() == [f"{gate.name} (abandoned in Gate.passThrough())"]

    @inLoop
    async def test_what_iterates_ends_with_it(self) -> None:
        looper, steps = ThreadLooper(), Steps(1000)
        iteration = await looper.call(steps.items)
        await iteration.__anext__()
        await looper.stop()
        with pytest.raises(WorkerLost, match="its thread has ended"):
            await kit.drained(iteration)
        assert len(steps.closedIn) == 1

    @inLoop
    async def test_a_coroutine_is_not_waited_for(self) -> None:
        async def later() -> None:
            raise AssertionError("nobody waits for this")

        looper = ThreadLooper()
        assert "returned a coroutine" in str(await failureOf(looper.deferToThread(later)))
        await looper.stop()


class TestDeferToThread:
    @inLoop
    async def test_shares_one_thread_from_the_first_call_to_the_one_with_no_arguments(self) -> None:
        assert ours() == []
        names = await gatherResults([deferToThread(threadName) for _ in range(10)])
        assert [*set(names)] == ours()
        await deferToThread()
        assert ours() == []
        await deferToThread()
        assert await deferToThread(threadName) not in names
        await deferToThread()

    @inLoop
    async def test_passes_on_every_argument_and_iterates(self) -> None:
        assert await deferToThread(dict[str, int], f=1, self=2) == {"f": 1, "self": 2}
        assert await kit.drained(await deferToThread(Steps(3).items)) == ours() * 3
        await deferToThread()

    def test_ends_with_the_reactor_though_it_is_stuck(self) -> None:
        program = """
import signal, threading
from twisted.internet import reactor
from asynqueue import deferToThread
def stick():
    reactor.callFromThread(reactor.stop)
    threading.Event().wait()
def told(reason):
    print(reason.value)
deferToThread(stick).addErrback(told)
deferToThread(print, "never").addErrback(told)
reactor.run()
print([t.name for t in threading.enumerate() if "stick" in t.name])
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr == ""
        assert done.stdout.splitlines() == [
            "stick() was lost: the reactor has stopped",
            "print('never') was lost: the reactor has stopped",
            "['asynqueue-thread-1 (abandoned in stick())']",
        ]


class TestTheQueuesOwn:
    @inLoop
    async def test_runs_in_the_queues_thread_before_all_that_waits_in_the_queue(self, gate: Gate) -> None:
        async with ThreadQueue() as queue:
            ran: list[str] = []
            running = queue.call(gate.passThrough)
            calls = [queue.call(ran.append, each) for each in "abcdef"]
            direct = queue.deferToThread(ran.append, "direct")
            gate.open()
            await direct
            await gatherResults(calls)
            assert ran == ["direct", *"abcdef"]
            assert await queue.deferToThread(threadName) == await running

    @inLoop
    async def test_goes_to_the_thread_that_has_the_least_to_do(self, gate: Gate) -> None:
        async with ThreadQueue(workers=2) as queue:
            running = queue.call(gate.passThrough)
            await until(gate.reached.is_set)
            assert await queue.deferToThread(threadName) != gate.name
            gate.open()
            await running

    @inLoop
    async def test_outlives_the_abandonment_of_the_thread_it_waited_for(self, gate: Gate) -> None:
        async with ThreadQueue() as queue:
            updates: list[str] = []
            await queue.update(lambda: updates.append(threadName()))
            running = queue.call(gate.passThrough)
            await until(gate.reached.is_set)
            direct = queue.deferToThread(lambda: (threadName(), len(updates)))
            running.cancel()
            await failureOf(running)
            assert await direct == (updates[1], 2), "a fresh thread has run the updates first"

    @inLoop
    async def test_one_that_is_cancelled_while_it_runs_takes_nothing_else_with_it(self, gate: Gate) -> None:
        async with ThreadQueue() as queue:
            direct = queue.deferToThread(gate.passThrough)
            await until(gate.reached.is_set)
            ran: list[int] = []
            calls = [queue.call(ran.append, n) for n in range(20)]
            direct.cancel()
            assert isinstance(await failureOf(direct), CancelledError)
            await gatherResults(calls)
            assert ran == list(range(20))

    @inLoop
    async def test_fails_when_its_worker_is_made_to_crash(self, gate: Gate) -> None:
        async with ThreadQueue() as queue:
            direct = queue.deferToThread(gate.passThrough)
            await until(gate.reached.is_set)
            failed = failureOf(direct)
            await queue.detachWorker(queue.workers()[0], crash=True)
            assert str(await Deferred.fromCoroutine(failed)).endswith("was lost: its thread was abandoned")
            with pytest.raises(QueueRunError, match="the queue has no thread"):
                queue.deferToThread(abs, -1)

    @inLoop
    async def test_is_waited_for_by_shutdown_which_takes_no_more(self, gate: Gate) -> None:
        queue = ThreadQueue()
        direct = queue.deferToThread(gate.passThrough)
        down = queue.shutdown()
        with pytest.raises(QueueRunError, match=r"the queue is not running: abs\(-1\) was not run"):
            queue.deferToThread(abs, -1)
        await until(gate.reached.is_set)
        assert not down.called
        gate.open()
        await down
        assert await direct == gate.name

    @inLoop
    async def test_of_a_raw_queue_gives_iterators_as_they_are(self) -> None:
        async with ThreadQueue(raw=True) as queue:
            assert not isinstance(await queue.deferToThread(Steps(3).items), Deferator)


class TestAnAbandonedIteration:
    @inLoop
    async def test_that_raises_as_it_is_closed_is_logged(self, gate: Gate) -> None:
        def items() -> Iterator[int]:
            try:
                yield from range(1000)
            finally:
                raise LookupError("while it was closed")

        with logged() as events:
            async with ThreadQueue() as queue:
                iteration = await queue.call(items)
                running = queue.call(gate.passThrough)
                await until(gate.reached.is_set)
                running.cancel()
                await failureOf(running)
                with pytest.raises(WorkerLost):
                    await kit.drained(iteration)
                gate.open()
                await until(lambda: events)
        assert [event["log_failure"].type for event in events] == [LookupError]

    @inLoop
    async def test_that_was_stopped_and_raises_then_is_logged(self) -> None:
        def items() -> Iterator[int]:
            try:
                yield from range(1000)
            finally:
                raise LookupError("while it was closed")

        with logged() as events:
            async with ThreadQueue() as queue:
                iteration = await queue.call(items)
                iteration.stop()
                assert outcomes(iteration.d) == [False]
                await until(lambda: events)
        assert [event["log_failure"].type for event in events] == [LookupError]


def test_the_bridges_are_in_the_threads_module_and_cost_nothing_until_asked_for() -> None:
    program = """
import sys
from asynqueue import threads
assert "asynqueue.bridges" not in sys.modules and "asynqueue.bridges.threadpool" not in sys.modules
from asynqueue.threads import Consumerator, Filerator, IterationGetter, OrderedItemProducer, PoolUser
from asynqueue import bridges
assert Consumerator is bridges.Consumerator
"""
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)
    with pytest.raises(AttributeError, match="has no attribute 'Consumerater'"):
        _ = threads.Consumerater  # type: ignore[attr-defined]  # that is the point


class TestADeferredThatACallReturns:
    """It fires in the reactor's thread, while the thread of the call makes others."""

    @inLoop
    async def test_is_waited_for_while_the_thread_goes_on(self) -> None:
        looper, later = ThreadLooper(), Deferred[int]()
        first = looper.call(lambda: later)
        assert await looper.call(threadName) in ours()
        assert not first.called
        later.callback(5)
        assert await first == 5
        await looper.stop()

    @inLoop
    async def test_may_have_fired_and_may_fail(self) -> None:
        looper = ThreadLooper()
        assert await looper.deferToThread(succeed, 5) == 5
        assert str(await failureOf(looper.deferToThread(fail, KeyError("here")))) == "'here'"
        assert list(await looper.call(succeed, iter("ab"))) == ["a", "b"]
        await looper.stop()

    @inLoop
    async def test_is_cancelled_with_the_call_and_its_thread_stays(self) -> None:
        looper, cancelled = ThreadLooper(), list[Any]()
        d: Deferred[Any] = looper.call(lambda: Deferred(cancelled.append))
        name = await looper.call(threadName)
        d.cancel()
        assert isinstance(await failureOf(d), CancelledError)
        assert len(cancelled) == 1
        assert await looper.call(threadName) == name
        await looper.stop()

    @inLoop
    async def test_is_waited_for_by_a_queue_and_by_the_pool(self) -> None:
        queue = ThreadQueue()
        later: list[Deferred[int]] = [Deferred(), Deferred()]
        calls = [queue.call(lambda: later[0]), queue.deferToThread(lambda: later[1], doNext=True)]
        await queue.call(threadName)
        for n, each in enumerate(later):
            each.callback(n)
        assert await gatherResults(calls) == [0, 1]
        pooled: Any = await PoolUser.deferToThreadInPool(succeed, 5)
        assert pooled == 5
        assert isinstance(await failureOf(PoolUser.deferToThreadInPool(fail, KeyError())), KeyError)
        await PoolUser.shutdown()
        await queue.shutdown()

    @inLoop
    async def test_is_waited_for_by_an_update_and_by_a_shutdown(self) -> None:
        queue, later = ThreadQueue(workers=2), Deferred[int]()
        assert await queue.update(succeed, 5) == [5, 5]
        assert isinstance(await failureOf(queue.update(fail, KeyError())), KeyError)
        d = queue.call(lambda: later)
        await queue.call(threadName)
        stopped = queue.shutdown()
        await until(lambda: not ours())
        assert not stopped.called
        later.callback(5)
        await stopped
        assert await d == 5

    @inLoop
    async def test_may_depend_on_another_call_of_the_thread(self) -> None:
        reactor: Any = installedReactor(None)
        queue = ThreadQueue()

        def nested() -> Deferred[str]:
            made: list[Deferred[str]] = blockingCallFromThread(reactor, lambda: [queue.call(threadName)])
            return made[0]

        assert await queue.call(nested) in ours()
        await queue.shutdown()

    @inLoop
    async def test_is_cancelled_with_the_call_in_a_queue_and_when_a_shutdown_ends_the_wait(self) -> None:
        cancelled: list[Any] = []
        for end in "cancel", "timeout":
            queue = ThreadQueue(timeout=0.01)
            d: Deferred[Any] = queue.call(lambda: Deferred(cancelled.append))
            await queue.call(threadName)
            stopped = queue.shutdown()
            if end == "cancel":
                d.cancel()
            assert isinstance(await failureOf(d), CancelledError)
            await stopped
        assert len(cancelled) == 2


class TestOptions:
    @inLoop
    async def test_of_deferToThread_of_a_looper_and_of_the_module(self) -> None:
        looper, gate, order = ThreadLooper(), threading.Event(), list[int]()
        calls: list[Deferred[Any]] = [looper.deferToThread(gate.wait), looper.deferToThread(order.append, 1)]
        calls.append(looper.deferToThread(order.append, 2, doNext=True))
        gate.set()
        await gatherResults(calls)
        assert order == [2, 1]
        assert isinstance(await deferToThread(iter, "ab", raw=True), Iterator)
        assert await kit.drained(await deferToThread(iter, "ab")) == ["a", "b"]
        await deferToThread()
        await looper.stop()
