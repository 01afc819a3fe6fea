"""Bridges between a loop that must not block and a thread that cannot help it.

A `Consumerator` is written by a Twisted producer, a `Filerator` as if it were a file. Either is read as an iterator
in a thread, or in the loop with ``async for``. `asynqueue.bridges.base` has what they have in common: how much may
wait, and how both sides hear of the end.

An `OrderedItemProducer` is a `Consumerator` and the calls whose results go into it, in the order in which they were
made. Which goes in next is decided by `asynqueue.core.flow.reorder.Reorder`; how many may wait, by the `Consumerator`,
whose producer it is. What is left is to know how it ends, and there are three ways: `stop`, and everything made has
gone in; a call has failed; the blocking side is over. Calls that nobody needs any more are cancelled.
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
    """An `IConsumer` to Twisted, a blocking iterator to a thread.

    >>> consumerator = Consumerator()                                        # doctest: +SKIP
    >>> d = consumerator.runInThread(png.Writer(640, 480).write_rows)        # doctest: +SKIP
    >>> producer.beginProducing(consumerator)                                # doctest: +SKIP

    PRODUCER, if it is given, is registered as a streaming one (`IPushProducer`); any producer can be registered
    later. The producer ends the iteration by `unregisterProducer`, and with an error by `fail`. When the reading side
    has left, the producer is told to stop. One that raises when told anything ends the iteration with what it raised.

    The other arguments are those of `IterationGetter`. But for reading, `stop` and `fail`, everything is for the
    reactor's thread.
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
        """Have PRODUCER write: until it is paused when STREAMING, or else once each time it is resumed.

        Raises RuntimeError when there is one already, TypeError for what is none. When the iteration has ended,
        PRODUCER is told to stop.
        """
        if self._producer is not None:
            raise RuntimeError("this consumer has a producer already")
        told = (
            ("resumeProducing", "stopProducing", "pauseProducing")
            if streaming
            else ("resumeProducing", "stopProducing")
        )
        if not all(hasattr(producer, name) for name in told):
            kind = "IPushProducer" if streaming else "IPullProducer"
            raise TypeError(f"producer must provide {kind}, got {producer!r}")
        self._producer = producer
        with self._lock:
            self._flow.attach(bool(streaming))
        self._attend()

    def unregisterProducer(self) -> None:
        """There is nothing more to write: the thread reads what was written, and then its iteration ends."""
        self._letGo()
        self._end(None)

    def write(self, data: T) -> None:  # type: ignore[override]  # IConsumer speaks of bytes; ours are items of any type
        """DATA is the next item. When the iteration has ended it is dropped."""
        with self._lock:
            attend = self._flow.put(data) and self._tell()
        if attend:
            self._attend()

    def stop(self) -> None:
        """End it: the producer is told to stop.

        In the reactor's thread this speaks for the writing side, so what was written is still read. In any other one
        it speaks for the reading side, as `leave` does, so that is dropped.
        """
        if isLoopThread():
            self._end(None)
        else:
            self.leave()

    def fail(self, error: BaseException) -> None:
        """As `unregisterProducer`, but the iteration does not end: it raises ERROR, after what was written."""
        self._letGo()
        self._end(error)

    def _direct(self, due: Action) -> None:
        producer = self._producer
        if due is Action.PAUSE:
            producer.pauseProducing()
        elif due is Action.RESUME:
            producer.resumeProducing()
        else:
            self._producer = None
            producer.stopProducing()

    def _letGo(self) -> None:
        self._producer = None
        with self._lock:
            self._flow.detach()


class Filerator(IterationGetter[T]):
    """A file to write to on one side, an iterator over what was written on the other.

    >>> filerator = Filerator()                                              # doctest: +SKIP
    >>> d = PoolUser.deferToThreadInPool(logging.StreamHandler(filerator).emit, record)    # doctest: +SKIP
    >>> async for line in filerator:                                         # doctest: +SKIP
    ...     print(line)

    Both sides may be used in any thread, in the reactor's too. A write in any other thread waits until there is room.
    In the reactor's it does not; wait for `ready` there. ``with filerator:`` closes it, and where it is left by an
    error, the reading side gets that after the items.

    The arguments are those of `IterationGetter`.
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
        """True once `close` was called."""
        return self._closed

    def write(self, data: T) -> None:
        """DATA is the next item, whatever it is.

        Raises `ValueError` after `close`, and `BrokenPipeError` when nobody reads any more, also in the midst of
        waiting for room.
        """
        mayWait = not isLoopThread()
        with self._lock:
            self._check()
            while mayWait and self._flow.awaitRoom():
                self._room.wait()
                self._check()
            attend = self._flow.put(data) and self._tell()
        if attend:
            self._attend()

    def writelines(self, lines: Iterable[T]) -> None:
        """Write each of LINES."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing: what is written is there to be read at once. Raises `ValueError` after `close`, as a file does."""
        with self._lock:
            self._check()

    def ready(self) -> Deferred[None]:
        """Fires when there is room for more, or nobody reads any more. For the reactor's thread."""
        with self._lock:
            if not self._flow.full:
                return succeed(None)
            if not self._waitsForRoom:
                self._waitsForRoom = True
                self._flow.attach(streaming=False)
        ready = self._ready.add()
        self._attend()
        return ready

    def close(self) -> None:
        """There is nothing more to write: what was written is read, and then the iteration ends."""
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
            raise BrokenPipeError("nobody reads this Filerator any more")

    def _direct(self, due: Action) -> None:
        # Whatever it is, there is no use in waiting: there is room, or an end.
        with self._lock:
            self._flow.detach()
        self._waitsForRoom = False
        self._ready.fire(None)
