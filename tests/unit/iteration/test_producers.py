"""`IterationProducer`: a consumer is fed what a Deferator gives, and may pause, resume and stop at any time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock

from asynqueue import Deferator, IterationProducer
from tests.support.deferreds import ListSource, errorOf, outcomes, resultOf


class Consumer:
    """Takes items, and does with each what ONWRITE says."""

    def __init__(self, onWrite: Callable[[Any, Any], object] | None = None) -> None:
        self.items: list[Any] = []
        self.producer: Any = None
        self.unregistered = 0
        self.depth = 0
        self._onWrite = onWrite

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self.producer is None
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.unregistered += 1

    def write(self, data: Any) -> None:
        assert not self.depth, "one write is inside another"
        self.depth += 1
        self.items.append(data)
        if self._onWrite is not None:
            self._onWrite(self.producer, data)
        self.depth -= 1


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source() -> ListSource:
    return ListSource()


@pytest.fixture
def deferator(clock: Clock, source: ListSource) -> Deferator[Any]:
    return Deferator(source, reactor=clock)


class TestFeeding:
    def test_every_item_in_order_then_the_consumer(self, clock: Clock) -> None:
        consumer = Consumer()
        d = IterationProducer(Deferator(iter(range(50_000)), reactor=clock), consumer).run()
        clock.advance(0)
        assert resultOf(d) is consumer
        assert consumer.items == list(range(50_000))
        assert consumer.unregistered == 1

    def test_an_exhausted_iterator_is_the_end(self, clock: Clock) -> None:
        deferator: Deferator[int] = Deferator(iter(()), reactor=clock)
        clock.advance(0)
        consumer = Consumer()
        assert outcomes(IterationProducer(deferator, consumer).run()) == [consumer]
        assert (consumer.items, consumer.unregistered) == ([], 1)

    def test_an_error_comes_after_the_items_before_it(self, source: ListSource, deferator: Deferator[Any]) -> None:
        consumer = Consumer()
        d = IterationProducer(deferator, consumer).run()
        source.give(1)
        source.sink.over(ValueError("half-way"))
        errorOf(d, ValueError)
        assert (consumer.items, consumer.unregistered) == ([1], 1)

    def test_a_consumer_may_come_later(self, source: ListSource, deferator: Deferator[Any]) -> None:
        producer: IterationProducer[Consumer] = IterationProducer(deferator)
        done = producer.deferUntilDone()
        with pytest.raises(RuntimeError, match="there is no consumer to feed"):
            producer.run()
        consumer = Consumer()
        producer.registerConsumer(consumer)
        with pytest.raises(RuntimeError, match="has a consumer already"):
            producer.registerConsumer(Consumer())
        producer.run()
        source.sink.over(None)
        assert outcomes(done) == [consumer]

    def test_it_is_a_push_producer(self, deferator: Deferator[Any]) -> None:
        assert IPushProducer.providedBy(IterationProducer(deferator, Consumer()))

    def test_what_is_no_deferator_is_refused(self) -> None:
        with pytest.raises(TypeError, match="needs a Deferator, got list"):
            IterationProducer([])  # type: ignore[arg-type]  # that is the point

    def test_each_who_waits_has_a_deferred_of_its_own(self, source: ListSource, deferator: Deferator[Any]) -> None:
        consumer = Consumer()
        producer = IterationProducer(deferator, consumer)
        spoilt = producer.run().addCallback(lambda _: None)
        waiting = outcomes(producer.deferUntilDone())
        source.sink.over(None)
        assert (outcomes(spoilt), waiting, outcomes(producer.deferUntilDone())) == ([None], [consumer], [consumer])


class TestPausing:
    def test_nothing_is_written_until_it_is_resumed(self, source: ListSource, deferator: Deferator[Any]) -> None:
        consumer = Consumer()
        d = IterationProducer(deferator, consumer).run()
        consumer.producer.pauseProducing()
        source.give(1)
        assert consumer.items == []
        consumer.producer.resumeProducing()
        assert consumer.items == [1]
        source.sink.over(None)
        assert resultOf(d) is consumer

    def test_no_more_is_fetched_than_was_granted(self, source: ListSource, deferator: Deferator[Any]) -> None:
        consumer = Consumer()
        IterationProducer(deferator, consumer).run()
        for _ in range(10):
            source.give(*range(source.credit))
        consumer.producer.pauseProducing()
        granted = source.credit
        source.give(*range(granted))
        assert source.credit == 0
        written = len(consumer.items)
        consumer.producer.resumeProducing()
        assert len(consumer.items) == written + granted

    def test_a_pause_before_it_runs_is_one(self, source: ListSource, deferator: Deferator[Any]) -> None:
        consumer = Consumer()
        producer = IterationProducer(deferator, consumer)
        producer.pauseProducing()
        producer.run()
        source.give(1)
        assert consumer.items == []

    @pytest.mark.parametrize("items", [10, 1000])
    def test_inside_write_it_holds_from_the_next_item_on(self, clock: Clock, items: int) -> None:
        consumer = Consumer(lambda producer, _: producer.pauseProducing())
        d = IterationProducer(Deferator(iter(range(items)), reactor=clock), consumer).run()
        for number in range(items):
            clock.advance(0)
            clock.advance(0)
            assert consumer.items == list(range(number + 1))
            consumer.producer.resumeProducing()
        clock.advance(0)
        assert resultOf(d) is consumer

    def test_inside_write_a_pause_and_a_resume_nest_no_write(self, clock: Clock) -> None:
        def flicker(producer: Any, _: object) -> None:
            producer.pauseProducing()
            producer.resumeProducing()

        consumer = Consumer(flicker)
        d = IterationProducer(Deferator(iter(range(1000)), reactor=clock), consumer).run()
        clock.advance(0)
        assert resultOf(d) is consumer
        assert consumer.items == list(range(1000))

    def test_again_and_again_while_nothing_comes_loses_nothing(
        self, source: ListSource, deferator: Deferator[Any]
    ) -> None:
        consumer = Consumer()
        IterationProducer(deferator, consumer).run()
        for _ in range(5):
            consumer.producer.pauseProducing()
            consumer.producer.pauseProducing()
            consumer.producer.resumeProducing()
            consumer.producer.resumeProducing()
        source.give("a")
        assert consumer.items == ["a"]

    def test_the_end_is_not_told_while_it_is_paused(self, source: ListSource, deferator: Deferator[Any]) -> None:
        consumer = Consumer()
        d = IterationProducer(deferator, consumer).run()
        consumer.producer.pauseProducing()
        source.sink.over(None)
        consumer.producer.resumeProducing()
        assert resultOf(d) is consumer


class TestStopping:
    def test_between_items_it_has_been_fed(self, source: ListSource, deferator: Deferator[Any]) -> None:
        consumer = Consumer()
        d = IterationProducer(deferator, consumer).run()
        source.give(1)
        consumer.producer.stopProducing()
        consumer.producer.stopProducing()
        assert resultOf(d) is consumer
        assert source.closed
        assert consumer.unregistered == 1

    def test_inside_write_that_item_is_the_last(self, clock: Clock) -> None:
        consumer = Consumer(lambda producer, item: producer.stopProducing() if item == 3 else None)
        d = IterationProducer(Deferator(iter(range(100)), reactor=clock), consumer).run()
        clock.advance(0)
        assert resultOf(d) is consumer
        assert consumer.items == [0, 1, 2, 3]

    def test_while_paused_it_ends(self, source: ListSource, deferator: Deferator[Any]) -> None:
        consumer = Consumer()
        d = IterationProducer(deferator, consumer).run()
        consumer.producer.pauseProducing()
        consumer.producer.stopProducing()
        consumer.producer.resumeProducing()
        assert resultOf(d) is consumer
        assert source.closed

    def test_a_write_that_raises_ends_it_with_that_error(self, clock: Clock) -> None:
        def fail(_: object, item: int) -> None:
            if item == 2:
                raise OSError("disk full")

        consumer = Consumer(fail)
        d = IterationProducer(Deferator(iter(range(100)), reactor=clock), consumer).run()
        clock.advance(0)
        assert str(errorOf(d, OSError)) == "disk full"
        assert (consumer.items, consumer.unregistered) == ([0, 1, 2], 1)

    @pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
    def test_so_does_one_that_raises_what_would_end_a_program(self, clock: Clock, kind: type[BaseException]) -> None:
        def leave(_: object, item: int) -> None:
            raise kind(item)

        consumer = Consumer(leave)
        d = IterationProducer(Deferator(iter(range(100)), reactor=clock), consumer).run()
        clock.advance(0)
        assert errorOf(d, kind).args == (0,)
        assert (consumer.items, consumer.unregistered) == ([0], 1)

    @pytest.mark.parametrize("kind", [OSError, SystemExit])
    def test_one_that_cannot_even_be_unregistered_fails(
        self, source: ListSource, deferator: Deferator[Any], kind: type[BaseException]
    ) -> None:
        class Stubborn(Consumer):
            def unregisterProducer(self) -> None:
                raise kind("never")

        d = IterationProducer(deferator, Stubborn()).run()
        source.sink.over(None)
        errorOf(d, kind)


class TestSlowConsumers:
    def test_are_never_more_than_the_credit_behind(self, clock: Clock) -> None:
        made, resumes = [0], list[Deferred[None]]()

        def items() -> Any:
            while made[0] < 500:
                made[0] += 1
                yield made[0]

        def takeTime(producer: Any, _: object) -> None:
            producer.pauseProducing()
            d: Deferred[None] = Deferred()
            d.addCallback(lambda _: producer.resumeProducing())
            resumes.append(d)

        consumer = Consumer(takeTime)
        done = IterationProducer(Deferator(items(), reactor=clock), consumer).run()
        clock.advance(0)
        while resumes:
            assert made[0] - len(consumer.items) <= 8, "a slow one has little made for it"
            resumes.pop().callback(None)
            clock.advance(0)
        assert resultOf(done) is consumer
        assert consumer.items == list(range(1, 501))


class Register09(Consumer):
    """A consumer as programs for 0.9 have it: it registers itself with its producer, and only once."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError("registered already")
        self.producer = producer
        producer.registerConsumer(self)


class TestAConsumerThatRegistersItself:
    def test_is_fed(self, clock: Clock) -> None:
        consumer = Register09()
        d = IterationProducer(Deferator(iter("abc"), reactor=clock), consumer).run()
        clock.pump([0] * 5)
        assert resultOf(d) is consumer
        assert (consumer.items, consumer.unregistered) == (["a", "b", "c"], 1)

    def test_is_fed_when_it_was_given_the_producer_first(self, clock: Clock) -> None:
        consumer = Register09()
        producer: IterationProducer[Register09] = IterationProducer(dr=Deferator(iter("abc"), reactor=clock))
        consumer.registerProducer(producer, True)
        d = producer.run()
        clock.pump([0] * 5)
        assert resultOf(d) is consumer
        assert consumer.items == ["a", "b", "c"]

    def test_refuses_another_producer(self, clock: Clock) -> None:
        consumer = Register09()
        IterationProducer(Deferator(iter("abc"), reactor=clock), consumer)
        other: IterationProducer[Register09] = IterationProducer(Deferator(iter("xyz"), reactor=clock))
        with pytest.raises(RuntimeError, match="registered already"):
            other.registerConsumer(consumer)
        with pytest.raises(RuntimeError, match="call registerConsumer first"):
            other.run()
