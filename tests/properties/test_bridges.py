"""Bridges under any interleaving: exactly the items, in order, each once, up to the end; and nothing is left.

The loop is the test itself, and turns when told to. The thread is a real one, and does one thing at a time: the test
goes on when that is done, or when the thread waits for the loop. So any interleaving can be had, and had again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from asynqueue.bridges import Consumerator, OrderedItemProducer, PoolUser
from asynqueue.errors import ThreadError


class HeldReactor:
    """What a reactor has for bridges; nothing happens before the test says so."""

    running = False

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.triggers: dict[object, tuple[Any, ...]] = {}

    def callFromThread(self, f: Any, *args: Any) -> None:
        self.calls.append((f, *args))

    def addSystemEventTrigger(self, phase: str, event: str, f: Any, *args: Any) -> object:
        self.triggers[trigger := object()] = (f, *args)
        return trigger

    def removeSystemEventTrigger(self, trigger: object) -> None:
        del self.triggers[trigger]

    def turn(self) -> None:
        """One turn of the loop."""
        calls, self.calls = self.calls, []
        for f, *args in calls:
            f(*args)

    def stop(self) -> None:
        while self.triggers:
            f, *args = self.triggers.pop(next(iter(self.triggers)))
            f(*args)


def itself(d: Deferred[int]) -> Deferred[int]:
    """A call that makes what D will be."""
    return d


class Reading:
    """A thread that reads BRIDGE, and stands still where the test can see it."""

    def __init__(self, bridge: Consumerator[int]) -> None:
        self.got: list[int] = []
        self.end: BaseException | None = None
        self.busy = False
        self._bridge = bridge
        self._still: SimpleQueue[bool] = SimpleQueue()  # False: it waits for the loop
        self._todo: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        wait = bridge._arrival.wait

        def seenWaiting() -> bool:
            self._still.put(False)  # it has the lock still, so nobody can wake it too early
            return wait()

        bridge._arrival.wait = seenWaiting  # type: ignore[method-assign,assignment]  # for the test to see it
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def read(self) -> None:
        """Have it ask for an item, unless it does or has heard of the end."""
        if not self.busy and self.end is None:
            self._do(self._next)

    def leave(self) -> None:
        if not self.busy:
            self._do(self._bridge.stop)

    def catchUp(self) -> None:
        """After anything that may have woken it: wait until it stands still."""
        if self.busy and not self._bridge._flow._readerWaits:
            self._settle()

    def close(self) -> None:
        self._todo.put(None)
        self._thread.join()

    def _do(self, what: Callable[[], None]) -> None:
        self.busy = True
        self._todo.put(what)
        self._settle()

    def _settle(self) -> None:
        self.busy = not self._still.get(timeout=20)

    def _work(self) -> None:
        while (what := self._todo.get()) is not None:
            what()
            self._still.put(True)

    def _next(self) -> None:
        try:
            self.got.append(next(self._bridge))
        except BaseException as error:
            self.end = error


class Writing:
    """A producer of 0, 1, 2 ... that writes when the test says so, and only while it may."""

    def __init__(self, consumer: Consumerator[int], streaming: bool, limit: int, eager: bool) -> None:
        self.written = 0
        self.stops = 0
        self.consumer, self.streaming, self.limit, self.eager = consumer, streaming, limit, eager
        self.may = streaming
        self.registered = True
        consumer.registerProducer(self, streaming)

    def write(self) -> None:
        if self.may and self.registered:
            self.may = self.streaming
            self.written += 1
            self.consumer.write(self.written - 1)

    def pauseProducing(self) -> None:
        assert self.may, "paused once"
        assert self.streaming
        self.may = False

    def resumeProducing(self) -> None:
        assert not self.may, "resumed once"
        self.may = True
        for _ in range(self.limit if self.eager else 0):
            self.write()

    def stopProducing(self) -> None:
        self.stops += 1
        self.registered = self.may = False


STEPS = st.sampled_from(("write", "write", "write", "read", "read", "read", "turn", "turn"))
ENDS = st.sampled_from(("unregister", "fail", "stop", "leave", "shutdown"))


@settings(max_examples=300)
@given(
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
    st.lists(STEPS, max_size=40),
    ENDS,
    st.lists(STEPS | ENDS, max_size=20),
)
def test_exactly_the_items_in_order_each_once_up_to_the_end(
    limit: int, streaming: bool, eager: bool, before: list[str], how: str, after: list[str]
) -> None:
    reactor = HeldReactor()
    c = Consumerator[int](limit=limit, reactor=reactor)
    done: list[Any] = []
    c.deferUntilDone().addBoth(done.append)
    reading = Reading(c)
    error = LookupError("the writing side has failed")
    ending: str | None = None
    writtenAtTheEnd = 0
    try:
        writing = Writing(c, streaming, limit, eager)
        for step in [*before, how, *after]:
            if step == "write":
                writing.write()
            elif step == "read":
                reading.read()
            elif step == "turn":
                reactor.turn()
            elif step == "leave" and reading.busy:
                continue
            else:
                if ending is None:
                    ending, writtenAtTheEnd = step, writing.written
                if step == "unregister":
                    writing.registered = False
                    c.unregisterProducer()
                elif step == "fail":
                    writing.registered = False
                    c.fail(error)
                elif step == "stop":
                    c.stop()
                elif step == "leave":
                    reading.leave()
                else:
                    reactor.stop()
                if not reading.end and (step == "leave" or (step == "shutdown" and ending != "leave")):
                    ending = step  # which is what the thread hears of then
            reading.catchUp()
            assert reading.got == list(range(len(reading.got)))
            assert writing.written - len(reading.got) <= 2 * limit, "never more than wait or are in hand"
        if ending is None:  # a thread that waits cannot leave
            ending, writtenAtTheEnd = "stop", writing.written
            c.stop()
            reading.catchUp()
        for _ in range(200):
            reactor.turn()
            reading.catchUp()
            reading.read()
        for _ in range(3):
            reactor.turn()
        reading.read()
    finally:
        reactor.stop()
        reading.catchUp()
        reading.close()
    assert len(done) == 1
    assert reactor.triggers == {}
    assert writing.stops <= 1
    assert not writing.registered, "it was told, or said so itself"
    if done == [True]:
        assert reading.got == list(range(writtenAtTheEnd))
        assert isinstance(reading.end, StopIteration)
    elif ending == "fail":
        assert reading.got == list(range(writtenAtTheEnd))
        assert reading.end is error
    elif ending == "leave":
        assert isinstance(reading.end, StopIteration)
    elif ending == "shutdown":
        assert isinstance(reading.end, ThreadError)
    if ending in ("unregister", "stop"):
        assert done == [True]


@settings(max_examples=60)
@given(
    st.permutations(range(12)),
    st.integers(1, 5),
    st.none() | st.integers(0, 11),
    st.none() | st.integers(0, 11),
    st.booleans(),
)
@pytest_twisted.ensureDeferred
async def test_items_are_iterated_in_the_order_of_the_calls_that_make_them(
    order: list[int], limit: int, failing: int | None, leaving: int | None, raising: bool
) -> None:
    """Whatever order they are made in; up to a call that fails, or to where the blocking function leaves."""
    got: list[int] = []
    error = LookupError("an item could not be made")

    def use(items: Iterator[int]) -> str:
        for item in items:
            got.append(item)
            if item == leaving:
                if raising:
                    raise KeyError(item)  # a LookupError as well
                break
        return "used"

    async def run() -> object:
        """What came of it: a result, or an error."""
        p = OrderedItemProducer[int](limit=limit)
        await p.start(use)
        made = [Deferred[int]() for _ in order]
        told: list[Any] = []
        for d in made:
            p.produceItem(itself, d).addCallback(told.append)
        stopped = p.stop()
        for number in order:
            if made[number].called:
                continue  # it was cancelled, since nobody wants it
            if number == failing:
                made[number].errback(Failure(error))
            else:
                made[number].callback(number)
        try:
            return await stopped
        except LookupError as raised:
            return raised
        finally:
            assert len(told) == len(made), "each is told once"
            assert all(d.called for d in made)
            p.i._flow.validate()
            await PoolUser.shutdown()

    outcome = await run()
    stops = [number for number in (failing, leaving) if number is not None]
    if not stops:
        assert (outcome, got) == ("used", list(range(12)))
    elif min(stops) == failing:
        assert outcome is error
        assert got == list(range(failing))
    else:
        assert got == list(range(min(stops) + 1))
        # Which was first? The loop may have made the item that fails before it heard that nobody wants it.
        left = isinstance(outcome, KeyError) if raising else outcome == "used"
        assert left or (failing is not None and outcome is error)
