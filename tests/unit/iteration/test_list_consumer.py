"""`ListConsumer`, which makes a list of what it is given, and `iteratorToProducer`."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent

from asynqueue import Deferator, IterationProducer, ListConsumer, iteratorToProducer
from asynqueue.iteration.producers import IN_HAND
from tests.support.calls import inLoop
from tests.support.deferreds import errorOf, outcomes, resultOf


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Slow(ListConsumer):
    """Takes as long for each item as the test says."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.working: dict[int, Deferred[Any]] = {}

    def processItem(self, item: int) -> Deferred[Any]:
        self.working[item] = Deferred()
        return self.working[item]

    def end(self, item: int) -> None:
        self.working.pop(item).callback(-item)


class Producer:
    """Counts what it is told."""

    def __init__(self, consumer: ListConsumer, onResume: Callable[[], object] = lambda: None) -> None:
        self.told: list[str] = []
        self.consumer = consumer
        self.onResume = onResume

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")
        self.onResume()

    def stopProducing(self) -> None:
        self.told.append("stop")
        self.consumer.unregisterProducer()


def fed(clock: Clock, consumer: ListConsumer, items: Iterator[Any]) -> Deferred[ListConsumer]:
    """CONSUMER is fed with ITEMS."""
    d = IterationProducer(Deferator(items, reactor=clock), consumer).run()
    clock.advance(0)
    return d


