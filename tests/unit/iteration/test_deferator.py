"""`Deferator`: an iterator whose items come as Deferreds, and `LocalSource`, which runs one in the main loop."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.task import Clock

from asynqueue import Deferator, NotReadyError
from asynqueue.core.flow.iteration import AHEAD_LIMIT
from asynqueue.core.flow.iterators import SLICE
from asynqueue.iteration.sources import LocalSource
from tests.support.deferreds import ListSource, errorOf, outcomes, resultOf


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source() -> ListSource:
    return ListSource()


@pytest.fixture
def deferator(clock: Clock, source: ListSource) -> Deferator[Any]:
    return Deferator(source, reactor=clock)


class Items:
    """An iterator over a range that remembers how far it got, and that it was closed."""

    def __init__(self, stop: int, error: BaseException | None = None) -> None:
        self.got = 0
        self.stop = stop
        self.error = error
        self.closed = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.got == self.stop:
            raise self.error or StopIteration
        self.got += 1
        return self.got

    def close(self) -> None:
        self.closed += 1


def taken(clock: Clock, deferator: Deferator[Any]) -> list[Any]:
    """All that `async for` gives, and the error it ends with."""
    got: list[Any] = []

    async def take() -> None:
        try:
            async for item in deferator:
                got.append(item)
        except Exception as error:
            got.append(error)

    d = Deferred.fromCoroutine(take())
    clock.advance(0)
    assert d.called, "the iteration has not ended"
    return got


class TestTaking:
    def test_for_gives_every_item_in_order(self, clock: Clock) -> None:
        got: list[int] = []

        @inlineCallbacks
        def take() -> Any:
            deferator = Deferator(iter(range(1000)), reactor=clock)
            for d in deferator:
                got.append((yield d))
            return (yield deferator.d)

        d = take()
        clock.advance(0)
        assert got == list(range(1000))
        assert outcomes(d) == [True]

    def test_async_for_gives_every_item_in_order(self, clock: Clock) -> None:
        assert taken(clock, Deferator(iter(range(1000)), reactor=clock)) == list(range(1000))

    def test_fifty_thousand_need_no_depth(self, clock: Clock) -> None:
        assert len(taken(clock, Deferator(iter(range(50_000)), reactor=clock))) == 50_000

    def test_an_item_of_for_waits_until_it_is_known_whether_another_follows(
        self, source: ListSource, deferator: Deferator[Any]
    ) -> None:
        first = next(deferator)
        source.give("a")
        assert not first.called
        source.give("b")
        assert resultOf(first) == "a"
        last = next(deferator)
        assert not last.called
        source.sink.over(None)
        assert resultOf(last) == "b"
        with pytest.raises(StopIteration):
            next(deferator)

    def test_an_item_of_async_for_waits_for_nothing_else(self, source: ListSource, deferator: Deferator[Any]) -> None:
        first = deferator.__anext__()
        source.give("a")
        assert resultOf(first) == "a"

    def test_an_error_comes_after_the_items_before_it(self, clock: Clock) -> None:
        error = ValueError("half-way")
        assert taken(clock, Deferator(Items(3, error), reactor=clock)) == [1, 2, 3, error]

    def test_an_item_that_no_deferred_can_fire_with_ends_the_iteration_as_an_error(
        self, source: ListSource, deferator: Deferator[Any]
    ) -> None:
        first = deferator.__anext__()
        source.give(weakref.proxy(set()))  # what it refers to is gone
        assert "weakref.ProxyType cannot be a result" in str(errorOf(first, TypeError))
        assert source.closed
        errorOf(deferator.__anext__(), StopAsyncIteration)

    def test_an_error_of_for_comes_in_the_place_of_the_next_item(
        self, source: ListSource, deferator: Deferator[Any]
    ) -> None:
        first = next(deferator)
        source.give(1)
        source.sink.over(ValueError("half-way"))
        assert resultOf(first) == 1
        errorOf(next(deferator), ValueError)
        assert list(deferator) == []
        assert outcomes(deferator.d) == [False]

    def test_an_empty_one_gives_none(self, clock: Clock) -> None:
        deferator: Deferator[int] = Deferator(iter(()), reactor=clock)
        known = outcomes(deferator.whenKnown())
        clock.advance(0)
        assert known == [deferator]
        assert not deferator.moreLeft
        assert list(deferator) == []
        assert taken(clock, deferator) == []
        assert outcomes(deferator.d) == [True]

    def test_an_error_before_any_item_is_all_there_is(self, clock: Clock) -> None:
        error = ValueError("at once")
        assert taken(clock, Deferator(Items(0, error), reactor=clock)) == [error]

    def test_what_would_end_a_program_ends_the_iteration(self, clock: Clock) -> None:
        deferator = Deferator(Items(0, SystemExit(3)), reactor=clock)
        d = deferator.__anext__()
        clock.advance(0)
        errorOf(d, SystemExit)

    def test_more_is_left_until_it_is_known_that_there_is_none(
        self, source: ListSource, deferator: Deferator[Any]
    ) -> None:
        assert deferator.moreLeft
        source.give(1)
        source.sink.over(None)
        assert deferator.moreLeft
        assert resultOf(next(deferator)) == 1
        assert not deferator.moreLeft

    def test_asking_before_the_last_has_come_is_refused(self, deferator: Deferator[Any]) -> None:
        next(deferator)
        with pytest.raises(NotReadyError, match="wait for its Deferred"):
            next(deferator)
        with pytest.raises(NotReadyError, match="wait for its Deferred"):
            deferator.__anext__()

    def test_what_is_no_iterator_is_refused(self) -> None:
        with pytest.raises(TypeError, match="needs an iterator, got list"):
            Deferator([1, 2])  # type: ignore[call-overload]  # that is the point

    @pytest.mark.parametrize("x", ["one", b"one", [1], (1,), {1}, {1: 1}, range(3), 5, None, object()])
    def test_containers_are_no_iterators(self, x: object) -> None:
        assert not Deferator.isIterator(x)

    def test_generators_and_what_makes_them_are(self) -> None:
        def items() -> Iterator[int]:
            yield 1

        for x in (items, items(), iter([]), map(abs, []), Items(3)):
            assert Deferator.isIterator(x)


class TestCredit:
    def test_one_item_is_fetched_before_any_is_asked_for(self, source: ListSource, deferator: Deferator[Any]) -> None:
        assert source.credit == 1
        source.give(1)
        assert source.credit == 0

    def test_a_slow_taker_has_little_fetched_for_it(self, clock: Clock) -> None:
        items = Items(10_000)
        deferator = Deferator(items, reactor=clock)
        clock.advance(0)
        for number in range(1, 50):
            d = deferator.__anext__()
            clock.advance(0)
            assert resultOf(d) == number
            assert items.got <= number + 4

    def test_no_taker_has_more_than_the_limit_fetched(self, clock: Clock) -> None:
        items, number, most = Items(20_000), 0, 0
        deferator = Deferator(items, reactor=clock)
        clock.advance(0)

        async def take() -> None:
            nonlocal number, most
            async for number in deferator:
                most = max(most, items.got - number)

        Deferred.fromCoroutine(take())
        clock.advance(0)
        assert number == 20_000
        assert 100 < most <= AHEAD_LIMIT


class TestStopping:
    def test_it_closes_the_iterator_and_there_is_nothing_more(self, clock: Clock) -> None:
        items = Items(100)
        deferator = Deferator(items, reactor=clock)
        clock.advance(0)
        deferator.stop()
        deferator.stop()
        assert items.closed == 1
        assert list(deferator) == []
        assert outcomes(deferator.d) == [False]
        assert clock.getDelayedCalls() == []

    def test_it_leaves_no_delayed_call(self, clock: Clock) -> None:
        deferator = Deferator(Items(10), reactor=clock)
        deferator.__anext__()
        assert clock.getDelayedCalls() != []
        deferator.stop()
        assert clock.getDelayedCalls() == []

    def test_finally_is_run(self, clock: Clock) -> None:
        seen: list[str] = []

        def items() -> Iterator[int]:
            try:
                yield from range(100)
            finally:
                seen.append("finally")

        deferator = Deferator(items(), reactor=clock)
        clock.advance(0)
        deferator.stop()
        assert seen == ["finally"]

    def test_in_the_middle_of_a_wait_says_that_there_is_none(
        self, source: ListSource, deferator: Deferator[Any]
    ) -> None:
        d = deferator.__anext__()
        deferator.stop()
        errorOf(d, StopAsyncIteration)
        assert source.closed

    def test_async_for_just_ends(self, clock: Clock, source: ListSource, deferator: Deferator[Any]) -> None:
        got: list[Any] = []

        async def take() -> str:
            async for item in deferator:
                got.append(item)
            return "ended"

        d = Deferred.fromCoroutine(take())
        source.give(1)
        deferator.stop()
        assert (got, outcomes(d)) == ([1], ["ended"])

    def test_an_item_can_do_it(self, source: ListSource, deferator: Deferator[Any]) -> None:
        item: Any = next(deferator)
        item.stop()
        errorOf(item, StopAsyncIteration)
        assert source.closed

    def test_what_arrives_after_is_dropped(self, source: ListSource, deferator: Deferator[Any]) -> None:
        source.prompt = False
        deferator.stop()
        source.give(1)
        assert list(deferator) == []
        source.sink.over(ValueError("while closing"))
        assert outcomes(deferator.d) == [False]

    def test_the_iterator_itself_may_want_it(self, clock: Clock) -> None:
        seen: list[str] = []

        def items() -> Iterator[int]:
            try:
                yield 1
                mine.stop()
                yield 2
            finally:
                seen.append("finally")

        mine = Deferator(items(), reactor=clock)
        assert taken(clock, mine) == [1], "what was on its way is not wanted any more"
        assert seen == ["finally"]

    def test_after_the_end_it_changes_nothing(self, clock: Clock) -> None:
        items = Items(1)
        deferator = Deferator(items, reactor=clock)
        assert taken(clock, deferator) == [1]
        deferator.stop()
        assert items.closed == 1
        assert outcomes(deferator.d) == [True]

    def test_from_within_what_takes_the_last_item(self, clock: Clock) -> None:
        items = Items(1)
        deferator = Deferator(items, reactor=clock)
        deferator.__anext__().addCallback(lambda _: deferator.stop())
        clock.advance(0)
        assert items.closed == 1

    def test_onEnded_is_called_once(self, clock: Clock, source: ListSource) -> None:
        ends: list[int] = []
        deferator: Deferator[Any] = Deferator(source, onEnded=lambda: ends.append(1), reactor=clock)
        deferator.stop()
        source.sink.over(None)
        assert ends == [1]


class TestCancellingAnItem:
    def test_leaves_it_the_next(self, source: ListSource, deferator: Deferator[Any]) -> None:
        d = deferator.__anext__()
        d.cancel()
        errorOf(d, CancelledError)
        source.give("a")
        assert resultOf(deferator.__anext__()) == "a"
        assert not source.closed


class TestDropping:
    def test_ends_the_iteration_in_a_turn_of_its_own(self, clock: Clock, source: ListSource) -> None:
        deferator: Deferator[Any] = Deferator(source, reactor=clock)
        del deferator
        gc.collect()
        assert not source.closed, "rubbish is collected in the middle of anything"
        clock.advance(0)
        assert source.closed

    def test_does_so_in_a_cycle_too(self, clock: Clock, source: ListSource) -> None:
        deferator: Any = Deferator(source, reactor=clock)
        deferator.me = deferator
        del deferator
        gc.collect()
        clock.advance(0)
        assert source.closed

    def test_leaves_nothing_to_do_when_it_had_ended(self, clock: Clock, source: ListSource) -> None:
        deferator: Deferator[Any] = Deferator(source, reactor=clock)
        deferator.stop()
        del deferator
        gc.collect()
        assert clock.getDelayedCalls() == []

    def test_tells_who_has_its_d(self, clock: Clock, source: ListSource) -> None:
        deferator: Deferator[Any] = Deferator(source, reactor=clock)
        ended = outcomes(deferator.d)
        kept = deferator.d
        del deferator
        gc.collect()
        clock.advance(0)
        assert kept.called
        assert ended == [False]

    def test_in_another_thread_has_the_reactor_do_it(self, source: ListSource) -> None:
        class Reactor(Clock):
            """One that has threads: it keeps what they ask for."""

            def __init__(self) -> None:
                super().__init__()
                self.asked: list[Callable[[], object]] = []

            def callFromThread(self, f: Callable[[], object]) -> None:
                self.asked.append(f)

        reactor = Reactor()
        held: list[Deferator[Any]] = [Deferator(source, reactor=reactor)]
        thread = threading.Thread(target=held.clear)
        thread.start()
        thread.join()
        gc.collect()
        assert not source.closed
        (stop,) = reactor.asked
        stop()
        assert source.closed

    def test_while_an_item_is_waited_for_goes_on(self, clock: Clock, source: ListSource) -> None:
        d: Any = Deferator[Any](source, reactor=clock).__anext__()
        gc.collect()
        clock.advance(0)
        source.give("a")
        assert resultOf(d) == "a"
        del d
        gc.collect()
        clock.advance(0)
        assert source.closed


class TestSlices:
    def test_other_things_have_their_turn_between(self, clock: Clock) -> None:
        order: list[str] = []

        def items() -> Iterator[int]:
            for number in range(3):
                clock.rightNow += 2 * SLICE  # it takes its time
                order.append("item")
                yield number

        def other() -> None:
            order.append("other")
            if len(order) < 6:
                clock.callLater(0, other)

        source = LocalSource(items(), clock)
        source.begin(ListSink())
        source.grant(100)
        clock.callLater(0, other)
        assert order == [], "it begins in the next turn"
        clock.advance(0)
        assert order == ["item", "other"] * 3

    def test_no_more_is_produced_than_granted(self, clock: Clock) -> None:
        items = Items(100)
        source = LocalSource(items, clock)
        source.begin(ListSink())
        source.grant(3)
        clock.advance(0)
        assert items.got == 3
        source.grant(2)
        source.grant(2)
        clock.advance(0)
        assert items.got == 7

    def test_an_error_in_closing_is_the_iterations(self, clock: Clock) -> None:
        def items() -> Iterator[int]:
            try:
                yield 1
            finally:
                raise ValueError("while closing")

        source, sink = LocalSource(items(), clock), ListSink()
        source.begin(sink)
        source.grant(1)
        clock.advance(0)
        source.close()
        assert [str(error) for error in sink.overs] == ["while closing"]


class ListSink:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.overs: list[BaseException | None] = []

    def arrived(self, items: Any, more: bool = False) -> None:
        self.items += items

    def over(self, error: BaseException | None) -> None:
        self.overs.append(error)


class TestItsEnd:
    @pytest.mark.parametrize("items", [0, 1, 3])
    def test_has_been_told_when_a_loop_ends(self, clock: Clock, source: ListSource, items: int) -> None:
        deferator: Deferator[int] = Deferator(iter(range(items)), reactor=clock)

        @inlineCallbacks
        def loop() -> Any:
            for d in deferator:  # noqa: UP028  # it is about this loop
                yield d
            return deferator.d.called

        ended = loop()
        clock.pump([0] * 5)
        assert resultOf(ended) is True

    def test_has_been_told_when_an_asynchronous_loop_ends(self, clock: Clock) -> None:
        deferator = Deferator(iter(range(3)), reactor=clock)

        async def loop() -> bool:
            async for _ in deferator:
                pass
            return bool(deferator.d.called)

        ended = Deferred.fromCoroutine(loop())
        clock.pump([0] * 5)
        assert resultOf(ended) is True

    def test_is_waited_for_by_the_methods_of_a_deferred(self, clock: Clock) -> None:
        deferator: Any = Deferator(iter(()), reactor=clock)
        seen: list[Any] = []
        other: Deferred[Any] = Deferred()
        deferator.addCallback(seen.append).addErrback(seen.append)
        deferator.addCallbacks(lambda _: "then", seen.append)
        deferator.addBoth(lambda result: f"{result}, and the last")
        deferator.chainDeferred(other)
        assert seen == [True]
        assert resultOf(other) == "then, and the last"
        assert deferator.called
        with pytest.raises(AttributeError, match="'Deferator' object has no attribute 'addCallbak'"):
            _ = deferator.addCallbak

    def test_takes_no_option_that_there_is_not(self) -> None:
        with pytest.raises(TypeError, match="options are limit, onEnded and reactor, got limits"):
            Deferator(iter("ab"), limits=5)  # type: ignore[call-overload]  # that is the point
