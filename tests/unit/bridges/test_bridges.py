"""Bridges between the loop and real threads: what passes, who holds, and each way in which it ends."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator
from random import Random
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IConsumer, IPushProducer, IReactorFromThreads, IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from asynqueue import ThreadLooper, ThreadQueue
from asynqueue.bridges import Consumerator, Filerator, IterationGetter, OrderedItemProducer, PoolUser
from asynqueue.errors import ImplementationError, ThreadError
from tests.support.deferreds import errorOf, outcomes, resultOf


@pytest.fixture(autouse=True)
def noPool() -> Iterator[None]:
    """Leave no thread, and how many there may be as it was."""
    most = PoolUser.maxThreads
    yield
    pytest_twisted.blockon(PoolUser.shutdown())
    PoolUser.setup(most)


class Hook:
    """What a reactor has for bridges; nothing happens before the test says so."""

    running = False

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.triggers: dict[object, tuple[Any, ...]] = {}

    def callFromThread(self, f: Any, *args: Any) -> None:
        self.calls.append((f, args))

    def addSystemEventTrigger(self, phase: str, event: str, f: Any, *args: Any) -> object:
        assert (phase, event) == ("before", "shutdown")
        self.triggers[trigger := object()] = (f, *args)
        return trigger

    def removeSystemEventTrigger(self, trigger: object) -> None:
        del self.triggers[trigger]

    def turn(self) -> None:
        while self.calls:
            f, args = self.calls.pop(0)
            f(*args)

    def stop(self) -> None:
        while self.triggers:
            f, *args = self.triggers.pop(next(iter(self.triggers)))
            f(*args)


class Numbers:
    """A producer of 0 ... COUNT - 1, which notes what it is told."""

    def __init__(self, consumer: Consumerator[int], count: int, streaming: bool, perResume: int = 1) -> None:
        self.consumer, self.count, self.streaming, self.perResume = consumer, count, streaming, perResume
        self.told: list[str] = []
        self.next = 0
        self.writing = streaming
        consumer.registerProducer(self, streaming)

    def produce(self, most: int | None = None) -> None:
        """Write up to MOST, while it may."""
        until = self.count if most is None else min(self.count, self.next + most)
        while self.writing and self.next < until:
            self.next += 1
            self.consumer.write(self.next - 1)
        if self.next == self.count and self.writing:
            self.writing = False
            self.consumer.unregisterProducer()

    def pauseProducing(self) -> None:
        self.told.append("pause")
        self.writing = False

    def resumeProducing(self) -> None:
        self.told.append("resume")
        self.writing = True
        self.produce(None if self.streaming else self.perResume)
        self.writing = self.writing and self.streaming

    def stopProducing(self) -> None:
        self.told.append("stop")
        self.writing = False


class Gate:
    """Where a thread stops until the loop opens it, and tells the loop that it is there."""

    def __init__(self) -> None:
        self.reached: Deferred[None] = Deferred()
        self._event = threading.Event()

    def wait(self) -> None:
        from twisted.internet import reactor

        IReactorFromThreads(reactor).callFromThread(self.reached.callback, None)
        assert self._event.wait(20)

    def open(self) -> None:
        self._event.set()


def itself(d: Deferred[int]) -> Deferred[int]:
    """A call that makes what D will be."""
    return d


async def turns(count: int = 3) -> None:
    """Let what is about to happen in the loop happen."""
    from twisted.internet import reactor

    for _ in range(count):
        await deferLater(IReactorTime(reactor), 0)


def seenWaiting(condition: threading.Condition) -> threading.Event:
    """Is set when a thread waits on CONDITION. It has the lock still, so nobody can wake it too early."""
    seen = threading.Event()
    wait = condition.wait

    def tell() -> bool:
        seen.set()
        return wait()

    condition.wait = tell  # type: ignore[method-assign,assignment]  # for the test to see it
    return seen


def first(items: Iterable[int], count: int) -> list[int]:
    """The first COUNT, by a loop that is left early."""
    got: list[int] = []
    for item in items:
        got.append(item)
        if len(got) == count:
            break
    return got


def raiseAt(items: Iterable[int], bad: int) -> None:
    for item in items:
        if item == bad:
            raise KeyError(item)


class TestConsumerator:
    def test_is_an_IConsumer(self) -> None:
        assert verifyObject(IConsumer, Consumerator[int]())

    @pytest.mark.parametrize("streaming", [True, False])
    @pytest_twisted.ensureDeferred
    async def test_passes_very_many_in_order_and_never_holds_many(self, streaming: bool) -> None:
        c = Consumerator[int](limit=16)
        most = 0

        def check(items: Iterator[int]) -> int:
            nonlocal most
            count = 0
            for item in items:
                assert item == count
                count += 1
                most = max(most, producer.next - item)
            return count

        d = c.runInThread(check)
        producer = Numbers(c, 100_000, streaming)
        producer.produce()
        assert await d == 100_000
        assert await c.deferUntilDone()
        assert most <= 2 * 16 + 1
        assert "stop" not in producer.told

    @pytest_twisted.ensureDeferred
    async def test_is_iterated_in_any_thread(self) -> None:
        c = Consumerator[int]()
        d: Deferred[list[int]] = deferToThread(list, c)
        Numbers(c, 10, True).produce()
        assert await d == list(range(10))

    def test_pauses_and_resumes_a_streaming_producer(self) -> None:
        reactor = Hook()
        c = Consumerator[int](limit=4, reactor=reactor)
        p = Numbers(c, 100, True)
        p.produce()
        assert (p.told, p.next) == (["pause"], 4)
        assert next(c) == 0
        assert (p.told, p.next) == (["pause"], 4)
        reactor.turn()
        assert (p.told, p.next) == (["pause", "resume", "pause"], 8)
        assert [next(c) for _ in range(3)] == [1, 2, 3]
        reactor.turn()
        assert p.next == 8
        assert next(c) == 4
        reactor.turn()
        assert (p.told, p.next) == (["pause", "resume", "pause", "resume", "pause"], 12)

    def test_resumes_a_pulled_producer_for_each_write(self) -> None:
        reactor = Hook()
        c = Consumerator[int](limit=4, reactor=reactor)
        p = Numbers(c, 100, False)
        reactor.turn()
        assert (p.told, p.next) == (["resume"] * 4, 4)

    def test_waits_for_a_pulled_producer_that_writes_later(self) -> None:
        reactor = Hook()
        c = Consumerator[int](limit=4, reactor=reactor)
        p = Numbers(c, 100, False, perResume=0)
        assert p.told == ["resume"]
        c.write(0)
        reactor.turn()
        assert p.told == ["resume", "resume"]

    def test_resumes_for_a_slice_of_time_and_then_lets_the_loop_turn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("asynqueue.bridges.base.SLICE", -1.0)
        reactor = Hook()
        p = Numbers(Consumerator[int](limit=4, reactor=reactor), 100, False)
        assert p.told == ["resume"]
        assert len(reactor.calls) == 1
        reactor.turn()
        assert p.told == ["resume"] * 4

    def test_a_loop_that_was_left_is_the_last(self) -> None:
        """In the very thread that left it, before the loop has heard of that."""
        c = Consumerator[int](reactor=(reactor := Hook()))
        for item in range(5):
            c.write(item)
        assert first(c, 2) == [0, 1]
        assert list(c) == []
        reactor.turn()
        assert resultOf(c.deferUntilDone()) is False

    def test_has_one_producer_at_a_time(self) -> None:
        c = Consumerator[int](reactor=Hook())
        p = Numbers(c, 1, True)
        with pytest.raises(RuntimeError, match="has a producer"):
            c.registerProducer(p, True)

    def test_takes_one_at_birth(self) -> None:
        c = Consumerator[int](reactor=Hook())
        other = Numbers(c, 1, True)
        made = Consumerator[int](other, limit=1, reactor=Hook())
        made.write(1)
        assert other.told == ["pause"]

    @pytest_twisted.ensureDeferred
    async def test_a_thread_that_leaves_its_loop_ends_it(self) -> None:
        c = Consumerator[int](limit=4)
        p = Numbers(c, 1000, True)
        p.produce()
        assert await deferToThread(first, c, 3) == [0, 1, 2]
        assert not await c.deferUntilDone()
        assert p.told[-1] == "stop"
        assert p.told.count("stop") == 1

    @pytest.mark.parametrize("streaming", [True, False])
    @pytest_twisted.ensureDeferred
    async def test_a_producer_without_end_is_stopped_when_the_thread_leaves(self, streaming: bool) -> None:
        c = Consumerator[int](limit=64)
        d = deferToThread(first, c, 10_000)
        p = Numbers(c, 10**15, streaming)
        p.produce()
        assert await d == list(range(10_000))
        assert not await c.deferUntilDone()
        assert p.told[-1] == "stop"

    @pytest_twisted.ensureDeferred
    async def test_a_thread_that_raises_ends_it(self) -> None:
        c = Consumerator[int](limit=4)
        p = Numbers(c, 1000, True)
        p.produce()
        with pytest.raises(KeyError):
            await deferToThread(raiseAt, c, 7)
        assert not await c.deferUntilDone()
        assert p.told[-1] == "stop"

    @pytest_twisted.ensureDeferred
    async def test_a_function_that_returns_ends_it_though_its_loop_went_on(self) -> None:
        """A reader that somebody still holds goes on after a break; but not after the function is over."""
        c = Consumerator[int](limit=4)
        p = Numbers(c, 1000, True)
        p.produce()
        kept: list[Iterator[int]] = []

        def twice(items: Iterator[int]) -> list[int]:
            kept.append(items)
            return first(items, 2) + first(items, 2)

        assert await c.runInThread(twice) == [0, 1, 2, 3]
        assert not await c.deferUntilDone()
        assert p.told[-1] == "stop"
        assert list(kept[0]) == []

    @pytest_twisted.ensureDeferred
    async def test_a_thread_that_stops_ends_it(self) -> None:
        c = Consumerator[int](limit=4)
        p = Numbers(c, 1000, True)
        p.produce()

        def use() -> tuple[int, list[int]]:
            item = next(c)
            c.stop()
            return item, list(c)

        assert await deferToThread(use) == (0, [])
        assert not await c.deferUntilDone()
        assert p.told[-1] == "stop"

    @pytest_twisted.ensureDeferred
    async def test_one_of_two_threads_may_leave(self) -> None:
        c = Consumerator[int](limit=4)
        gate = Gate()

        def rest() -> list[int]:
            items = iter(c)
            got = [next(items)]
            gate.wait()
            return got + list(items)

        d = deferToThread(rest)
        p = Numbers(c, 50, True)
        p.produce()
        await gate.reached
        got = await deferToThread(first, c, 5)
        gate.open()
        assert sorted(got + await d) == list(range(50))
        assert await c.deferUntilDone()

    @pytest_twisted.ensureDeferred
    async def test_stop_in_the_loop_ends_it_after_what_was_written(self) -> None:
        c = Consumerator[int](limit=4)
        p = Numbers(c, 1000, True)
        p.produce()
        c.stop()
        assert p.told == ["pause", "stop"]
        c.write(99)
        assert await c.runInThread(list) == [0, 1, 2, 3]
        assert await c.deferUntilDone()

    @pytest_twisted.ensureDeferred
    async def test_stop_in_the_loop_wakes_a_thread_that_waits(self) -> None:
        c = Consumerator[int]()
        d = c.runInThread(list)
        await _isWaiting(c)
        c.stop()
        assert await d == []

    @pytest_twisted.ensureDeferred
    async def test_a_failure_comes_after_what_was_written(self) -> None:
        c = Consumerator[int]()
        got: list[int] = []

        def read(items: Iterator[int]) -> None:
            for item in items:
                got.append(item)

        d = c.runInThread(read)
        c.write(1)
        c.write(2)
        c.fail(LookupError("no more"))
        with pytest.raises(LookupError, match="no more"):
            await d
        assert got == [1, 2]
        assert not await c.deferUntilDone()

    @pytest.mark.parametrize("method", ["pauseProducing", "resumeProducing", "stopProducing"])
    @pytest_twisted.ensureDeferred
    async def test_a_producer_that_raises_ends_it_with_that(self, method: str) -> None:
        c = Consumerator[int](limit=2)
        p = Numbers(c, 1000, True)

        def fail() -> None:
            raise ZeroDivisionError

        setattr(p, method, fail)
        p.produce(2)
        if method == "stopProducing":
            await deferToThread(first, c, 1)
        else:
            with pytest.raises(ZeroDivisionError):
                await c.runInThread(list)
        assert not await c.deferUntilDone()

    @pytest_twisted.ensureDeferred
    async def test_is_over_for_a_producer_that_comes_late(self) -> None:
        c = Consumerator[int]()
        c.leave()
        p = Numbers(c, 10, True)
        assert p.told == ["stop"]
        assert not await c.deferUntilDone()

    @pytest_twisted.ensureDeferred
    async def test_cannot_block_the_loop(self) -> None:
        c = Consumerator[int]()
        with pytest.raises(RuntimeError, match="async for"):
            next(c)
        c.leave()

    def test_a_reactor_that_stops_wakes_the_thread(self) -> None:
        reactor = Hook()
        c = Consumerator[int](reactor=reactor)
        raised: list[BaseException] = []

        def read() -> None:
            try:
                list(c)
            except ThreadError as error:
                raised.append(error)

        waiting = seenWaiting(c._arrival)
        thread = threading.Thread(target=read)
        thread.start()
        assert waiting.wait(20)
        p = Numbers(c, 10, True)
        reactor.stop()
        thread.join(20)
        assert not thread.is_alive()
        assert "the reactor has stopped" in str(raised[0])
        assert p.told == ["stop"]
        assert resultOf(c.deferUntilDone()) is False

    def test_leaves_no_trigger(self) -> None:
        reactor = Hook()
        c = Consumerator[int](reactor=reactor)
        done = outcomes(c.deferUntilDone())
        assert len(reactor.triggers) == 1
        c.unregisterProducer()
        assert done == []
        assert list(c) == []
        reactor.turn()
        assert done == [True]
        assert reactor.triggers == {}

    def test_who_forgets_it_keeps_nothing_alive_by_the_trigger(self) -> None:
        reactor = Hook()
        c = Consumerator[int](reactor=reactor)
        there = weakref.ref(c)
        del c
        gc.collect()
        assert there() is None
        reactor.stop()


async def _isWaiting(bridge: Consumerator[Any] | Filerator[Any], room: bool = False) -> None:
    """A thread waits, for an item or for room."""
    condition = bridge._room if room else bridge._arrival
    while not condition._waiters:  # type: ignore[attr-defined]  # there is no public way to see it
        await turns(1)


class TestFilerator:
    @pytest_twisted.ensureDeferred
    async def test_from_a_thread_to_the_loop(self) -> None:
        f = Filerator[int](limit=16)
        most = 0

        def write() -> None:
            nonlocal most
            for number in range(20_000):
                f.write(number)
                most = max(most, len(f._flow))
            f.close()

        d = PoolUser.deferToThreadInPool(write)
        count = 0
        async for item in f:
            assert item == count
            count += 1
        await d
        assert count == 20_000
        assert most <= 16
        assert await f.deferUntilDone()

    @pytest_twisted.ensureDeferred
    async def test_from_thread_to_thread(self) -> None:
        f = Filerator[str](limit=3)

        def write() -> None:
            with f:
                f.writelines(str(n) for n in range(1000))
                f.flush()

        d = PoolUser.deferToThreadInPool(write)
        assert await f.runInThread(list) == [str(n) for n in range(1000)]
        await d

    @pytest_twisted.ensureDeferred
    async def test_from_the_loop_to_a_thread(self) -> None:
        f = Filerator[int](limit=3)
        d = f.runInThread(list)
        for number in range(100):
            f.write(number)
            await f.ready()
            assert len(f._flow) < 3
        f.close()
        assert await d == list(range(100))

    @pytest_twisted.ensureDeferred
    async def test_from_the_loop_to_the_loop(self) -> None:
        f = Filerator[int]()
        f.write(1)
        dr = f.deferator()
        with pytest.raises(RuntimeError, match="being read"):
            f.deferator()
        got: list[int] = []
        for d in dr:
            if not got:
                f.write(2)
                f.close()
            got.append(await d)
        assert got == [1, 2]
        assert await f.deferUntilDone()

    @pytest_twisted.ensureDeferred
    async def test_prints(self) -> None:
        f = Filerator[str]()

        def write() -> None:
            print("one", 2, file=f)
            f.close()

        await PoolUser.deferToThreadInPool(write)
        assert "".join([text async for text in _each(f)]) == "one 2\n"

    def test_a_write_after_close_is_a_ValueError(self) -> None:
        f = Filerator[int](reactor=Hook())
        assert not f.closed
        f.close()
        f.close()
        assert f.closed
        for act in (lambda: f.write(1)), f.flush, (lambda: f.writelines([1])):
            with pytest.raises(ValueError, match="closed Filerator"):
                act()

    @pytest_twisted.ensureDeferred
    async def test_a_close_wakes_a_writer(self) -> None:
        f = Filerator[int](limit=1)
        f.write(0)
        d = PoolUser.deferToThreadInPool(f.write, 1)
        await _isWaiting(f, room=True)
        f.close()
        with pytest.raises(ValueError, match="closed Filerator"):
            await d
        assert await f.runInThread(list) == [0]

    @pytest_twisted.ensureDeferred
    async def test_a_reader_that_goes_away_wakes_a_writer(self) -> None:
        f = Filerator[int](limit=2)
        d = PoolUser.deferToThreadInPool(f.writelines, range(99))
        await _isWaiting(f, room=True)
        assert await deferToThread(first, f, 1) == [0]
        with pytest.raises(BrokenPipeError, match="reading side of this Filerator has left"):
            await d
        f.close()
        assert not await f.deferUntilDone()

    @pytest_twisted.ensureDeferred
    async def test_a_reader_that_stops_in_the_loop_wakes_a_writer(self) -> None:
        f = Filerator[int](limit=2)
        d = PoolUser.deferToThreadInPool(f.writelines, range(99))
        dr = f.deferator()
        assert await next(dr) == 0
        await _isWaiting(f, room=True)
        dr.stop()
        with pytest.raises(BrokenPipeError, match="reading side of this Filerator has left"):
            await d

    @pytest_twisted.ensureDeferred
    async def test_a_reader_that_goes_away_fires_ready(self) -> None:
        f = Filerator[int](limit=2)
        f.writelines([1, 2])
        ready = outcomes(f.ready())
        assert ready == []
        f.leave()
        assert ready == [None]
        with pytest.raises(BrokenPipeError):
            f.write(3)

    @pytest_twisted.ensureDeferred
    async def test_an_error_in_its_block_comes_after_what_was_written(self) -> None:
        f = Filerator[int]()

        def fail() -> None:
            with f:
                f.write(1)
                raise KeyError("x")

        with pytest.raises(KeyError):
            fail()
        items = f.deferator()
        assert await items.__anext__() == 1
        with pytest.raises(KeyError):
            await items.__anext__()
        assert not await f.deferUntilDone()

    def test_a_reactor_that_stops_wakes_a_writer(self) -> None:
        reactor = Hook()
        f = Filerator[int](limit=1, reactor=reactor)
        raised: list[BaseException] = []

        def write() -> None:
            try:
                f.writelines(range(9))
            except BrokenPipeError as error:
                raised.append(error)

        waiting = seenWaiting(f._room)
        thread = threading.Thread(target=write)
        thread.start()
        assert waiting.wait(20)
        reactor.stop()
        thread.join(20)
        assert raised

    @pytest_twisted.ensureDeferred
    async def test_may_be_made_in_a_thread(self) -> None:
        def use() -> Filerator[int]:
            f = Filerator[int]()
            with f:
                f.write(1)
            return f

        f = await deferToThread(use)
        assert await f.runInThread(list) == [1]


async def _each(f: Filerator[str]) -> AsyncIterator[str]:
    async for text in f:
        yield text


class TestOrderedItemProducer:
    def test_is_an_IPushProducer(self) -> None:
        assert verifyObject(IPushProducer, OrderedItemProducer[int](reactor=Hook()))

    @pytest_twisted.ensureDeferred
    async def test_keeps_the_order_of_ten_thousand_calls_with_random_delays(self) -> None:
        from twisted.internet import reactor

        random = Random(1)
        p = OrderedItemProducer[int]()
        got: list[int] = []
        await p.start(got.extend)
        finished: list[int] = []

        def finish(number: int) -> int:
            finished.append(number)
            return number

        def make(number: int) -> Deferred[int]:
            return deferLater(IReactorTime(reactor), random.uniform(0, 0.01), finish, number)

        for number in range(0, 10_000, 500):
            made = await gatherResults([p.produceItem(make, n) for n in range(number, number + 500)])
            assert made == list(range(number, number + 500))
        assert await p.stop() is None
        assert got == list(range(10_000))
        assert finished != got

    @pytest_twisted.ensureDeferred
    async def test_takes_plain_results_deferreds_and_coroutines(self) -> None:
        p = OrderedItemProducer[int]()

        async def coroutine(x: int) -> int:
            await turns()
            return x

        await p.start(sorted, key=lambda x: -x)
        p.produceItem(coroutine, 1)
        p.produceItem(int, 2)
        p.produceItem(itself, later := Deferred[int]())
        d = p.stop()
        later.callback(3)
        assert await d == [3, 2, 1]

    @pytest_twisted.ensureDeferred
    async def test_holds_back_until_there_is_room(self) -> None:
        p = OrderedItemProducer[int](limit=2)
        first, second, third = (outcomes(p.produceItem(int, n)) for n in range(3))
        assert (first, second, third) == ([0], [], [])
        await p.start(list)
        d = p.stop()
        assert await d == [0, 1, 2]
        assert (second, third) == ([1], [2])

    @pytest_twisted.ensureDeferred
    async def test_goes_on_when_the_thread_has_made_room(self) -> None:
        p = OrderedItemProducer[int](limit=2)
        await p.start(sum)
        for number in range(1000):
            assert await p.produceItem(int, number) == number
            assert len(p.i._flow) < 2
        assert await p.stop() == 499_500

    @pytest_twisted.ensureDeferred
    async def test_a_call_that_fails_ends_it_after_the_items_before(self) -> None:
        p = OrderedItemProducer[int]()
        got: list[int] = []
        heard: list[BaseException] = []

        def use(items: Iterator[int]) -> str:
            try:
                for item in items:
                    got.append(item)
            except LookupError as error:
                heard.append(error)
            return "not the result"

        slow, after, failing = Deferred[int](), Deferred[int](), Deferred[int]()
        cancelled = outcomes(after)
        await p.start(use)
        answers = [outcomes(p.produceItem(itself, d)) for d in (slow, failing, after)]
        failing.errback(error := LookupError("no such item"))
        assert cancelled[0].check(CancelledError)
        assert answers[1:] == [[], [None]]
        assert resultOf(p.produceItem(int, 5)) is None
        slow.callback(0)
        with pytest.raises(LookupError, match="no such item"):
            await p.stop()
        assert (got, heard) == ([0], [error])
        assert answers == [[0], [None], [None]]

    @pytest_twisted.ensureDeferred
    async def test_the_first_of_failing_calls_in_order_counts(self) -> None:
        p = OrderedItemProducer[int]()
        a, b, c = Deferred[int](), Deferred[int](), Deferred[int]()
        await p.start(list)
        for d in a, b, c:
            p.produceItem(itself, d)
        b.errback(LookupError("b"))
        a.errback(LookupError("a"))
        with pytest.raises(LookupError, match="a"):
            await p.stop()

    @pytest_twisted.ensureDeferred
    async def test_a_blocking_function_that_returns_early_ends_it(self) -> None:
        p = OrderedItemProducer[int](limit=2)
        never = Deferred[int]()
        await p.start(first, 2)
        answers = [outcomes(p.produceItem(int, n)) for n in range(2)] + [outcomes(p.produceItem(lambda: never))]
        assert await p.stop() == [0, 1]
        assert answers[2] == [None]
        assert never.called
        assert resultOf(p.produceItem(int, 9)) is None
        assert not await p.i.deferUntilDone()
        assert await p.stop() == [0, 1]

    @pytest_twisted.ensureDeferred
    async def test_a_blocking_function_that_raises_ends_it(self) -> None:
        p = OrderedItemProducer[int](limit=2)
        await p.start(raiseAt, 1)
        for number in range(9):
            await p.produceItem(int, number)
        with pytest.raises(KeyError):
            await p.stop()

    @pytest_twisted.ensureDeferred
    async def test_a_failed_call_counts_and_not_what_its_error_led_to(self) -> None:
        p = OrderedItemProducer[int]()

        def use(items: Iterator[int]) -> None:
            try:
                list(items)
            except ValueError:
                raise RuntimeError("the file is not complete") from None

        await p.start(use)
        await p.produceItem(int, "x")
        p.produceItem(int, 1)
        with pytest.raises(ValueError, match="invalid literal"):
            await p.stop()

    @pytest_twisted.ensureDeferred
    async def test_an_error_may_be_heard_of_late(self) -> None:
        p = OrderedItemProducer[int]()
        await p.start(raiseAt, 0)
        await p.produceItem(int, 0)
        await PoolUser.shutdown()
        for _ in range(2):
            with pytest.raises(KeyError):
                await p.stop()

    @pytest.mark.parametrize("failing", [True, False])
    @pytest_twisted.ensureDeferred
    async def test_nobody_waits_for_room_when_there_is_nothing_more_to_come(self, failing: bool) -> None:
        p = OrderedItemProducer[int](limit=1)
        gate = Gate()

        def use(items: Iterator[int]) -> list[int]:
            gate.wait()
            return list(items)

        await p.start(use)
        await gate.reached
        answer = outcomes(p.produceItem(int, 0))
        assert answer == []
        if failing:
            p.produceItem(int, "x")
        else:
            d = p.stop()
        assert answer == [0]
        gate.open()
        if failing:
            with pytest.raises(ValueError, match="invalid literal"):
                await p.stop()
        else:
            assert await d == [0]

    def test_a_call_that_ends_it_all_is_cancelled_itself(self) -> None:
        p = OrderedItemProducer[int](reactor=Hook())
        never = Deferred[int]()

        def make() -> Deferred[int]:
            p.stop()
            return never

        assert resultOf(p.produceItem(make)) is None
        assert never.called

    @pytest_twisted.ensureDeferred
    async def test_stop_waits_for_what_was_asked_for(self) -> None:
        p = OrderedItemProducer[int]()
        item = Deferred[int]()
        await p.start(list)
        p.produceItem(lambda: item)
        stopped = outcomes(d := p.stop())
        await turns()
        assert stopped == []
        assert resultOf(p.produceItem(int, 1)) is None
        item.callback(7)
        assert await p.stop() == [7]
        assert d.called

    def test_stop_without_start_wants_nothing(self) -> None:
        p = OrderedItemProducer[int](reactor=Hook())
        item = Deferred[int]()
        answer = outcomes(p.produceItem(lambda: item))
        assert resultOf(p.stop()) is None
        assert answer == [None]
        assert item.called
        with pytest.raises(RuntimeError, match="stopped"):
            p.start(list)

    @pytest_twisted.ensureDeferred
    async def test_to_cancel_the_stop_ends_everything_now(self) -> None:
        p = OrderedItemProducer[int]()
        gate, heard = Gate(), list[BaseException]()

        def use(items: Iterator[int]) -> None:
            gate.wait()
            try:
                next(items)
            except CancelledError as error:
                heard.append(error)
                raise

        await p.start(use)
        await gate.reached
        item, order = Deferred[int](), list[int]()
        answers = [outcomes(p.produceItem(lambda: item)), outcomes(p.produceItem(int, 1))]
        for number in range(3):
            never: Deferred[int] = Deferred(lambda _, number=number: order.append(number))  # type: ignore[misc]  # a default
            p.produceItem(itself, never)
        stopped, other = p.stop(), p.stop()
        stopped.cancel()
        errorOf(stopped, CancelledError)
        assert answers == [[None], [None]]
        assert item.called
        assert order == [2, 1, 0], "a call that waits does not start because the one before it is gone"
        assert not p.wanted
        gate.open()
        with pytest.raises(CancelledError, match="was cancelled"):
            await other
        assert len(heard) == 1

    @pytest_twisted.ensureDeferred
    async def test_to_cancel_a_stop_that_is_over_changes_nothing(self) -> None:
        p = OrderedItemProducer[int]()
        await p.start(first, 1)
        await p.produceItem(int, 7)
        done = p.stop()
        assert await done == [7]
        done.cancel()
        assert await p.stop() == [7]

    @pytest_twisted.ensureDeferred
    async def test_starts_once(self) -> None:
        p = OrderedItemProducer[int]()
        await p.start(list)
        with pytest.raises(RuntimeError, match="started"):
            p.start(list)
        assert await p.stop() == []

    def test_a_reactor_that_stops_ends_it(self) -> None:
        reactor = Hook()
        p = OrderedItemProducer[int](reactor=reactor)
        item = Deferred[int]()
        answer = outcomes(p.produceItem(lambda: item))
        reactor.stop()
        assert answer == [None]
        assert item.called


class TestAGetterWithALoop:
    """A subclass of `IterationGetter` that makes its items in a thread."""

    class Squares(IterationGetter[int]):
        made = 0

        def loop(self) -> Iterator[int]:
            for n in range(1000):
                self.made = n
                yield n * n
                if n == 600:
                    raise KeyError("there are no more")

    @pytest_twisted.ensureDeferred
    async def test_gives_the_items_and_the_error_of_its_loop(self) -> None:
        squares = self.Squares(limit=10)
        started = squares.start()
        got: list[int] = []
        with pytest.raises(KeyError, match="there are no more"):
            await squares.runInThread(got.extend)
        assert got == [n * n for n in range(601)]
        await started

    @pytest_twisted.ensureDeferred
    async def test_may_be_read_in_the_loop(self) -> None:
        squares = self.Squares(limit=10)
        started = squares.start()
        deferator = squares.deferator()
        assert [await deferator.__anext__() for _ in range(3)] == [0, 1, 4]
        deferator.stop()
        await started

    @pytest_twisted.ensureDeferred
    async def test_stops_when_the_reading_side_leaves_and_waits_for_room(self) -> None:
        squares = self.Squares(limit=10)
        started = squares.start()

        def read(items: Iterator[int]) -> int:
            return next(items) + next(items)

        assert await squares.runInThread(read) == 1
        await started
        assert squares.made < 100
        assert not await squares.deferUntilDone()

    @pytest_twisted.ensureDeferred
    async def test_needs_one(self) -> None:
        getter = IterationGetter[int]()
        await getter.start()
        with pytest.raises(ImplementationError, match=r"IterationGetter has no loop\(\)"):
            await getter.runInThread(list)


class TestStoppingByAFailure:
    @pytest_twisted.ensureDeferred
    async def test_ends_everything_and_is_the_error_of_the_reader(self) -> None:
        producer, got = OrderedItemProducer[int](), list[int]()

        def read(items: Iterator[int]) -> None:
            for item in items:
                got.append(item)

        await producer.start(read)
        await producer.produceItem(int, "5")
        late: Deferred[int] = Deferred()
        waiting = producer.produceItem(lambda: late)
        with pytest.raises(KeyError, match="no more"):
            await producer.stop(Failure(KeyError("no more")))
        assert got == [5]
        assert await waiting is None

    @pytest_twisted.ensureDeferred
    async def test_without_a_reader(self) -> None:
        with pytest.raises(KeyError):
            await OrderedItemProducer[int]().stop(failureObj=Failure(KeyError()))


class TestAThreadOfItsOwn:
    """A bridge that is given a thread has its blocking side there."""

    @pytest_twisted.ensureDeferred
    async def test_is_used_rather_than_the_pool(self) -> None:
        looper = ThreadLooper()
        name = await looper.call(lambda: threading.current_thread().name)

        def use(items: Iterator[int]) -> tuple[str, Iterator[int]]:
            return threading.current_thread().name, iter(list(items))

        p = OrderedItemProducer[int](thread=looper)
        await p.start(use)
        for number in range(5):
            await p.produceItem(int, number)
        used, items = await p.stop()
        assert (used, list(items)) == (name, list(range(5))), "an iterator is a result like any other"
        await looper.stop()

    @pytest_twisted.ensureDeferred
    async def test_may_be_a_queues(self) -> None:
        async with ThreadQueue() as queue:
            c = Consumerator[int](thread=queue)
            total = c.runInThread(sum)
            for number in range(5):
                c.write(number)
            c.unregisterProducer()
            assert await total == 10
            assert await c.deferUntilDone()

    @pytest_twisted.ensureDeferred
    async def test_that_is_not_waited_for_any_more_has_left(self) -> None:
        looper, gate = ThreadLooper(), Gate()

        def use(items: Iterator[int]) -> None:
            gate.wait()

        f = Filerator[int](thread=looper)
        d = f.runInThread(use)
        await gate.reached
        d.cancel()
        errorOf(d, CancelledError)
        with pytest.raises(BrokenPipeError):
            f.write(1)
        assert not await f.deferUntilDone()
        gate.open()
        await looper.stop()


class TestPoolUser:
    @pytest_twisted.ensureDeferred
    async def test_runs_calls_in_threads_that_shutdown_ends(self) -> None:
        before = set(threading.enumerate())
        name = await PoolUser.deferToThreadInPool(lambda: threading.current_thread().name)
        assert name.startswith("PoolThread-AsynQueue")
        assert set(threading.enumerate()) - before
        await PoolUser.shutdown()
        assert not set(threading.enumerate()) - before

    @pytest_twisted.ensureDeferred
    async def test_starts_no_thread_before_it_is_needed_and_starts_again(self) -> None:
        before = set(threading.enumerate())
        Consumerator[int](maxThreads=3).leave()
        assert set(threading.enumerate()) == before
        for _ in range(2):
            assert await PoolUser.deferToThreadInPool(pow, 2, 3) == 8
            await PoolUser.shutdown()
        await PoolUser.shutdown()

    @pytest_twisted.ensureDeferred
    async def test_passes_on_what_was_raised(self) -> None:
        with pytest.raises(ZeroDivisionError):
            await PoolUser.deferToThreadInPool(divmod, 1, 0)

    @pytest_twisted.ensureDeferred
    async def test_shutdown_waits_for_calls(self) -> None:
        gate = Gate()
        answer = outcomes(PoolUser.deferToThreadInPool(gate.wait))
        await gate.reached
        stopped = outcomes(PoolUser.shutdown())
        await turns()
        assert (answer, stopped) == ([], [])
        gate.open()
        await PoolUser.shutdown()
        assert (answer, stopped) == ([None], [None])

    @pytest_twisted.ensureDeferred
    async def test_a_cancelled_call_is_not_heard_of(self) -> None:
        gate = Gate()
        d = PoolUser.deferToThreadInPool(gate.wait)
        await gate.reached
        d.cancel()
        errorOf(d, CancelledError)
        gate.open()
        await PoolUser.shutdown()

    @pytest_twisted.ensureDeferred
    async def test_has_as_many_threads_as_are_allowed(self) -> None:
        PoolUser.setup(2)
        gates = [Gate() for _ in range(3)]
        calls = [PoolUser.deferToThreadInPool(gate.wait) for gate in gates]
        await gatherResults([gates[0].reached, gates[1].reached])
        await turns()
        assert not gates[2].reached.called
        Consumerator[int](maxThreads=3).leave()
        await gates[2].reached
        for gate in gates:
            gate.open()
        await gatherResults(calls)

    def test_at_least_one(self) -> None:
        with pytest.raises(ValueError, match="got 0"):
            PoolUser.setup(0)

    @pytest_twisted.ensureDeferred
    async def test_ends_with_the_reactor(self, tmp_path: Any) -> None:
        """And a thread that is blocked in a bridge does not keep the program from ending."""
        import sys

        program = tmp_path / "program.py"
        program.write_text(PROGRAM)
        out, err, code = await getProcessOutputAndValue(sys.executable, [str(program)], env=_environment())
        assert (out, err, code) == (b"ThreadError\n[]\n", b"", 0)


PROGRAM = """
import threading
from twisted.internet import reactor
from asynqueue.bridges import Consumerator

c = Consumerator()

def read(items):
    reactor.callFromThread(reactor.stop)
    try:
        list(items)
    except Exception as error:
        print(type(error).__name__)

reactor.callWhenRunning(c.runInThread, read)
reactor.run()
print([t.name for t in threading.enumerate() if t is not threading.main_thread()])
"""


def _environment() -> dict[str, str]:
    import os
    import sys

    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