class TestAListConsumer:
    def test_is_an_IConsumer(self) -> None:
        assert IConsumer.providedBy(ListConsumer())

    def test_gives_the_list_to_each_who_calls_it_whenever_that_is(self, clock: Clock) -> None:
        consumer = ListConsumer()
        early = outcomes(consumer())
        fed(clock, consumer, iter("abc"))
        assert (early, outcomes(consumer()), outcomes(consumer())) == ([["a", "b", "c"]],) * 3

    def test_gives_each_a_list_of_its_own(self, clock: Clock) -> None:
        consumer = ListConsumer()
        fed(clock, consumer, iter("ab"))
        resultOf(consumer()).clear()
        assert resultOf(consumer()) == ["a", "b"]

    def test_has_the_attributes_it_is_made_with(self) -> None:
        consumer: Any = ListConsumer(name="mine", size=3)
        assert (consumer.name, consumer.size) == ("mine", 3)

    def test_refuses_an_attribute_that_would_take_the_place_of_its_own(self) -> None:
        with pytest.raises(TypeError, match="a ListConsumer has its own 'write': choose another name"):
            ListConsumer(write=print)

    def test_processes_items_by_an_attribute_or_by_a_coroutine(self, clock: Clock) -> None:
        async def double(item: int) -> int:
            return 2 * item

        consumer = ListConsumer(processItem=double)
        fed(clock, consumer, iter(range(5)))
        assert resultOf(consumer()) == [0, 2, 4, 6, 8]

    @pytest.mark.parametrize("seed", range(5))
    def test_keeps_the_order_in_whatever_order_items_are_processed(self, clock: Clock, seed: int) -> None:
        consumer, random = Slow(), Random(seed)
        d = consumer()
        fed(clock, consumer, iter(range(100)))
        while consumer.working:
            assert len(consumer.working) <= IN_HAND
            consumer.end(random.choice(list(consumer.working)))
            clock.advance(0)
        assert resultOf(d) == [-item for item in range(100)]

    def test_holds_a_streaming_producer_and_lets_it_go_on(self) -> None:
        consumer = Slow()
        producer = Producer(consumer)
        consumer.registerProducer(producer, True)
        for item in range(IN_HAND):
            assert producer.told == []
            consumer.write(item)
        assert producer.told == ["pause"]
        for item in range(IN_HAND // 2):
            assert producer.told == ["pause"]
            consumer.end(item)
        assert producer.told == ["pause", "resume"]

    def test_asks_a_pulled_producer_for_each_item_without_depth(self) -> None:
        consumer, numbers = ListConsumer(), iter(range(5000))

        def pull() -> None:
            number = next(numbers, None)
            if number is None:
                consumer.unregisterProducer()
            else:
                consumer.write(number)

        consumer.registerProducer(Producer(consumer, pull), False)
        assert resultOf(consumer()) == list(range(5000))

    def test_an_item_whose_processing_fails_stops_the_producer_and_is_the_error(self) -> None:
        consumer = Slow()
        producer = Producer(consumer)
        consumer.registerProducer(producer, True)
        consumer.write(1)
        consumer.write(2)
        consumer.working[2].errback(LookupError(2))
        assert producer.told == ["stop"]
        consumer.write(3)
        consumer.end(1)
        errorOf(consumer(), LookupError)
        errorOf(consumer(), LookupError)
        assert list(consumer.working) == [2]

    def test_an_error_that_nobody_asks_for_is_reported(self, unhandled: Sequence[LogEvent]) -> None:
        def fail(item: object) -> None:
            raise LookupError(item)

        ListConsumer(processItem=fail).write(1)
        gc.collect()
        assert [event["log_failure"].type for event in unhandled if "log_failure" in event] == [LookupError]

    def test_has_one_producer_at_a_time_and_a_new_list_for_the_next(self, clock: Clock) -> None:
        consumer = ListConsumer()
        consumer.registerProducer(Producer(consumer), True)
        with pytest.raises(RuntimeError, match="this ListConsumer has a producer already"):
            consumer.registerProducer(Producer(consumer), True)
        consumer.unregisterProducer()
        fed(clock, consumer, iter("ab"))
        assert resultOf(consumer()) == ["a", "b"]

    def test_has_to_be_done_with_one_list_before_the_next(self) -> None:
        consumer = Slow()
        consumer.registerProducer(Producer(consumer), True)
        consumer.write(1)
        consumer.unregisterProducer()
        with pytest.raises(RuntimeError, match="still processing the items of its last producer"):
            consumer.registerProducer(Producer(consumer), True)
        consumer.end(1)
        assert resultOf(consumer()) == [-1]


class TestIteratorToProducer:
    def test_with_a_consumer_it_is_fed(self, clock: Clock) -> None:
        consumer = ListConsumer()
        d = iteratorToProducer(iter(range(500)), consumer, reactor=clock)
        clock.advance(0)
        assert resultOf(d) is consumer
        assert resultOf(consumer()) == list(range(500))

    def test_without_one_it_gives_the_producer_to_run_later(self, clock: Clock) -> None:
        producer = resultOf(iteratorToProducer(iter("ab"), reactor=clock))
        consumer = ListConsumer()
        producer.registerConsumer(consumer)
        d = producer.run()
        clock.advance(0)
        assert resultOf(d) is consumer
        assert resultOf(consumer()) == ["a", "b"]

    def test_an_error_comes_after_the_items_before_it(self, clock: Clock) -> None:
        def items() -> Iterator[int]:
            yield 1
            raise LookupError("no more")

        consumer = ListConsumer()
        d = iteratorToProducer(items(), consumer, reactor=clock)
        clock.advance(0)
        errorOf(d, LookupError)
        assert resultOf(consumer()) == [1]

    @pytest.mark.parametrize("wrapper", [None, deferToThread])
    def test_what_is_no_iterator_is_refused(self, wrapper: Any) -> None:
        with pytest.raises(TypeError, match=r"an iterator, got list|an iterator is needed, got list"):
            iteratorToProducer([1], ListConsumer(), wrapper)  # type: ignore[call-overload]  # that is the point

    @inLoop
    async def test_a_wrapper_has_an_iterator_that_blocks_run_elsewhere_and_closed_there(self) -> None:
        places: list[int] = []

        def items() -> Iterator[int]:
            try:
                for number in range(20):
                    places.append(threading.get_ident())
                    yield number
            finally:
                places.append(threading.get_ident())

        consumer = ListConsumer()
        assert await iteratorToProducer(items(), consumer, deferToThread) is consumer
        assert await consumer() == list(range(20))
        assert len(places) == 21
        assert threading.get_ident() not in places

    @inLoop
    async def test_a_wrapped_one_that_is_stopped_is_closed_there(self) -> None:
        closed: Deferred[int] = Deferred()

        def items() -> Iterator[int]:
            from twisted.internet import reactor

            try:
                while True:
                    yield 1
            finally:
                anyReactor: Any = reactor
                anyReactor.callFromThread(closed.callback, threading.get_ident())

        producer = await iteratorToProducer(items(), wrapper=deferToThread)
        producer.registerConsumer(ListConsumer(processItem=lambda _: producer.stop()))
        await producer.run()
        assert await closed != threading.get_ident()
