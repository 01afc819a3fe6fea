"""The common part of all bridges between an event loop, which must not block, and a thread, which may.

One side writes items. The other side takes all items that have come, and works through them. When the buffer is full,
the writing side is asked to pause until there is room. `asynqueue.core.flow.boundedbuffer.BoundedBuffer` decides which
side pauses, which threads are woken, and how the bridge ends. This module adds the following:

- A lock, because several threads use the buffer.
- A condition, on which threads wait.
- `_act`, which carries out the actions of the loop. A thread requests it by `callFromThread`. At most one such request
  is open at a time, however many items pass.

A bridge ends once, and both sides learn of it:

- The writing side ends: the written items are read, then the iteration ends, or raises the given error.
- The reading side leaves: written items are dropped or refused.
- The reactor stops: waiting threads are woken with `asynqueue.errors.ThreadError`.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from operator import itemgetter
from time import perf_counter
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from asynqueue.bridges.threadpool import PoolUser, isLoopThread
from asynqueue.core.flow.boundedbuffer import Action, BoundedBuffer, End, Items, Phase, Wait
from asynqueue.core.flow.iterators import SLICE
from asynqueue.errors import ImplementationError, ThreadError
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
"""The default number of items that may wait."""


class IterationGetter(PoolUser, Generic[T]):
    """The reading side of every bridge, and how it ends.

    *In a thread* a bridge is an iterator that blocks until there is an item. ``for item in bridge`` holds a *reader*,
    which ``iter(bridge)`` makes. When the last reader is dropped before the end, by ``break`` or an error, the reading
    side has left. Keep a reader to continue with it later. Several threads may read, and each item goes to one of them.

    A subclass may make the items in a thread: it overrides `loop`, and `start` runs that.

    *In the loop*, use ``async for item in bridge``, or `deferator`. Blocking there raises RuntimeError, because the
    loop would wait for itself.

    Args:
        maxThreads: As for `PoolUser.setup`.
        limit: The number of items that may wait, 1 or more. A writing side that does not pause may exceed it. A thread
            takes all waiting items at once, so up to twice as many may be in memory.
        thread: Runs the blocking function of `runInThread` instead of the pool, for instance an
            `asynqueue.threads.ThreadLooper`. When the reactor stops, it waits for threads of the pool, however long
            their calls take. It does not wait for the thread of a looper.
        reactor: The reactor. None is the installed one.

    Raises:
        ValueError: `limit` or `maxThreads` is below 1.
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
        self._taken: deque[T] = deque()  # the items that the thread has taken from the buffer
        self._readers: set[int] = set()
        self._hasLeft = False  # the thread sees this at once, the loop in its next turn
        self._loopWoken = False
        self._acting = False
        self._source: _LoopSource[T] | None = None
        self._done = Waiters[bool]()
        self._finished = False
        me: weakref.ref[IterationGetter[Any]] = weakref.ref(self)  # The reactor must not keep a bridge alive.
        self._trigger = ShutdownTrigger(lambda: _reactorStops(me), "before")
        self._beginWatch()

    # The reading side.

    def __iter__(self) -> Iterator[T]:
        """Return a reader, for threads."""
        return _Reader(self)

    def __next__(self) -> T:
        """Return the next item without a reader, for threads."""
        while True:
            try:
                return self._taken.popleft()
            except IndexError:
                self._refill()

    def __aiter__(self) -> Deferator[T]:
        """Return the items for the loop. Only once per bridge."""
        return self.deferator()

    def deferator(self) -> Deferator[T]:
        """Return the items for the loop.

        Returns:
            A `Deferator`.

        Raises:
            RuntimeError: The bridge has a `Deferator` already.
        """
        if self._source is not None:
            raise RuntimeError("this bridge is being read in the loop already: use that Deferator")
        self._source = _LoopSource(self)
        return Deferator(self._source, reactor=self.reactor)

    def runInThread(self, f: Callable[Concatenate[Iterator[T], P], R], /, *args: P.args, **kw: P.kwargs) -> Deferred[R]:
        """Call a blocking function in a thread, with a reader as its first argument.

        When the function returns, or its Deferred is cancelled, the reading side has left.

        Args:
            f: The function. Its first parameter is an iterator over the items.
            args: More positional arguments.
            kw: Keyword arguments.

        Returns:
            A Deferred of the result of `f`.

        Example:
            >>> d = consumerator.runInThread(png.Writer(640, 480).write_rows)        # doctest: +SKIP
        """

        def run() -> R:
            try:
                return f(iter(self), *args, **kw)
            finally:
                self.leave()

        if self._thread is None:
            return self._callInPool(self.reactor, run)
        # The list prevents that a looper or a queue iterates over a result that is an iterator.
        return self._thread.deferToThread(lambda: [run()]).addCallbacks(itemgetter(0), self._threadEnded)

    def loop(self) -> Iterable[T] | None:
        """Return the items. A subclass overrides this, and `start` calls it in a thread, where it may block."""
        raise ImplementationError(f"{type(self).__name__} has no loop(), which start() runs in a thread: override it")

    def start(self) -> Deferred[None]:
        """Run `loop` in a thread, and write its items. After the last one, or an error, the iteration ends.

        Returns:
            A Deferred that fires when that is done, or the reading side has left.
        """
        return self._callInPool(self.reactor, self._loop)

    def leave(self) -> None:
        """End the reading side: drop the waiting items and notify the writing side at once. For any thread."""
        self._hasLeft = True
        with self._lock:
            self._taken.clear()
            self._flow.closeReader()
            attend = self._notify()
        if attend:
            self._act()

    def abort(self, error: BaseException) -> None:
        """End both sides: drop the waiting items. For any thread.

        Args:
            error: The error that the reading side gets.
        """
        with self._lock:
            self._taken.clear()
            self._flow.abort(error)
            attend = self._notify()
        if attend:
            self._act()

    def deferUntilDone(self) -> Deferred[bool]:
        """Wait until the bridge has ended.

        Returns:
            A Deferred of True if all written items were read, and of False if the bridge ended early.
        """
        if self._finished:
            return succeed(self._flow.complete)
        return self._done.add()

    def _threadEnded(self, reason: Failure) -> Failure:
        """End the reading side, because the thread failed or is not waited for."""
        self.leave()
        return reason

    # The writing side of `start`.

    def _loop(self) -> None:
        error: BaseException | None = None
        try:
            for item in self.loop() or ():
                if not self._writeWhenRoom(item):
                    break
        except BaseException as raised:  # SystemExit too: it is for the reading side
            error = raised
        self._end(error)

    def _writeWhenRoom(self, item: T) -> bool:
        """Write ITEM when there is room. Return False if the reading side has left. For a thread."""
        with self._lock:
            while not (self._hasLeft or self._flow.phase is Phase.OVER) and self._flow.awaitRoom():
                self._room.wait()
            if self._hasLeft or self._flow.phase is Phase.OVER:
                return False
            if self._flow.put(item):
                self._notify()
            return True

    # How the two sides notify each other.

    def _refill(self) -> None:
        """Wait until there are items in `_taken`, or raise the end of the iteration."""
        with self._lock:
            while not self._taken:
                answer = End(None) if self._hasLeft else self._flow.take()
                if isinstance(answer, Items):
                    self._taken.extend(answer.items)
                elif isinstance(answer, Wait):
                    if isLoopThread() and getattr(self.reactor, "running", False):
                        raise RuntimeError("iterating would block the reactor's thread: use `async for` there")
                    self._arrival.wait()
                    continue
                if self._notify():
                    self._wakeLoop()
                if isinstance(answer, End):
                    raise StopIteration if answer.error is None else answer.error

    def _notify(self) -> bool:
        """Wake the threads that should be woken, and the loop. The lock must be held.

        Return True in the loop's own thread, which then has to call `_act` without the lock.
        """
        flow = self._flow
        loop = flow.pending is not None
        if flow.shouldWakeReaders():
            self._arrival.notify_all()
            loop = loop or self._source is not None
        if flow.shouldWakeWriters():
            self._room.notify_all()
        if loop and not isLoopThread():
            self._wakeLoop()
            loop = False
        return loop

    def _wakeLoop(self) -> None:
        """Make the loop call `_act` in a turn of its own. The lock must be held."""
        if not self._loopWoken:
            self._loopWoken = True
            self.reactor.callFromThread(self._loopWakes)

    def _loopWakes(self) -> None:
        with self._lock:
            self._loopWoken = False
        self._act()

    def _act(self) -> None:
        """Carry out the loop's pending actions, for at most a slice of time. In the loop's thread."""
        if self._acting:
            # The producer writes while it is being resumed. It must be paused or stopped now. Other actions wait,
            # because otherwise one resumption would run inside another.
            self._actOnce((Action.PAUSE, Action.STOP))
            return
        self._acting = True
        deadline = perf_counter() + SLICE
        try:
            while self._actOnce(tuple(Action)) or (self._source is not None and self._source.give()):
                if perf_counter() > deadline:
                    with self._lock:
                        self._wakeLoop()
                    break
        finally:
            self._acting = False

    def _actOnce(self, allowed: Container[Action]) -> bool:
        """Carry out the pending action, if it is one of ALLOWED. Return False if there is none."""
        with self._lock:
            action = self._flow.pending
            if action is None or action not in allowed:
                return False
            self._flow.done(action)
        if action is Action.FINISHED:
            self._finish()
            return True
        try:
            self._perform(action)
        except Exception as error:  # from the user's producer: it ends the writing side, and the thread gets the error
            self._end(error)
        return True

    def _perform(self, action: Action) -> None:
        """Make the producer do ACTION. In the loop's thread. (Without a producer, each means that waiting is over.)"""
        with self._lock:
            self._flow.detach()

    def _end(self, error: BaseException | None) -> None:
        """End the writing side."""
        with self._lock:
            self._flow.end(error)
            attend = self._notify()
        if attend:
            self._act()

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
    """Iterates over a bridge. When the last reader of a bridge is dropped, the reading side has left."""

    __slots__ = ("_bridge", "_taken")

    def __init__(self, bridge: IterationGetter[T]) -> None:
        self._bridge = bridge
        self._taken = bridge._taken
        bridge._readers.add(id(self))

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        while True:
            try:
                return self._taken.popleft()
            except IndexError:
                self._bridge._refill()

    def __del__(self) -> None:
        # The garbage collector may call this in any thread at any moment, so this must not take a lock.
        bridge = self._bridge
        bridge._readers.discard(id(self))
        if not bridge._readers and bridge._flow.phase is not Phase.OVER:
            bridge._hasLeft = True
            bridge._taken.clear()
            bridge.reactor.callFromThread(bridge.leave)


class _LoopSource(Generic[T]):
    """The reading side in the loop: an `asynqueue.interfaces.ItemSource`."""

    def __init__(self, bridge: IterationGetter[T]) -> None:
        self._bridge = bridge
        self._sink: ItemSink | None = None
        self._credit = 0

    def begin(self, sink: ItemSink) -> None:
        """Send granted items to SINK."""
        self._sink = sink

    def grant(self, items: int) -> None:
        """Grant ITEMS more. They are sent in the reactor's next turn, or by the action in progress."""
        self._credit += items
        if not self._bridge._acting:
            with self._bridge._lock:
                self._bridge._wakeLoop()

    def close(self) -> None:
        """End: no more items are wanted."""
        self._over(None)
        self._bridge.leave()

    def give(self) -> bool:
        """Send the granted items that have come. Return False if there is nothing to send."""
        bridge = self._bridge
        if self._sink is None or not self._credit:
            return False
        with bridge._lock:
            answer = bridge._flow.take(self._credit)
            bridge._notify()
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
