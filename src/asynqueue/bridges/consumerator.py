"""Bridges from a Twisted producer, or from a file-like writer, to a thread or the loop.

A Twisted producer writes to a `Consumerator`. Code that expects a file writes to a `Filerator`. Either is read as an
iterator in a thread, or in the loop with ``async for``. `asynqueue.bridges.base` has their common part.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from typing_extensions import Self
from zope.interface import implementer

from asynqueue.bridges.base import LIMIT, IterationGetter
from asynqueue.bridges.threadpool import PoolUser, isLoopThread
from asynqueue.core.flow.boundedbuffer import Action, Phase
from asynqueue.interfaces import ThreadCaller
from asynqueue.reactor.waiters import Waiters

__all__ = ["Consumerator", "Filerator", "IterationGetter", "PoolUser"]

T = TypeVar("T")
P = ParamSpec("P")


@implementer(IConsumer)
class Consumerator(IterationGetter[T]):
    """An `IConsumer` for Twisted, and a blocking iterator for a thread.

    The producer ends the iteration with `unregisterProducer`, or with an error through `fail`. When the reading side
    has left, the producer is stopped. If a method of the producer raises an error, the iteration ends with that error.

    Reading, `stop` and `fail` are for any thread. Everything else is for the reactor's thread.

    Args:
        producer: An `IPushProducer`, which is registered as streaming. Any producer can be registered later instead.
        maxThreads: As for `PoolUser.setup`.
        limit: As for `IterationGetter`.
        thread: As for `IterationGetter`.
        reactor: The reactor. None is the installed one.

    Example:
        >>> consumerator = Consumerator()                                        # doctest: +SKIP
        >>> d = consumerator.runInThread(png.Writer(640, 480).write_rows)        # doctest: +SKIP
        >>> producer.beginProducing(consumerator)                                # doctest: +SKIP
    """

    def __init__(
        self,
        producer: Any = None,
        maxThreads: int | None = None,
        *,
        limit: int = LIMIT,
        thread: ThreadCaller | None = None,
        reactor: Any = None,
    ) -> None:
        super().__init__(maxThreads, limit=limit, thread=thread, reactor=reactor)
        self._producer: Any = None  # Twisted's IPushProducer or IPullProducer
        if producer is not None:
            self.registerProducer(producer, True)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Register the producer of the items. If the iteration has ended, the producer is stopped.

        Args:
            producer: An `IPushProducer` if `streaming`, else an `IPullProducer`.
            streaming: A streaming producer writes until it is paused. Any other writes once each time it is resumed.

        Raises:
            RuntimeError: A producer is registered already.
            TypeError: `producer` does not provide the interface.
        """
        if self._producer is not None:
            raise RuntimeError("this consumer has a producer already")
        needed = (
            ("resumeProducing", "stopProducing", "pauseProducing")
            if streaming
            else ("resumeProducing", "stopProducing")
        )
        if not all(hasattr(producer, name) for name in needed):
            kind = "IPushProducer" if streaming else "IPullProducer"
            raise TypeError(f"producer must provide {kind}, got {producer!r}")
        self._producer = producer
        with self._lock:
            self._flow.attach(bool(streaming))
        self._act()

    def unregisterProducer(self) -> None:
        """End the writing side: the written items are read, then the iteration ends."""
        self._dropProducer()
        self._end(None)

    def write(self, data: T) -> None:  # type: ignore[override]  # IConsumer has bytes, a bridge items of any type
        """Write an item. After the end it is dropped.

        Args:
            data: The item, of any type.
        """
        with self._lock:
            attend = self._flow.put(data) and self._notify()
        if attend:
            self._act()

    def stop(self) -> None:
        """End the iteration and stop the producer.

        In the reactor's thread, this ends the writing side, so written items are still read. In another thread it ends
        the reading side, as `leave`, so they are dropped.
        """
        if isLoopThread():
            self._end(None)
        else:
            self.leave()

    def fail(self, error: BaseException) -> None:
        """End the writing side with an error: the iteration raises it after the written items.

        Args:
            error: The error.
        """
        self._dropProducer()
        self._end(error)

    def _perform(self, action: Action) -> None:
        producer = self._producer
        if action is Action.PAUSE:
            producer.pauseProducing()
        elif action is Action.RESUME:
            producer.resumeProducing()
        else:
            self._producer = None
            producer.stopProducing()

    def _dropProducer(self) -> None:
        self._producer = None
        with self._lock:
            self._flow.detach()


class Filerator(IterationGetter[T]):
    """A file for one side, and an iterator over the written items for the other.

    Both sides may be used in any thread. A write in another thread than the reactor's waits until there is room. In the
    reactor's thread it does not wait, so wait for `ready` there. ``with filerator:`` closes it at the end. If the block
    raises an error, the reading side gets that error after the items.

    Args:
        maxThreads: As for `PoolUser.setup`.
        limit: As for `IterationGetter`.
        thread: As for `IterationGetter`.
        reactor: The reactor. None is the installed one.

    Example:
        >>> filerator = Filerator()                                              # doctest: +SKIP
        >>> d = PoolUser.deferToThreadInPool(logging.StreamHandler(filerator).emit, record)    # doctest: +SKIP
        >>> async for line in filerator:                                         # doctest: +SKIP
        ...     print(line)
    """

    def __init__(
        self,
        maxThreads: int | None = None,
        *,
        limit: int = LIMIT,
        thread: ThreadCaller | None = None,
        reactor: Any = None,
    ) -> None:
        super().__init__(maxThreads, limit=limit, thread=thread, reactor=reactor)
        self._closed = False
        self._ready = Waiters[None]()
        self._waitsForRoom = False

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._closed

    def write(self, data: T) -> None:
        """Write an item.

        Args:
            data: The item, of any type.

        Raises:
            ValueError: The file is closed.
            BrokenPipeError: The reading side has left, possibly while this waited for room.
        """
        mayWait = not isLoopThread()
        with self._lock:
            self._check()
            while mayWait and self._flow.awaitRoom():
                self._room.wait()
                self._check()
            attend = self._flow.put(data) and self._notify()
        if attend:
            self._act()

    def writelines(self, lines: Iterable[T]) -> None:
        """Write several items.

        Args:
            lines: The items.

        Raises:
            ValueError: The file is closed.
            BrokenPipeError: The reading side has left.
        """
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Do nothing: written items can be read at once.

        Raises:
            ValueError: The file is closed.
            BrokenPipeError: The reading side has left.
        """
        with self._lock:
            self._check()

    def ready(self) -> Deferred[None]:
        """Wait until there is room for more items, or the reading side has left. For the reactor's thread.

        Returns:
            A Deferred of None.
        """
        with self._lock:
            if not self._flow.full:
                return succeed(None)
            if not self._waitsForRoom:
                self._waitsForRoom = True
                self._flow.attach(streaming=False)
        ready = self._ready.add()
        self._act()
        return ready

    def close(self) -> None:
        """End the writing side: the written items are read, then the iteration ends."""
        self._closed = True
        self._end(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        self._end(error)

    def _check(self) -> None:
        if self._closed:
            raise ValueError("write to a closed Filerator")
        if self._hasLeft or self._flow.phase is Phase.OVER:
            raise BrokenPipeError("the reading side of this Filerator has left")

    def _perform(self, action: Action) -> None:
        # Every action means that there is room or an end, so waiting is over.
        with self._lock:
            self._flow.detach()
        self._waitsForRoom = False
        self._ready.fire(None)
