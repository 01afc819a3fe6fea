"""What bridges between a loop that must not block and a thread that cannot help it have in common.

Think of a hand-over counter. One side puts items down, the other takes all that are there at once and goes through
them; when the counter is full the writing side is asked to hold, and to go on when it has been cleared. Who has to
hold, who is woken and how it ends is decided by `asynqueue.core.flow.boundedbuffer.BoundedBuffer`. Here it is locked,
for it is shared; threads that it makes wait do so on a condition; and what there is to do in the loop is done by one
method, `_attend`, which a thread can ask for with at most one `callFromThread` at a time however many items pass.

Every bridge ends once, and both its sides hear of it:

- the writing side has no more: what was written is read, then the iteration ends, or raises the error given;
- the reading side has left: what is written is dropped, or refused;
- the reactor stops: a thread that waits is woken, with `asynqueue.errors.ThreadError`.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Container, Iterator
from operator import itemgetter
from time import perf_counter
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from asynqueue.bridges.threadpool import PoolUser, isLoopThread
from asynqueue.core.flow.boundedbuffer import Action, BoundedBuffer, End, Items, Phase, Wait
from asynqueue.core.flow.iterators import SLICE
from asynqueue.errors import ThreadError
from asynqueue.interfaces import ItemSink, ThreadCaller
from asynqueue.iteration.deferator import Deferator
from asynqueue.reactor.lookup import installedReactor
from asynqueue.reactor.shutdowntrigger import ShutdownTrigger
from asynqueue.reactor.waiters import Waiters

__all__ = ["IterationGetter"]

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

LIMIT = 128
"""How many items may wait, unless told."""


class IterationGetter(PoolUser, Generic[T]):
    """What bridges have in common: the reading side, and how it ends.

    In a thread it is an iterator that blocks until there is an item. ``for item in bridge`` holds a *reader*, which
    ``iter(bridge)`` makes; when the last reader is dropped before the end, by ``break`` or by an error, the reading
    side has left. Hold on to one to go on with it later. Any number of threads may read: each item goes to one.

    In the loop, use ``async for item in bridge``, or `deferator`. To block there would be to wait for oneself, and
    is a RuntimeError.

    At most LIMIT items (1 or more, else `ValueError`) wait, unless the writing side does not hold when asked to; the
    thread takes them all at once when it has done with those before, so twice as many may be in memory. MAXTHREADS
    is that of `PoolUser.setup`. THREAD is what `runInThread` uses rather than the pool, such as a
    `asynqueue.threads.ThreadLooper`: a thread of the pool is waited for when the reactor stops, however long what it
    calls takes; one of a looper is not. REACTOR is the installed one if it is not given.
    """

    def __init__(
        self,
        maxThreads: int | None = None,
        *,
        limit: int = LIMIT,
        thread: ThreadCaller | None = None,
        reactor: Any = None,
    ) -> None:
        self.setup(maxThreads)
        self._thread = thread
        self.reactor: Any = installedReactor(reactor)
        self._flow = BoundedBuffer[T](limit)
        self._lock = threading.Lock()
        self._arrival = threading.Condition(self._lock)
        self._room = threading.Condition(self._lock)
        self._hand: deque[T] = deque()  # what was taken from the flow by the thread, and is the next
        self._readers: set[int] = set()
        self._hasLeft = False  # seen by the thread at once, by the loop in its next turn
        self._poked = False
        self._attending = False
        self._source: _LoopSource[T] | None = None
        self._done = Waiters[bool]()
        self._finished = False
        me = weakref.ref(self)  # The reactor must not keep a bridge alive.
        self._trigger = ShutdownTrigger(lambda: _reactorStops(me), "before")
        self._beginWatch()

    # The reading side.

    def __iter__(self) -> Iterator[T]:
        """A reader: for threads."""
        return _Reader(self)

    def __next__(self) -> T:
        """The next item, without a reader: for threads."""
        while True:
            try:
                return self._hand.popleft()
            except IndexError:
                self._refill()

    def __aiter__(self) -> Deferator[T]:
        """The items in the loop, as they come. Only once."""
        return self.deferator()

    def deferator(self) -> Deferator[T]:
        """A `Deferator` of the items, for the loop. Raises RuntimeError when there is one already."""
        if self._source is not None:
            raise RuntimeError("this bridge is being read in the loop already")
        self._source = _LoopSource(self)
        return Deferator(self._source, reactor=self.reactor)

    def runInThread(self, f: Callable[Concatenate[Iterator[T], P], R], /, *args: P.args, **kw: P.kwargs) -> Deferred[R]:
        """A Deferred of what F returns or raises, called in a thread with a reader and what follows.

        When F is over, or is not waited for any more, the reading side has left.

        >>> d = consumerator.runInThread(png.Writer(640, 480).write_rows)        # doctest: +SKIP
        """

        def run() -> R:
            try:
                return f(iter(self), *args, **kw)
            finally:
                self.leave()

        if self._thread is None:
            return self._callInPool(self.reactor, run)
        # In a list, for a thread of a queue or a looper would go on with an iterator by itself.
        return self._thread.deferToThread(lambda: [run()]).addCallbacks(itemgetter(0), self._unheard)

    def leave(self) -> None:
        """The reading side wants no more: what waits is dropped and the writing side told at once. For any thread."""
        self._hasLeft = True
        with self._lock:
            self._hand.clear()
            self._flow.closeReader()
            attend = self._tell()
        if attend:
            self._attend()

    def abort(self, error: BaseException) -> None:
        """It is over: what waits is dropped, and the reading side hears of ERROR. For any thread."""
        with self._lock:
            self._hand.clear()
            self._flow.abort(error)
            attend = self._tell()
        if attend:
            self._attend()

    def deferUntilDone(self) -> Deferred[bool]:
        """Fires when the bridge is done with: True when all that was written was read, False when it ended early."""
        if self._finished:
            return succeed(self._flow.complete)
        return self._done.add()

    def _unheard(self, reason: Failure) -> Failure:
        """Nothing more is heard of the thread."""
        self.leave()
        return reason

    # How the two sides hear of one another.

    def _refill(self) -> None:
        """Wait until there are items in the hand, or raise what there is instead."""
        with self._lock:
            while not self._hand:
                answer = End(None) if self._hasLeft else self._flow.take()
                if isinstance(answer, Items):
                    self._hand.extend(answer.items)
                elif isinstance(answer, Wait):
                    if isLoopThread() and getattr(self.reactor, "running", False):
                        raise RuntimeError("to iterate would block the reactor's thread: there, use `async for`")
                    self._arrival.wait()
                    continue
                if self._tell():
                    self._poke()
                if isinstance(answer, End):
                    raise answer.error or StopIteration

    def _tell(self) -> bool:
        """With the lock held: wake the threads that are due, and the loop. Gives True in the loop itself, which then
        has to `_attend` with the lock released."""
        flow = self._flow
        loop = flow.pending is not None
        if flow.shouldWakeReaders():
            self._arrival.notify_all()
            loop = loop or self._source is not None
        if flow.shouldWakeWriters():
            self._room.notify_all()
        if loop and not isLoopThread():
            self._poke()
            loop = False
        return loop

    def _poke(self) -> None:
        """With the lock held: have the loop attend, in a turn of its own."""
        if not self._poked:
            self._poked = True
            self.reactor.callFromThread(self._comePoked)

    def _comePoked(self) -> None:
        with self._lock:
            self._poked = False
        self._attend()

    def _attend(self) -> None:
        """In the loop: do what there is to do there, for as long as a slice lasts."""
        if self._attending:
            # In the midst of being told to resume, the producer writes: what ends that cannot wait. All else has to,
            # or one resumption would be inside another.
            self._attendOnce((Action.PAUSE, Action.STOP))
            return
        self._attending = True
        deadline = perf_counter() + SLICE
        try:
            while self._attendOnce(tuple(Action)) or (self._source is not None and self._source.give()):
                if perf_counter() > deadline:
                    with self._lock:
                        self._poke()
                    break
        finally:
            self._attending = False

    def _attendOnce(self, heeded: Container[Action]) -> bool:
        """Do what is due, if it is one of those HEEDED. False when there is nothing to do."""
        with self._lock:
            due = self._flow.pending
            if due is None or due not in heeded:
                return False
            self._flow.done(due)
        if due is Action.FINISHED:
            self._finish()
            return True
        try:
            self._direct(due)
        except Exception as error:  # of the user's producer: it ends, and the thread hears why
            self._end(error)
        return True

    def _direct(self, due: Action) -> None:
        """In the loop: have the producer do what is DUE."""
        raise NotImplementedError

    def _end(self, error: BaseException | None) -> None:
        """The writing side has no more."""
        with self._lock:
            self._flow.end(error)
            attend = self._tell()
        if attend:
            self._attend()

    def _finish(self) -> None:
        self._finished = True
        self._trigger.remove()
        self._done.fire(self._flow.complete)

    # The end of the reactor.

    def _beginWatch(self) -> None:
        if isLoopThread():
            self._watchReactor()
        else:
            self.reactor.callFromThread(self._watchReactor)

    def _watchReactor(self) -> None:
        if not self._finished:
            self._trigger.add(self.reactor)

    def _reactorStops(self) -> None:
        self.abort(ThreadError("the iteration ended early: the reactor has stopped"))


def _reactorStops(whom: weakref.ref[IterationGetter[Any]]) -> None:
    bridge = whom()
    if bridge is not None:
        bridge._reactorStops()


class _Reader(Generic[T]):
    """Iterates for whoever holds it. When the last one of its bridge is dropped, the reading side has left."""

    __slots__ = ("_bridge", "_hand")

    def __init__(self, bridge: IterationGetter[T]) -> None:
        self._bridge = bridge
        self._hand = bridge._hand
        bridge._readers.add(id(self))

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        while True:
            try:
                return self._hand.popleft()
            except IndexError:
                self._bridge._refill()

    def __del__(self) -> None:
        # In any thread, in the middle of anything: so nothing here takes a lock.
        bridge = self._bridge
        bridge._readers.discard(id(self))
        if not bridge._readers and bridge._flow.phase is not Phase.OVER:
            bridge._hasLeft = True
            bridge._hand.clear()
            bridge.reactor.callFromThread(bridge.leave)


class _LoopSource(Generic[T]):
    """The reading side in the loop: an `asynqueue.interfaces.ItemSource`."""

    def __init__(self, bridge: IterationGetter[T]) -> None:
        self._bridge = bridge
        self._sink: ItemSink | None = None
        self._credit = 0

    def begin(self, sink: ItemSink) -> None:
        """Send to SINK what is granted."""
        self._sink = sink

    def grant(self, items: int) -> None:
        """ITEMS more are wanted: begin in the reactor's next turn, unless we are at it."""
        self._credit += items
        if not self._bridge._attending:
            with self._bridge._lock:
                self._bridge._poke()

    def close(self) -> None:
        """No more are wanted."""
        self._over(None)
        self._bridge.leave()

    def give(self) -> bool:
        """Give what is granted and is here. False when there is nothing to give."""
        bridge = self._bridge
        if self._sink is None or not self._credit:
            return False
        with bridge._lock:
            answer = bridge._flow.take(self._credit)
            bridge._tell()
        if isinstance(answer, Items):
            self._credit -= len(answer.items)
            self._sink.arrived(answer.items)
            return True
        if isinstance(answer, End):
            self._over(answer.error)
            return True
        return False

    def _over(self, error: BaseException | None) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.over(error)
