"""Items that are fetched one by one: `Prefetcherator`, and a `Deferator` of what a call gives."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from asynqueue import Deferator, ImplementationError, NotReadyError, Prefetcherator
from asynqueue.core.flow.iterators import SLICE
from asynqueue.iteration.sources import FetchSource, fetchTriple
from tests.support.calls import inLoop
from tests.support.deferreds import errorOf, logged, outcomes, resultOf


@pytest.fixture
def clock() -> Clock:
    return Clock()


class BufferPool:
    """Gives ITEMS one by one, each as a Deferred that the test fires."""

    def __init__(self, *items: Any) -> None:
        self.items = list(items)
        self.asked: list[tuple[Any, ...]] = []
        self.waiting: list[Deferred[Any]] = []
        self.cancelled = 0

    def getNext(self, *args: Any, **kw: Any) -> Deferred[Any]:
        self.asked.append((*args, kw) if kw else args)
        d: Deferred[Any] = Deferred(self._cancel)
        self.waiting.append(d)
        return d

    def give(self) -> None:
        """Answer what was asked first."""
        item = self.items.pop(0)
        if isinstance(item, Exception):
            self.waiting.pop(0).errback(item)
        else:
            self.waiting.pop(0).callback((item, True, bool(self.items)))

    def _cancel(self, _: Deferred[Any]) -> None:
        self.cancelled += 1


def fetching(clock: Clock, f: Callable[..., Any], *args: Any, **kw: Any) -> Deferator[Any]:
    """A Deferator of what F gives, with CLOCK for its reactor. (Its keywords are those of F.)"""
    return Deferator(FetchSource(partial(fetchTriple, f, args, kw), reactor=clock), reactor=clock)


def drain(clock: Clock, deferator: Deferator[Any]) -> Deferred[list[Any]]:
    """What there is left of it."""

    async def run() -> list[Any]:
        return [item async for item in deferator]

    return Deferred.fromCoroutine(run())


class TestADeferatorOfACall:
    @inLoop
    async def test_gives_the_callable_all_its_arguments_and_keywords(self) -> None:
        items = [1, 2, 3]

        def more(given: dict[str, int], *, limit: int, reactor: object) -> tuple[int, bool, bool]:
            return items.pop(0) * given["step"] * limit, True, bool(items)

        deferator = Deferator("items", more, {"step": 5}, limit=2, reactor=None)
        assert [await d for d in deferator] == [10, 20, 30]  # on a busy machine, some in later turns
        assert repr(deferator) == "<Deferator of items>"

    def test_asks_for_each_item_with_the_arguments_it_was_given(self, clock: Clock) -> None:
        shelf = BufferPool("a")
        deferator: Deferator[str] = fetching(clock, shelf.getNext, 1, two=2)
        assert shelf.asked == [(1, {"two": 2})]
        shelf.give()
        assert resultOf(next(deferator)) == "a"
        assert list(deferator) == []
        assert outcomes(deferator.d) == [True]

    def test_asks_for_one_at_a_time_and_fetches_two_ahead_at_most(self, clock: Clock) -> None:
        shelf = BufferPool(*range(10))
        deferator: Deferator[int] = fetching(clock, shelf.getNext)
        got = []
        for d in deferator:
            while not d.called:
                assert len(shelf.waiting) == 1
                shelf.give()
            got.append(resultOf(d))
            assert len(shelf.asked) - len(got) <= 2
        assert got == list(range(10))

    def test_an_item_of_for_need_not_wait_when_it_is_known_that_more_are_left(self, clock: Clock) -> None:
        shelf = BufferPool("a", "b")
        deferator: Deferator[str] = fetching(clock, shelf.getNext)
        first = next(deferator)
        shelf.give()
        assert resultOf(first) == "a"
        assert deferator.moreLeft

    def test_one_that_was_promised_and_is_not_there_is_an_error_for_for_and_an_end_for_async_for(
        self, clock: Clock
    ) -> None:
        def begun() -> tuple[BufferPool, Deferator[str]]:
            shelf = BufferPool()
            deferator: Deferator[str] = fetching(clock, shelf.getNext)
            shelf.waiting.pop().callback(("a", True, True))
            return shelf, deferator

        shelf, deferator = begun()
        everything = drain(clock, deferator)
        shelf.waiting.pop().callback((None, False, False))
        assert resultOf(everything) == ["a"]
        shelf, deferator = begun()
        assert resultOf(next(deferator)) == "a"
        d = next(deferator)
        shelf.waiting.pop().callback((None, False, False))
        assert "the iterator promised another item" in str(errorOf(d, ImplementationError))
        assert list(deferator) == []

    def test_an_empty_one_gives_none(self, clock: Clock) -> None:
        assert list(fetching(clock, lambda: (None, False, False))) == []

    def test_coroutines_will_do(self, clock: Clock) -> None:
        items = [1, 2, 3]

        async def getNext() -> tuple[int, bool, bool]:
            return items.pop(0), True, bool(items)

        assert resultOf(drain(clock, fetching(clock, getNext))) == [1, 2, 3]

    def test_an_error_comes_after_the_items_before_it(self, clock: Clock) -> None:
        shelf = BufferPool("a", LookupError("the shelf broke"))
        deferator: Deferator[str] = fetching(clock, shelf.getNext)
        shelf.give()
        assert resultOf(next(deferator)) == "a"
        d = next(deferator)
        shelf.give()
        assert str(errorOf(d, LookupError)) == "the shelf broke"
        assert outcomes(deferator.d) == [False]

    def test_what_gives_no_triple_is_named(self, clock: Clock) -> None:
        deferator: Deferator[Any] = fetching(clock, divmod, 7, 2)
        error = errorOf(deferator.__anext__(), ImplementationError)
        assert str(error) == "divmod(7, 2) has to return (item, isValid, moreLeft), not (3, 1)"

    def test_what_cannot_be_called_is_refused(self) -> None:
        with pytest.raises(TypeError, match="must be callable, got 5"):
            Deferator(None, 5)  # type: ignore[call-overload]  # that is the point

    def test_to_stop_it_lets_go_of_what_is_being_fetched(self, clock: Clock) -> None:
        shelf = BufferPool("a")
        deferator: Deferator[str] = fetching(clock, shelf.getNext)
        deferator.stop()
        deferator.stop()
        assert shelf.cancelled == 1
        assert outcomes(deferator.d) == [False]

    def test_to_forget_it_stops_it(self, clock: Clock) -> None:
        shelf = BufferPool("a")
        deferator: Deferator[str] = fetching(clock, shelf.getNext)
        del deferator
        gc.collect()
        clock.advance(0)
        assert shelf.cancelled == 1

    def test_it_may_be_stopped_from_within_the_call(self, clock: Clock) -> None:
        shelf, stops = BufferPool("a", "b"), [False]

        def getNext() -> Deferred[Any]:
            if stops[0]:
                deferator.stop()
            return shelf.getNext()

        deferator: Deferator[str] = fetching(clock, getNext)
        stops[0] = True
        d = deferator.__anext__()
        shelf.give()
        assert resultOf(d) == "a"
        assert shelf.cancelled == 1
        assert not deferator.moreLeft

    def test_other_things_have_their_turn_between_what_is_here_at_once(self, clock: Clock) -> None:
        taken = [0]

        def getNext() -> tuple[int, bool, bool]:
            clock.rightNow += SLICE / 3
            taken[0] += 1
            return taken[0], True, taken[0] < 50

        d = drain(clock, fetching(clock, getNext))
        assert 0 < taken[0] < 10
        for _ in range(20):
            clock.advance(0)
        assert resultOf(d) == list(range(1, 51))


class TestADeferatorOfAnAsynchronousIterator:
    async def items(self, closed: list[str]) -> AsyncIterator[int]:
        try:
            for number in range(5):
                yield number
            raise LookupError("no more")
        finally:
            closed.append("finally")

    def test_gives_its_items_then_its_error(self, clock: Clock) -> None:
        closed: list[str] = []
        deferator = Deferator(self.items(closed), reactor=clock)
        assert [resultOf(deferator.__anext__()) for _ in range(5)] == list(range(5))
        errorOf(deferator.__anext__(), LookupError)
        assert closed == ["finally"]

    def test_closes_it_when_it_is_stopped(self, clock: Clock) -> None:
        closed: list[str] = []
        deferator = Deferator(self.items(closed), reactor=clock)
        assert resultOf(deferator.__anext__()) == 0
        deferator.stop()
        assert closed == ["finally"]

    def test_a_deferator_is_one(self, clock: Clock) -> None:
        inner = Deferator(iter(range(300)), reactor=clock)
        d = drain(clock, Deferator(inner, reactor=clock))
        clock.advance(0)
        assert resultOf(d) == list(range(300))


def itemsThatTell(closed: list[str]) -> Iterator[int]:
    """0, 1, 2; and CLOSED is told when it is."""
    try:
        yield from range(3)
    finally:
        closed.append("finally")


class TestAPrefetcherator:
    def test_tells_with_each_item_whether_more_are_left(self, clock: Clock) -> None:
        p = Prefetcherator[str](reactor=clock)
        assert resultOf(p.setup(iter("abc"))) is True
        assert p.isBusy()
        got = []
        for _ in range(5):
            d = p.getNext()
            clock.advance(0)
            got.append(resultOf(d))
        assert got == [("a", True, True), ("b", True, True), ("c", True, False), *[(None, False, False)] * 2]
        assert not p.isBusy()

    @pytest.mark.parametrize("end", [StopIteration, StopAsyncIteration, IndexError])
    @pytest.mark.parametrize("as_", [lambda item: item, succeed])
    def test_fetches_items_by_a_call_until_it_raises(self, clock: Clock, end: Any, as_: Any) -> None:
        items: dict[str, list[Any]] = {"log": [(1, True), None]}

        def getNext(ID: str, *, step: int) -> Any:
            if not items[ID]:
                raise end
            return as_(items[ID].pop(step))

        p = Prefetcherator[Any]("log", reactor=clock)
        assert resultOf(p.setup(getNext, "log", step=0)) is True
        got = [resultOf(p.getNext()) for _ in range(3)]
        assert got == [((1, True), True, True), (None, True, False), (None, False, False)]
        assert resultOf(Prefetcherator[Any](reactor=clock).setup(getNext, "log", step=0)) is False

    def test_logs_another_error_of_such_a_call(self, clock: Clock) -> None:
        async def getNext() -> int:
            raise OSError("the disk is gone")

        with capturedLogs() as events:
            assert resultOf(Prefetcherator[int](reactor=clock).setup(getNext)) is False
        assert ["the disk is gone" in formatEvent(event) for event in events] == [True]

    def test_makes_the_iterator_by_a_generator_function(self, clock: Clock) -> None:
        def items(n: int) -> Iterator[int]:
            yield n

        p = Prefetcherator[int](reactor=clock)
        assert resultOf(p.setup(items, 7)) is True
        d = p.getNext()
        clock.advance(0)
        assert resultOf(d) == (7, True, False)

    @pytest.mark.parametrize("nothing", [iter(()), [1, 2], "ab", None, lambda: next(iter(()))])
    def test_cannot_be_set_up_with_what_has_no_items_to_come(self, clock: Clock, nothing: Any) -> None:
        p = Prefetcherator[Any](reactor=clock)
        assert resultOf(p.setup(nothing)) is False
        assert not p.isBusy()
        assert resultOf(p.getNext()) == (None, False, False)

    def test_an_error_comes_after_the_items_before_it(self, clock: Clock) -> None:
        def items() -> Iterator[int]:
            yield 1
            raise LookupError("no more")

        p = Prefetcherator[int](reactor=clock)
        p.setup(items)
        d = p.getNext()
        clock.advance(0)
        assert resultOf(d) == (1, True, True), "an error is something to get"
        errorOf(p.getNext(), LookupError)
        assert resultOf(p.getNext()) == (None, False, False)

    def test_gives_one_at_a_time(self, clock: Clock) -> None:
        p = Prefetcherator[int](reactor=clock)
        p.setup(iter(range(3)))
        p.getNext()
        with pytest.raises(NotReadyError):
            p.getNext()

    def test_is_set_up_once_until_it_is_stopped_or_exhausted(self, clock: Clock) -> None:
        p = Prefetcherator[int]("mine", reactor=clock)
        p.setup(iter(range(3)))
        with pytest.raises(RuntimeError, match="<Prefetcherator 'mine'> is busy: stop it"):
            p.setup(iter(range(3)))
        waiting = p.getNext()
        p.stop()
        assert resultOf(waiting) == (None, False, False)
        assert resultOf(p.setup(iter([5]))) is True
        d = p.getNext()
        clock.advance(0)
        assert resultOf(d) == (5, True, False)

    def test_an_item_whose_deferred_is_cancelled_stays_the_next(self, clock: Clock) -> None:
        p = Prefetcherator[int](reactor=clock)
        p.setup(iter(range(3)))
        d = p.getNext()
        d.cancel()
        errorOf(d, CancelledError)
        d = p.getNext()
        clock.advance(0)
        assert resultOf(d) == (0, True, True)

    def test_has_a_number_of_its_own_for_an_ID(self) -> None:
        assert Prefetcherator[int]().ID != Prefetcherator[int]().ID

    def test_is_what_a_deferator_can_be_made_of(self, clock: Clock) -> None:
        closed: list[str] = []
        p = Prefetcherator[int](reactor=clock)
        p.setup(itemsThatTell, closed)
        d = drain(clock, Deferator(p, reactor=clock))
        for _ in range(5):
            clock.advance(0)
        assert (resultOf(d), closed) == ([0, 1, 2], ["finally"])

    def test_ends_with_the_deferator_it_was_made_into(self, clock: Clock) -> None:
        closed: list[str] = []
        p = Prefetcherator[int](reactor=clock)
        p.setup(itemsThatTell, closed)
        deferator = Deferator(p, reactor=clock)
        deferator.stop()
        assert closed == ["finally"]
        assert not p.isBusy()


class TestAnErrorAfterTheStop:
    def test_is_logged_with_its_traceback(self, clock: Clock) -> None:
        def items() -> Iterator[int]:
            try:
                yield from range(3)
            finally:
                raise LookupError("while it was closed")

        deferator = Deferator(items, reactor=clock)
        with logged() as events:
            deferator.stop()
        (event,) = events
        assert event["log_failure"].check(LookupError)
        assert "in items" in event["log_failure"].getTraceback()

    def test_is_logged_of_a_fetch_that_is_let_go_of(self, clock: Clock) -> None:
        late: Deferred[Any] = Deferred(lambda d: d.errback(LookupError("while it was let go of")))
        deferator: Deferator[Any] = fetching(clock, lambda: late)
        with logged() as events:
            deferator.stop()
        assert [event["log_failure"].type for event in events] == [LookupError]
